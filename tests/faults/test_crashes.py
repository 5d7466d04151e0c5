"""perfctl, its sessions or the server die in the middle of the work: the next run reaches the same end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.declare import fault
from tests.fix_builds import BEFORE_BUILD, BEFORE_VALIDATION, OLD_SNAPSHOTS, kill, oid, phases
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Process, Project, until
from tests.fix_phases import (
    PHASE_IDS,
    PHASES,
    SCANNING,
    SLOW,
    builders,
    end,
    held_at,
    process_of,
    sessions,
    slow_function,
    statement,
    until_idle,
    watchers,
)
from tests.fix_servers import Database
from tests.fix_sessions import at_work, broken_ready, old_snapshot, table, until_it_waits, writer

GOOD = (True, True, True)
#: However slowly the machine comes to it: what holds a build here is for the build itself to wait for.
SEND = ("apply", "--yes", "--blocker-age", "1h")
AT_EACH_PHASE = pytest.mark.parametrize("phase", PHASES, ids=PHASE_IDS)


@pytest.fixture
def slow(project: Project, database: Database) -> Project:
    """A table t and a migration whose build can be held in any phase."""
    table(database)
    slow_function(database)
    project.migration("1_a", SLOW)
    return project


@pytest.fixture
def plain(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    return project


# perfctl is killed


@fault(19, "perfctl is killed while its build runs", does="adopts the build that went on and finished by itself")
@AT_EACH_PHASE
def test_a_build_that_finished_without_its_perfctl_is_adopted(slow: Project, database: Database, phase: str) -> None:
    before = catalogue(database)
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        kill(process)
        orphan = oid(database, "i")
    until_idle(database)
    assert (oid(database, "i"), flags(database, "i")) == (orphan, GOOD)
    ran = slow.apply()
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed"})
    assert (oid(database, "i"), slow.run("verify").code) == (orphan, 0)
    assert slow.rollback().statuses == {"public.i": "changed"}
    assert catalogue(database) == before


@fault(19, "perfctl is killed while its build runs", does="waits for the build that goes on, and adopts it")
@fault(20, "a clean-up meets a build that goes on without its client", does="waits for it, and never drops it")
@AT_EACH_PHASE
def test_a_build_that_goes_on_without_its_perfctl_is_waited_for(slow: Project, database: Database, phase: str) -> None:
    before = catalogue(database)
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        kill(process)
        orphan = oid(database, "i")
        until(lambda: not at_work(database) or phase == SCANNING)
        again = slow.start(*SEND, form="ndjson")
        heard = again.popen.stdout
        assert heard is not None
        assert "is building it" in heard.readline()
    ran = again.wait()
    assert ran.code == 0
    assert ran.events[-1]["items"][0]["status"] == "changed"
    assert "a build that was under way has finished" in ran.events[-1]["items"][0]["detail"]
    assert (oid(database, "i"), flags(database, "i")) == (orphan, GOOD)
    assert slow.rollback().code == 0
    assert catalogue(database) == before


@fault(19, "perfctl and its build are both killed", does="drops what is left and builds anew")
@AT_EACH_PHASE
def test_what_a_killed_perfctl_and_its_killed_build_left_is_built_anew(
    slow: Project, database: Database, phase: str
) -> None:
    before = catalogue(database)
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        kill(process)
        end(database, *builders(database))
        until(lambda: not phases(database))
        dead = oid(database, "i")
    assert flags(database, "i") not in (None, GOOD)
    assert slow.apply().code == 0
    assert flags(database, "i") == GOOD
    assert oid(database, "i") != dead
    assert slow.rollback().code == 0
    assert catalogue(database) == before


@fault(19, "perfctl and its build are both killed", does="takes off by rollback what they left")
@AT_EACH_PHASE
def test_what_a_killed_perfctl_and_its_killed_build_left_is_rolled_back(
    slow: Project, database: Database, phase: str
) -> None:
    before = catalogue(database)
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        kill(process)
        end(database, *builders(database))
        until(lambda: not phases(database))
    ran = slow.rollback()
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed"})
    assert catalogue(database) == before


@fault(19, "perfctl is killed between the drop of a leftover and the build", does="builds what is missing")
def test_a_perfctl_killed_between_a_drop_and_its_build_leaves_the_build_to_the_next(
    plain: Project, database: Database
) -> None:
    before = catalogue(database)
    broken_ready(database)
    with old_snapshot(database):
        # The snapshot holds a build before it is sent, and a drop never.
        process = plain.start("apply", "--yes", "--blocker-age", "0s")
        until(lambda: journal(database) == [("drop_leftover", "i", "done")])
        kill(process)
    assert names(database) == set()
    assert plain.apply().code == 0
    assert flags(database, "i") == GOOD
    assert plain.rollback().code == 0
    assert catalogue(database) == before


@fault(19, "perfctl is killed while its build runs", does="refuses to roll back a build that goes on, and names it")
@fault(20, "a rollback meets a build that goes on without its client", does="refuses, and takes it off when it is done")
def test_a_rollback_leaves_a_build_that_goes_on(plain: Project, database: Database) -> None:
    before = catalogue(database)
    with old_snapshot(database):
        process = plain.start(*SEND)
        until(lambda: phases(database) == [OLD_SNAPSHOTS])
        kill(process)
        (orphan,) = builders(database)
        ran = plain.rollback()
        assert ran.code == 4
        assert f"pid {orphan} is building it" in ran.stderr
        assert phases(database) == [OLD_SNAPSHOTS]
    until_idle(database)
    assert plain.rollback().code == 0
    assert catalogue(database) == before


@fault(
    19,
    "perfctl is killed, and client_connection_check_interval is set",
    does="has the server end the build with its client",
)
def test_a_build_dies_with_its_client_when_that_is_asked_for(plain: Project, database: Database) -> None:
    with writer(database):
        process = plain.start(*SEND, "--client-connection-check-interval", "1s")
        until(lambda: phases(database) == [BEFORE_BUILD])
        kill(process)
        # The writer is still there: nothing but the client's end can have ended the build.
        until(lambda: not sessions(database))
        assert flags(database, "i") == (False, False, True)
    assert plain.apply().code == 0
    assert flags(database, "i") == GOOD


@fault(20, "somebody else builds the index meanwhile", does="waits for it, and leaves it to whoever built it")
def test_a_foreign_build_of_the_same_index_is_waited_for_and_not_owned(plain: Project, database: Database) -> None:
    with old_snapshot(database) as snapshot, statement(database, "CREATE INDEX CONCURRENTLY i ON t (a)") as sent:
        until(lambda: phases(database) == [OLD_SNAPSHOTS])
        foreign, made = process_of(database, "psql"), oid(database, "i")
        process = plain.start(*SEND, form="ndjson")
        assert process.popen.stdout is not None
        assert f"pid {foreign} is building it" in process.popen.stdout.readline()
        snapshot.rollback()
        assert sent.exception(30) is None
    ran = process.wait()
    assert (ran.code, ran.events[-1]["items"][0]["status"]) == (0, "skipped")
    assert (oid(database, "i"), flags(database, "i")) == (made, GOOD)
    assert plain.rollback().code == 0
    assert oid(database, "i") == made


@fault(20, "a build that is waited for dies", does="clears away what it left and builds anew")
@pytest.mark.parametrize("phase", [BEFORE_BUILD, OLD_SNAPSHOTS], ids=["unready", "ready"])
def test_a_build_that_dies_while_it_is_waited_for_is_built_anew(plain: Project, database: Database, phase: str) -> None:
    with held_at(database, phase, lambda: plain.start(*SEND)) as process:
        kill(process)
        again = plain.start(*SEND, form="ndjson")
        assert again.popen.stdout is not None
        assert "is building it" in again.popen.stdout.readline()
        end(database, *builders(database))
    ran = again.wait()
    assert (ran.code, flags(database, "i")) == (0, GOOD)
    assert plain.rollback().code == 0
    assert names(database) == set()


# a rollback is killed


@pytest.fixture
def applied(plain: Project) -> Project:
    """The same, applied."""
    assert plain.apply().code == 0
    return plain


@fault(33, "perfctl is killed during a drop, and the drop dies", does="finishes the drop")
def test_a_drop_that_died_is_finished_by_the_next_rollback(applied: Project, database: Database) -> None:
    half_dropped_by_a_killed_rollback(applied, database)
    assert applied.run("verify").items["public.i"]["data"]["state"] == "half-dropped"
    ran = applied.rollback()
    assert (ran.code, ran.statuses, names(database)) == (0, {"public.i": "changed"}, set())
    assert applied.run("verify", "--absent").code == 0


@fault(33, "perfctl is killed during a drop, and the drop dies", does="builds anew what an apply wants again")
def test_a_drop_that_died_is_built_anew_by_apply(applied: Project, database: Database) -> None:
    half_dropped_by_a_killed_rollback(applied, database)
    ran = applied.apply()
    assert (ran.code, flags(database, "i")) == (0, GOOD)
    assert applied.run("verify").code == 0
    assert applied.rollback().code == 0
    assert names(database) == set()


def half_dropped_by_a_killed_rollback(project: Project, database: Database) -> None:
    with reader(database):
        process = project.start("rollback", "--yes")
        until_it_waits(database)
        kill(process)
        end(database, *builders(database))
        until(lambda: not builders(database))
    assert flags(database, "i") == (False, True, True)


@contextlib.contextmanager
def reader(database: Database) -> Iterator[None]:
    """An open transaction that has read t: a drop of its indexes waits for it."""
    with database.connect(autocommit=False, application_name="web") as connection:
        connection.execute("SELECT FROM t")
        yield
        connection.rollback()


@fault(33, "perfctl is killed during a drop, and the drop goes on", does="waits for it and has nothing left to do")
def test_a_drop_that_goes_on_is_waited_for_by_the_next_rollback(applied: Project, database: Database) -> None:
    with reader(database):
        kill_once_it_drops(applied.start("rollback", "--yes"), database)
        (orphan,) = builders(database)
        again = applied.start("rollback", "--yes", form="ndjson")
        assert again.popen.stdout is not None
        assert f"the table is locked by pid {orphan}" in again.popen.stdout.readline()
    ran = again.wait()
    assert (ran.code, names(database)) == (0, set())
    assert "gone already" in ran.events[-1]["items"][0]["detail"]
    assert applied.rollback().code == 0


@fault(33, "perfctl is killed during a drop, and the drop goes on", does="waits for it and builds anew on apply")
def test_what_a_drop_that_goes_on_takes_is_built_anew_by_apply(applied: Project, database: Database) -> None:
    with reader(database):
        kill_once_it_drops(applied.start("rollback", "--yes"), database)
        again = applied.start("apply", "--yes", form="ndjson")
        assert again.popen.stdout is not None
        assert "the table is locked by pid" in again.popen.stdout.readline()
    assert (again.wait().code, flags(database, "i")) == (0, GOOD)
    assert applied.rollback().code == 0
    assert names(database) == set()


def kill_once_it_drops(process: Process, database: Database) -> None:
    until_it_waits(database)
    kill(process)


# sessions are killed


@fault(19, "somebody ends the session that builds", does="drops what is left and says that the connection was lost")
@AT_EACH_PHASE
def test_a_build_whose_session_is_ended_leaves_nothing(slow: Project, database: Database, phase: str) -> None:
    before = catalogue(database)
    # A writer lets no drop through either.
    stays = phase in (BEFORE_BUILD, BEFORE_VALIDATION)
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        end(database, *builders(database))
        until(lambda: process.popen.poll() is not None or (stays and "DROP" in working_at(database)))
    ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "the connection was lost" in ran.report["error"]["message"].splitlines()[0]
    assert (catalogue(database), journal(database)) == (before, [("create_index", "i", "failed")])
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)


def working_at(database: Database) -> str:
    """What perfctl's sessions send now."""
    query = (
        "SELECT coalesce(string_agg(query, '; '), '') FROM pg_stat_activity"
        " WHERE pid = ANY(%s) AND datname = current_database()"
    )
    with database.connect() as connection:
        row = connection.execute(query, [builders(database)]).fetchone()
    assert row is not None
    return str(row[0])


