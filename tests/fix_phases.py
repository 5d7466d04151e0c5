"""Builds that are under way: held where a test wants them, looked at, and parted from whoever began them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tests.fix_builds import BEFORE_BUILD, BEFORE_VALIDATION, OLD_SNAPSHOTS, kill, phases
from tests.fix_perfctl import Process, Project, until
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, writer

#: phases of a concurrent build, as pg_stat_progress_create_index names them; fix_builds has those that wait
SCANNING = "building index: scanning table"
PHASES = (BEFORE_BUILD, SCANNING, BEFORE_VALIDATION, OLD_SNAPSHOTS)
PHASE_IDS = ("before-build", "in-build", "before-validation", "old-snapshots")

#: The migration of a table t whose build can be held in any phase: by ``slow`` while it reads the table.
SLOW = "CREATE INDEX CONCURRENTLY i ON t (slow(a));"
_KEY = 4711

#: Lets go what a build is held by.
Release = Callable[[], None]


def slow_function(database: Database, *, works: bool = False) -> None:
    """A function for index expressions that takes until no ``gate`` is shut: it waits for a lock, or works on."""
    wait = f"PERFORM pg_advisory_xact_lock_shared({_KEY})"
    if works:
        wait = f"WHILE NOT pg_try_advisory_xact_lock_shared({_KEY}) LOOP PERFORM pg_sleep(0.02); END LOOP"
    send(
        database,
        f"CREATE FUNCTION slow(value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN {wait}; RETURN value; END'",
    )


@contextlib.contextmanager
def gate(database: Database, name: str = "gate") -> Iterator[Release]:
    """Keeps whoever calls ``slow`` waiting, until the function that it gives is called or the block ends.

    Those who waited before, for another gate, still come through.
    """
    with contextlib.closing(database.connect(application_name=name)) as connection:
        # It is not waited for: while another gate is shut, this one is not yet.
        connection.pgconn.send_query(f"SELECT pg_advisory_lock({_KEY})".encode())
        until(lambda: _queued(database, name))
        yield lambda: terminate(database, f"application_name = '{name}'")


def _queued(database: Database, name: str) -> bool:
    query = (
        "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND objid = %s"
        " AND application_name = %s AND datname = current_database()"
    )
    with database.connect() as connection:
        return connection.execute(query, [_KEY, name]).rowcount > 0


@contextlib.contextmanager
def held_at(database: Database, phase: str, begin: Callable[[], Process]) -> Iterator[Process]:
    """A perfctl that begins to build the index of ``SLOW`` and is held in a phase for as long as the block lasts."""
    # What holds it ends after it: a blocker that went down with its server is no reason to kill the process.
    with contextlib.ExitStack() as blockers, contextlib.ExitStack() as stack:
        release: Release | None = None
        if phase == BEFORE_BUILD:
            blockers.enter_context(writer(database))
        elif phase == OLD_SNAPSHOTS:
            blockers.enter_context(old_snapshot(database))
        else:
            release = blockers.enter_context(gate(database))
        process = stack.enter_context(begun(begin()))
        if phase == BEFORE_VALIDATION and release is not None:
            until(lambda: phases(database) == [SCANNING])
            blockers.enter_context(writer(database))
            release()
        until(lambda: set(phases(database)) == {phase})
        yield process


@contextlib.contextmanager
def begun(process: Process) -> Iterator[Process]:
    """A perfctl that does not outlive a test that fails."""
    try:
        yield process
    except BaseException:
        kill(process)
        raise


@contextlib.contextmanager
def statement(database: Database, text: str, application: str = "psql") -> Iterator[Future[None]]:
    """A statement that somebody else sends; the block ends when it has ended, and its error is the future's.

    Of two that wait for each other, the one that looks for a deadlock is ended: it is never this one.
    """

    def act() -> None:
        options = "-c deadlock_timeout=1h"
        with database.connect(application_name=application, options=options) as connection:
            connection.execute(text.encode())

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(act)
        except BaseException:
            # What it waits for may be an outer block's.
            terminate(database, f"application_name = '{application}'")
            raise


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


def elsewhere(project: Project, dsn: str) -> Project:
    """The same project with its target at another address of the same database."""
    there = Project(project.folder, dsn)
    there.configure("version: 1\ntargets:\n  test:\n    database: {dsn: '{dsn}'}\nindexes: {migrations: migrations}\n")
    return there
