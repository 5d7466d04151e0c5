"""Builds that are under way: held where a test wants them, looked at, and parted from whoever began them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tests.fix_perfctl import Process, Project, until
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, writer

#: phases of a concurrent build, as pg_stat_progress_create_index names them
WRITERS_BEFORE_BUILD = "waiting for writers before build"
SCANNING = "building index: scanning table"
WRITERS_BEFORE_VALIDATION = "waiting for writers before validation"
OLD_SNAPSHOTS = "waiting for old snapshots"

#: The migration of a table t whose build can be held in any phase: by ``slow`` while it reads the table.
SLOW = "CREATE INDEX CONCURRENTLY i ON t (slow(a));"
_KEY = 4711

#: Lets go what a build is held by.
Release = Callable[[], None]


def slow_function(database: Database) -> None:
    """A function for index expressions that waits while ``gate`` is shut."""
    send(
        database,
        "CREATE FUNCTION slow(value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        f" 'BEGIN PERFORM pg_advisory_xact_lock_shared({_KEY}); RETURN value; END'",
    )


@contextlib.contextmanager
def gate(database: Database) -> Iterator[Release]:
    """Keeps whoever calls ``slow`` waiting, until the function that it gives is called or the block ends."""
    with database.connect(application_name="gate") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_KEY])
        yield lambda: _open(database)


def _open(database: Database) -> None:
    terminate(database, "application_name = 'gate'")


@contextlib.contextmanager
def held_at(database: Database, phase: str, begin: Callable[[], Process]) -> Iterator[Process]:
    """A perfctl that begins to build the index of ``SLOW`` and is held in a phase for as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        release: Release | None = None
        match phase:
            case "waiting for writers before build":
                stack.enter_context(writer(database))
            case "waiting for old snapshots":
                stack.enter_context(old_snapshot(database))
            case _:
                release = stack.enter_context(gate(database))
        process = begin()
        if phase == WRITERS_BEFORE_VALIDATION and release is not None:
            until(lambda: phases(database) == [SCANNING])
            stack.enter_context(writer(database))
            release()
        until(lambda: phases(database) == [phase])
        yield process


@contextlib.contextmanager
def statement(database: Database, text: str, application: str = "psql") -> Iterator[Future[None]]:
    """A statement that somebody else sends; the block ends when it has ended, and its error is the future's."""

    def act() -> None:
        with database.connect(application_name=application) as connection:
            connection.execute(text.encode())

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(act)
        except BaseException:
            # What it waits for may be an outer block's.
            terminate(database, f"application_name = '{application}'")
            raise


def phases(database: Database) -> list[str]:
    """The phase of each build that is under way."""
    query = "SELECT phase FROM pg_stat_progress_create_index WHERE datname = current_database() ORDER BY pid"
    with database.connect() as connection:
        return [phase for (phase,) in connection.execute(query)]


def process_of(database: Database, application: str) -> int:
    """The one server process of the application of that name."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"
    with database.connect() as connection:
        ((pid,),) = connection.execute(query, [application]).fetchall()
    return int(pid)


def until_idle(database: Database) -> None:
    """Wait until nothing is being built and nobody of perfctl's is at work in the database."""
    until(lambda: not phases(database) and not sessions(database, "state <> 'idle'"))


def sessions(database: Database, condition: str = "true") -> list[int]:
    """The processes of perfctl's sessions on the database that meet a condition on pg_stat_activity."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%' AND datname = current_database()"
        f" AND {condition} ORDER BY backend_start"
    )
    with database.connect() as connection:
        return [pid for (pid,) in connection.execute(query.encode())]


def builders(database: Database) -> list[int]:
    """The sessions of perfctl's that build, drop, or wait to."""
    return sessions(database, r"state = 'active' AND query ~ '^(CREATE|DROP) (UNIQUE )?INDEX'")


def watchers(database: Database) -> list[int]:
    """The sessions that have the database for a perfctl."""
    query = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with database.connect() as connection:
        return [pid for (pid,) in connection.execute(query)]


def terminate(database: Database, condition: str) -> None:
    """End the sessions on the database that meet a condition on pg_stat_activity."""
    send(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}",
    )


def end(database: Database, *pids: int) -> None:
    """End sessions by their process."""
    terminate(database, f"pid IN ({', '.join(map(str, pids))})")


def oid_of(database: Database, name: str = "i") -> int | None:
    """The OID of the index of that name; None without one."""
    with database.connect() as connection:
        row = connection.execute("SELECT to_regclass(%s)::oid", [name]).fetchone()
    assert row is not None
    return int(row[0]) if row[0] is not None else None


def kill(process: Process) -> None:
    """End a perfctl so that it can do nothing more."""
    process.popen.kill()
    process.popen.communicate()


def elsewhere(project: Project, dsn: str) -> Project:
    """The same project with its target at another address of the same database."""
    there = Project(project.folder, dsn)
    there.configure("version: 1\ntargets:\n  test:\n    database: {dsn: '{dsn}'}\nindexes: {migrations: migrations}\n")
    return there