@fault(19, "somebody ends the session that keeps the lock", does="comes back, takes the lock again, and finishes")
@AT_EACH_PHASE
def test_a_run_whose_watcher_is_ended_goes_on(slow: Project, database: Database, phase: str) -> None:
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        made, (before,) = oid(database, "i"), watchers(database)
        end(database, before)
        until(lambda: watchers(database) not in ([], [before]))
    ran = process.wait()
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed"})
    assert (oid(database, "i"), flags(database, "i")) == (made, GOOD)
    assert journal(database) == [("create_index", "i", "done")]


# the server crashes


@fault(23, "the server crashes during a build", does="drops what is left, and the next apply builds")
@AT_EACH_PHASE
def test_a_build_that_a_crash_cut_is_built_by_the_next_apply(slow: Project, database: Database, phase: str) -> None:
    before = catalogue(database)
    with contextlib.suppress(psycopg.OperationalError), held_at(database, phase, lambda: slow.start(*SEND)) as process:
        database.server.restart("immediate")
    ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "the connection was lost" in ran.report["error"]["message"].splitlines()[0]
    assert (catalogue(database), journal(database)) == (before, [("create_index", "i", "failed")])
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)
    assert slow.rollback().code == 0
    assert catalogue(database) == before


@fault(23, "perfctl and the server crash together during a build", does="clears away what is left and builds")
@AT_EACH_PHASE
def test_a_build_that_a_crash_of_all_cut_is_built_by_the_next_apply(
    slow: Project, database: Database, phase: str
) -> None:
    before = catalogue(database)
    with contextlib.suppress(psycopg.OperationalError), held_at(database, phase, lambda: slow.start(*SEND)) as process:
        kill(process)
        database.server.restart("immediate")
    assert flags(database, "i") not in (None, GOOD)
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)
    assert slow.rollback().code == 0
    assert catalogue(database) == before


