"""How far a share seen in a sample may be from the truth."""

from __future__ import annotations

from math import sqrt

#: of a normal distribution, for 95 of 100 samples
_Z = 1.96


def interval(hits: float, of: float) -> tuple[float, float]:
    """Wilson's score interval: in 95 of 100 samples the true share lies in it. Of no sample, anything may be true.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not of:
        return 0.0, 1.0
    share = hits / of
    middle = share + _Z**2 / (2 * of)
    spread = _Z * sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2))
    scale = 1 + _Z**2 / of
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
