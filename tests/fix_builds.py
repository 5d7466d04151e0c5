"""What builds are doing now, and a perfctl that dies while it is at one."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.fix_perfctl import Process, until
from tests.fix_servers import Database

BEFORE_BUILD = "waiting for writers before build"
BEFORE_VALIDATION = "waiting for writers before validation"
OLD_SNAPSHOTS = "waiting for old snapshots"


def phases(database: Database) -> list[str]:
    """The phase of every build in the database."""
    query = "SELECT phase FROM pg_stat_progress_create_index WHERE datname = current_database() ORDER BY pid"
    with database.connect() as connection:
        return [phase for (phase,) in connection.execute(query)]


def until_phase(database: Database, phase: str) -> None:
    """Wait until some build is in that phase."""
    until(lambda: phase in phases(database))


def statements(database: Database) -> str:
    """What perfctl's sessions have under way now."""
    query = (
        "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%'"
        " AND datname = current_database() AND state = 'active' AND backend_type = 'client backend'"
    )
    with database.connect() as connection:
        return "\n".join(text for (text,) in connection.execute(query))


def until_it_sends(database: Database, words: str) -> None:
    """Wait until perfctl has a statement under way that contains these words and waits for somebody."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%%' AND wait_event_type = 'Lock'"
        " AND datname = current_database() AND state = 'active' AND strpos(query, %s) > 0"
    )

    def sent() -> bool:
        with database.connect() as connection:
            return connection.execute(query, [words]).rowcount > 0

    until(sent)


def kill(process: Process) -> None:
    """End a perfctl so that it can do nothing more; what it has sent goes on."""
    process.popen.kill()
    process.popen.communicate()


def kill_with_its_sessions(database: Database, process: Process) -> None:
    """End a perfctl, and on the server whatever it has under way."""
    kill(process)
    end_sessions(database)


def end_sessions(database: Database) -> None:
    """End perfctl's sessions on the server, and wait until they are gone."""
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'perfctl/%' AND datname = current_database()"
    )

    def gone() -> bool:
        with database.connect() as connection:
            return connection.execute(query).rowcount == 0

    until(gone)


def oid(database: Database, name: str) -> int | None:
    """The OID of a relation; None without one."""
    with database.connect() as connection:
        row: tuple[Any, ...] | None = connection.execute("SELECT to_regclass(%s)::oid", [name]).fetchone()
    return row[0] if row else None


def takes(database: Database, statement: str) -> bool:
    """Whether an application's statement is taken: False when it repeats a key."""
    with database.connect(autocommit=False) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.errors.UniqueViolation:
            return False
        connection.rollback()
    return True