@fault(23, "the server crashes during a drop", does="says that it is half dropped, and the next rollback finishes")
def test_a_drop_that_a_crash_cut_is_finished_by_the_next_rollback(applied: Project, database: Database) -> None:
    with contextlib.suppress(psycopg.OperationalError), reader(database):
        process = applied.start("rollback", "--yes")
        until_it_waits(database)
        database.server.restart("immediate")
    ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "half dropped" in ran.stderr
    assert flags(database, "i") == (False, True, True)
    assert applied.rollback().code == 0
    assert names(database) == set()


@fault(23, "one process of the server is killed and all sessions with it", does="goes on with the rest by --continue")
def test_a_run_goes_on_after_the_server_has_recovered(slow: Project, database: Database) -> None:
    table(database, "o")
    slow.migration("2_b", "CREATE INDEX CONCURRENTLY j ON o (a);")
    with (
        contextlib.suppress(psycopg.OperationalError),
        held_at(database, SCANNING, lambda: slow.start(*SEND, "--continue", "--jobs", "1")) as process,
    ):
        os.kill(builders(database)[0], signal.SIGKILL)
        until(lambda: flags_or_none(database, "j") == GOOD)
    ran = process.wait()
    assert (ran.code, ran.statuses) == (5, {"public.i": "failed", "public.j": "changed"})
    assert names(database) == {"j"}
    assert (slow.apply().code, names(database)) == (0, {"i", "j"})


def flags_or_none(database: Database, name: str) -> tuple[bool, bool, bool] | None:
    """As ``flags``; None too while the server recovers."""
    with contextlib.suppress(psycopg.OperationalError):
        return flags(database, name)
    return None
