"""A look at a database where somebody's lock keeps even readers off a table: bounded, and not silent."""

from __future__ import annotations

import time
from collections.abc import Callable

from perfctl.errors import Busy, StatementFailed
from perfctl.figures import human_seconds
from perfctl.indexes.model import Blocker, Snapshot
from perfctl.servers.postgres import Postgres

_NO_LOCK = "55P03"
#: who is in the way is told this often
_TRY_S = 5.0

_LOCKED = (
    "SELECT DISTINCT l.relation::bigint, c.oid::regclass::text FROM pg_catalog.pg_locks AS l"
    " JOIN pg_catalog.pg_class AS c ON c.oid = l.relation AND c.relkind IN ('r', 'p', 'm')"
    " WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()"
    " AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())"
)


def look(pg: Postgres, at: Callable[[], Snapshot], budget_s: float, say: Callable[[str], None]) -> Snapshot:
    """What ``at`` sees; a table that is locked against readers is waited for ``budget_s`` seconds.

    ``say`` is told every few seconds who locks. Raises Busy when the budget is spent.
    """
    began = time.monotonic()
    while True:
        left_s = budget_s - (time.monotonic() - began)
        pg.setting("lock_timeout", f"{max(1, round(min(_TRY_S, left_s) * 1000))}ms")
        try:
            seen = at()
        except StatementFailed as error:
            if error.sqlstate != _NO_LOCK:
                raise
            waited_s = time.monotonic() - began
            text = f"{_locked(pg)}; waited {human_seconds(waited_s)}"
            if waited_s >= budget_s:
                raise Busy(f"{text}; nothing was changed", hint="end that transaction, or wait for its end") from error
            say(f"waiting: {text}")
            continue
        pg.settings({"lock_timeout": None})
        return seen


def _locked(pg: Postgres) -> str:
    """Which tables are locked, each with who holds it."""
    tables = dict(pg.values(_LOCKED))
    found = pg.fetch("blockers", Blocker, {"tables": list(tables), "own": []})
    holders = {
        f'table "{tables[each.table_oid]}" is locked against readers by {each.named()}': None
        for each in found
        if each.reason == "holder" and each.table_oid in tables
    }
    return "; ".join(holders) or "a table was locked against readers by somebody who let it go meanwhile"
