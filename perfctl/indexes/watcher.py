"""The session that keeps a run's lock and journal and watches the others; it outlives its connection.

It is in autocommit and never has a transaction open, so perfctl cannot be what its own build waits for. When its
connection is lost it comes back with another one, takes the lock again, and goes on: a build that is under way on
the server is worth more than the connection it was begun from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from perfctl.errors import Busy, ConnectionLost, Denied, PerfctlError, StatementFailed, StopRequested, Unreachable
from perfctl.indexes.running import Limits
from perfctl.servers.postgres import Postgres
from perfctl.stop import Stop

Record = TypeVar("Record")
Answer = TypeVar("Answer")

#: ``pg_try_advisory_lock(classid, objid)``: "perf" in ASCII, and the database is part of every such lock.
LOCK_KEY = (0x70657266, 1)

_POLL_S = 0.2


class Watcher:
    """One perfctl at a time on a database, for as long as the block lasts."""

    def __init__(self, pg: Postgres, connect: Callable[[], Postgres], limits: Limits, stop: Stop) -> None:
        self._pg = pg
        self._connect = connect
        self._limits = limits
        self._stop = stop
        #: why the server was given up
        self._gone: ConnectionLost | None = None

    def __enter__(self) -> Watcher:
        self._begin(self._pg)
        self._lock()
        return self

    def _begin(self, pg: Postgres) -> None:
        pg.answer_within_s = self._limits.answer_within_s
        pg.keep_plans()
        # By it the server decides which names it prints in full, and definitions are compared as text.
        pg.setting("search_path", "pg_catalog")
        # A line of the journal that a crash of the server takes back would make an index nobody's.
        pg.execute(
            "SET default_transaction_read_only = off;"
            " SELECT set_config('synchronous_commit', 'local', false)"
            " WHERE pg_catalog.current_setting('synchronous_commit') = 'off'"
        )

    def __exit__(self, *_: object) -> None:
        # The lock ends with its session in any case.
        with suppress(PerfctlError):
            self._pg.values("SELECT pg_catalog.pg_advisory_unlock(%s, %s)", LOCK_KEY)

    @property
    def pid(self) -> int:
        """The server process of the connection that it has now."""
        return self._pg.pid

    def fetch(self, name: str, record: type[Record], parameters: Mapping[str, Any] | None = None) -> list[Record]:
        """As ``Postgres.fetch``."""
        return self._again(lambda: self._pg.fetch(name, record, parameters))

    def values(
        self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """As ``Postgres.values``; sent a second time when the connection was lost over it."""
        return self._again(lambda: self._pg.values(statement, parameters))

    def execute(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> int:
        """As ``Postgres.execute``; sent a second time when the connection was lost over it."""
        return self._again(lambda: self._pg.execute(statement, parameters))

    def transaction(self, act: Callable[[Postgres], Answer]) -> Answer:
        """What ``act`` returns; all that it sends is one transaction, begun anew when the connection was lost."""

        def whole() -> Answer:
            with self._pg.transaction():
                return act(self._pg)

        return self._again(whole)

    def _again(self, ask: Callable[[], Answer]) -> Answer:
        if self._gone is not None:
            raise self._gone
        try:
            return ask()
        except ConnectionLost as lost:
            self._come_back(lost)
            return ask()

    def _come_back(self, lost: ConnectionLost) -> None:
        before = self._pg.pid
        self._pg.close()
        deadline = time.monotonic() + self._limits.reconnect_s
        while True:
            if (signum := self._stop()) is not None:
                raise StopRequested(signum)
            try:
                pg = self._connect()
                break
            except (Unreachable, ConnectionLost):
                if time.monotonic() > deadline:
                    # Waited for once: what the run still has to say it says without the server.
                    self._gone = lost
                    raise lost from None
                time.sleep(_POLL_S)
        self._pg = pg
        self._begin(pg)
        # The server may not have noticed yet that the old connection is gone, and its session keeps the lock.
        with suppress(StatementFailed, Denied):
            pg.values(
                "SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l"
                " WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.pid = %s",
                (*LOCK_KEY, before),
            )
        self._lock()

    def _lock(self) -> None:
        """Polled: who blocks in pg_advisory_lock holds a snapshot, and a build would wait for that for ever."""
        deadline = time.monotonic() + self._limits.runner_wait_s
        while True:
            ((got,),) = self._pg.values("SELECT pg_catalog.pg_try_advisory_lock(%s, %s)", LOCK_KEY)
            if got:
                return
            if (signum := self._stop()) is not None:
                raise StopRequested(signum)
            if time.monotonic() > deadline:
                raise Busy(
                    f"another perfctl is at work on this database: {self._holder()}",
                    hint="wait for it to end, then run the command again",
                )
            time.sleep(_POLL_S)

    def _holder(self) -> str:
        rows = self._pg.values(
            "SELECT a.pid, a.usename, a.application_name, a.client_addr::text FROM pg_catalog.pg_locks AS l"
            " JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid"
            " WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.granted"
            " AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())",
            LOCK_KEY,
        )
        return "; ".join(f"pid {p} ({u}, {a}, from {c or 'this machine'})" for p, u, a, c in rows) or "it just ended"
