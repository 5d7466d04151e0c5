"""Durations and sizes as people write them: a number and its unit, never a bare number."""

from __future__ import annotations

import re

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB)$"
DURATION_EXPECTED = "expected a duration such as 500ms, 3s, 15m, 2h"
SIZE_EXPECTED = "expected a size such as 64kB, 64MB, 2GB"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "kB": 1024, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
#: PostgreSQL keeps a timeout as milliseconds in 32 bits; beyond that a SET is refused.
_LONGEST_S = (2**31 - 1) / 1000


def parse_duration(text: str) -> float:
    """``500ms``, ``3s``, ``15m`` or ``2h`` in seconds; ValueError says what was expected instead."""
    number, unit = _split(text, _SECONDS, DURATION_EXPECTED)
    seconds = number * _SECONDS[unit]
    if seconds > _LONGEST_S:
        raise ValueError(f"too long: at most {int(_LONGEST_S // 3600)}h")
    return seconds


def parse_size(text: str) -> int:
    """``64MB`` and the like in bytes, with PostgreSQL's units of 1024; ValueError says what was expected."""
    number, unit = _split(text, _BYTES, SIZE_EXPECTED)
    return int(number * _BYTES[unit])


def format_duration(seconds: float) -> str:
    """The shortest spelling that parse_duration reads back: ``900.0`` is ``15m``."""
    milliseconds = round(seconds * 1000)
    for unit in ("h", "m", "s"):
        whole, rest = divmod(milliseconds, round(_SECONDS[unit] * 1000))
        if whole and not rest:
            return f"{whole}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _split(text: str, units: dict[str, float] | dict[str, int], expected: str) -> tuple[float, str]:
    found = _NUMBER_AND_UNIT.fullmatch(text)
    if found is None or (found[2] and found[2] not in units):
        raise ValueError(expected)
    if not found[2]:
        raise ValueError(f"{expected}: the unit is missing")
    return float(found[1]), found[2]
