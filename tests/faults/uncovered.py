"""The faults of the project's list that no test brings about."""

from __future__ import annotations

#: number, fault, why it is not tried
UNCOVERED: tuple[tuple[int, str, str], ...] = (
    (
        45,
        "PostgreSQL before 13.2: rows of prepared transactions are missed by a concurrent build",
        "no such server can be had as a package; the list of releases that are refused has unit tests, and a test on"
        " PostgreSQL 14.3 shows that it is held to",
    ),
    (
        57,
        "Citus: CREATE INDEX CONCURRENTLY IF NOT EXISTS on an index that is there makes it invalid",
        "Citus is in no registry that the tests can reach; perfctl never sends IF NOT EXISTS, which has a unit test",
    ),
)
