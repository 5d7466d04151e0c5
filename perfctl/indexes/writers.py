"""Who writes to tables that are about to be built on with --offline: plain builds make every writer wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perfctl.errors import Refused
from perfctl.indexes.model import Blocker, Snapshot
from perfctl.migrations.model import Name
from perfctl.servers.postgres import Postgres

#: A session reports what it wrote at most once a second: two looks closer together may miss one that never stops.
LOOKS_APART_S = 1.2

HINT = "stop them, or leave --offline out: concurrent builds let writers go on"


@dataclass(frozen=True, slots=True)
class Writes:
    """How many rows were written to a table until now."""

    oid: int
    schema: str
    name: str
    rows_written: int

    @property
    def full_name(self) -> Name:
        """Schema and name."""
        return Name(self.schema, self.name)


def refuse_writers(
    pg: Postgres, seen: Snapshot, tables: Sequence[int], *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Raise Refused when somebody writes to the tables: in an open transaction, or in short ones again and again.

    Short ones show in the tables' counters. These move once more after the last write of a session that stays
    connected, so a load that has just ended moves them once: only who moves them in two stretches on end is a writer.
    Who writes more seldom than once a second is not seen here; a build gives way to it when it comes.
    """
    if writers := open_writers(seen):
        raise Refused(
            f"--offline: somebody writes here: {'; '.join(each.named() for each in writers)}; nothing was changed",
            hint=HINT,
        )
    if not tables:
        return
    moved = set(tables)
    before = _look(pg, moved)
    for _ in range(2):
        sleep(LOOKS_APART_S)
        now = _look(pg, moved)
        moved = {oid for oid in moved & now.keys() & before.keys() if now[oid].rows_written != before[oid].rows_written}
        if not moved:
            return
        before = now
    names = ", ".join(sorted(f'"{before[oid].full_name}"' for oid in moved))
    raise Refused(f"--offline: somebody writes to {names} in short transactions; nothing was changed", hint=HINT)


def open_writers(seen: Snapshot) -> list[Blocker]:
    """The transactions that have written, each once however many tables it holds."""
    found = {
        each.identity: each
        for each in seen.blockers
        if each.reason in ("writer", "holder") and (each.is_client or not each.pid)
    }
    return list(found.values())


def _look(pg: Postgres, tables: set[int]) -> dict[int, Writes]:
    return {each.oid: each for each in pg.fetch("writes", Writes, {"tables": sorted(tables)})}
