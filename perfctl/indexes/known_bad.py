"""Minor releases of PostgreSQL that build indexes which miss rows, and what they are refused or warned for. Pure.

From the release notes (https://www.postgresql.org/docs/release/); a range ends with the last bad minor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the bad minors of each major, when it bites, and where it is written."""

    minors: Mapping[int, tuple[int, int]]
    why: str
    source: str
    concurrent_only: bool = True
    method: str | None = None
    #: so likely, or so quiet, that a build is refused
    refuse: bool = True


FAULTS = (
    Fault(
        {14: (0, 3)},
        "an index built concurrently misses rows that are updated meanwhile",
        "release notes 14.4",
    ),
    Fault(
        {13: (0, 4), 14: (0, 0)},
        "an index built concurrently may miss rows of prepared transactions and of sessions that did not hear of it",
        "release notes 13.5 and 14.1",
    ),
    Fault(
        {13: (0, 16), 14: (0, 13), 15: (0, 8), 16: (0, 4), 17: (0, 0)},
        "a table's first index may get no new rows when its pg_class row is written at the same time",
        "release notes 17.1 and 16.5",
        concurrent_only=False,
        refuse=False,
    ),
    Fault(
        {18: (0, 1)},
        "a GIN index built by parallel workers may come out in the wrong order",
        "release notes 18.2",
        concurrent_only=False,
        method="gin",
        refuse=False,
    ),
    Fault(
        {14: (0, 17), 15: (0, 12), 16: (0, 8), 17: (0, 4)},
        "a BRIN index of bloom summaries may miss rows",
        "release notes 17.5",
        concurrent_only=False,
        method="brin",
        refuse=False,
    ),
    Fault(
        {13: (0, 12), 14: (0, 9), 15: (0, 4), 16: (0, 0)},
        "a GiST index may miss rows after a page split in its build",
        "release notes 16.1",
        concurrent_only=False,
        method="gist",
        refuse=False,
    ),
)


def fault(version_num: int, *, method: str, concurrent: bool, refuse: bool) -> Fault | None:
    """The fault of a server that a build is refused (or, with ``refuse`` false, warned) for; None without one.

    ``version_num`` is the server's number: 140003 for 14.3.
    """
    major, minor = version_num // 10000, version_num % 10000
    for each in FAULTS:
        first, last = each.minors.get(major, (1, 0))
        if (
            first <= minor <= last
            and each.refuse is refuse
            and each.method in (None, method)
            and (concurrent or not each.concurrent_only)
        ):
            return each
    return None


def mended_in(version_num: int, found: Fault) -> str:
    """The release that a server has to be brought to: 14.4."""
    major = version_num // 10000
    return f"{major}.{found.minors[major][1] + 1}"
