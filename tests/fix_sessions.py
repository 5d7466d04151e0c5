"""Other sessions on a database: those that stand in the way of a build, and those that leave one broken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.fix_perfctl import until
from tests.fix_servers import Database


@contextlib.contextmanager
def writer(database: Database, statement: str = "INSERT INTO t VALUES (-1, -1)") -> Iterator[psycopg.Connection[Any]]:
    """An open transaction that has written: every concurrent build on its table waits for it."""
    with database.connect(autocommit=False, application_name="web") as connection:
        connection.execute(statement.encode())
        yield connection
        connection.rollback()


@contextlib.contextmanager
def old_snapshot(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """An open transaction with a snapshot: a concurrent build waits for it in its last phase."""
    with database.connect(autocommit=False, application_name="pg_dump") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        yield connection
        connection.rollback()


def send(database: Database, *statements: str) -> None:
    """Send statements one by one."""
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def table(database: Database, name: str = "t", rows: int = 100) -> None:
    """A small table with columns a and b, every a once."""
    send(
        database,
        f"CREATE TABLE {name} (a int, b int)",
        f"INSERT INTO {name} SELECT i, i % 7 FROM generate_series(1, {rows}) AS i",
    )


def broken_unready(database: Database, name: str = "i") -> None:
    """Leave an index that a failed unique build left: neither valid nor ready."""
    send(database, "INSERT INTO t VALUES (1, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        send(database, f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON t (a)")
    send(database, "DELETE FROM t WHERE ctid IN (SELECT max(ctid) FROM t WHERE a = 1)")


def broken_ready(database: Database, definition: str = "i ON t (a)") -> None:
    """Leave an index whose build was cut in its last wait: ready, not valid."""
    with old_snapshot(database), pytest.raises(psycopg.errors.LockNotAvailable):
        send(database, "SET lock_timeout = '50ms'", f"CREATE INDEX CONCURRENTLY {definition}")


def half_dropped(database: Database, name: str = "i") -> None:
    """Leave an index whose concurrent drop was cut."""
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            send(database, "SET lock_timeout = '50ms'", f"DROP INDEX CONCURRENTLY {name}")
        reader.rollback()


def waits(database: Database, application: str = "perfctl/%") -> bool:
    """Whether a session of that name waits for another transaction now."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name LIKE %s AND wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )
    with database.connect() as connection:
        return connection.execute(query, [application]).rowcount > 0


def until_it_waits(database: Database, application: str = "perfctl/%") -> None:
    """Wait until a session of that name waits for another transaction."""
    until(lambda: waits(database, application))


def at_work(database: Database) -> bool:
    """Whether a perfctl has the database for itself."""
    query = (
        "SELECT FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with database.connect() as connection:
        return connection.execute(query).rowcount > 0
