"""A look at a database where somebody's lock keeps even readers off a table: bounded, and not silent."""

from __future__ import annotations

import time
from collections.abc import Callable

from perfctl.errors import Busy, StatementFailed
from perfctl.indexes.figures import human_seconds
from perfctl.indexes.model import Blocker, Snapshot
from perfctl.servers.postgres import Postgres

_NO_LOCK = "55P03"
#: who is in the way is told this often
_TRY_S = 5.0

_LOCKED = (
    "SELECT DISTINCT l.relation::bigint FROM pg_catalog.pg_locks AS l"
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
            text = f"a table is locked against readers by {_holders(pg)}; waited {human_seconds(waited_s)}"
            if waited_s >= budget_s:
                raise Busy(f"{text}; nothing was changed", hint="end that transaction, or wait for its end") from error
            say(f"waiting: {text}")
            continue
        pg.settings({"lock_timeout": None})
        return seen


def _holders(pg: Postgres) -> str:
    tables = [oid for (oid,) in pg.values(_LOCKED)]
    found = [each for each in pg.fetch("blockers", Blocker, {"tables": tables, "own": []}) if each.reason == "holder"]
    return "; ".join(dict.fromkeys(each.named() for each in found)) or "somebody who let it go meanwhile"
