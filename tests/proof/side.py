"""A session beside perfctl: it sees what perfctl's sessions do at an instant, and ends them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.fix_servers import Database

_LOOK = """
SELECT a.pid, p.phase, a.query, a.wait_event_type = 'Lock'
FROM pg_stat_activity AS a LEFT JOIN pg_stat_progress_create_index AS p ON p.pid = a.pid
WHERE
    a.application_name LIKE 'perfctl/%' AND a.datname = current_database() AND a.backend_type = 'client backend'
ORDER BY a.state = 'active' AND a.query ~* '^(create|drop)\\M.*\\mindex concurrently' DESC NULLS LAST
"""
_STARTS_WITHIN_S = 60.0
_LOOK_AGAIN_S = 0.02

NOBODY = "no session"
BETWEEN = "between statements"


@dataclass(frozen=True, slots=True)
class Seen:
    """What perfctl does on the server; ``pid`` is the backend that builds or drops, 0 when there is none."""

    phase: str
    pid: int = 0

    @property
    def connected(self) -> bool:
        """Whether perfctl has come to the server."""
        return self.phase != NOBODY


class Side:
    """One session, opened anew when the server has crashed. It never has a transaction open."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises psycopg.OperationalError when the server is not there."""
        if self._connection is None:
            self._connection = self.database.connect(application_name="side")
        try:
            return self._connection.execute(query.encode(), parameters or None).fetchall()
        except psycopg.OperationalError:
            self.close()
            raise

    def look(self) -> Seen:
        """What perfctl does now."""
        try:
            rows = self.ask(_LOOK)
        except psycopg.OperationalError:
            return Seen(NOBODY)
        if not rows:
            return Seen(NOBODY)
        pid, phase, query, waits = rows[0]
        return _seen(pid, phase, query, waits)

    def crashed_and_back(self) -> None:
        """Wait until this session has been lost and the server takes a new one."""
        with contextlib.suppress(psycopg.OperationalError):
            deadline = time.monotonic() + _STARTS_WITHIN_S
            while time.monotonic() < deadline:
                self.ask("SELECT 1")
                time.sleep(_LOOK_AGAIN_S)
        self.back()

    def back(self) -> None:
        """Wait until the server takes a session. Raises psycopg.OperationalError when it does not."""
        deadline = time.monotonic() + _STARTS_WITHIN_S
        self.close()
        while True:
            try:
                self.ask("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_AGAIN_S)
            else:
                return


def _seen(pid: int, phase: str | None, query: str, waits: bool | None) -> Seen:
    words = query.upper()
    if phase is not None:
        return Seen(phase, pid)
    if "INDEX CONCURRENTLY" not in words or not words.startswith(("CREATE", "DROP")):
        return Seen(BETWEEN)
    kind = "drop" if words.startswith("DROP") else "create"
    return Seen(f"{kind}: waits" if waits else f"{kind}: works", pid)
