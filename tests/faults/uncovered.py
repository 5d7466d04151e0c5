"""The faults of the project's list that no test brings about."""

from __future__ import annotations

#: number, fault, why it is not tried
UNCOVERED: tuple[tuple[int, str, str], ...] = ()
