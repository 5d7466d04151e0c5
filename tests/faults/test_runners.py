"""Several who build at once, and those who want a run to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from perfctl.indexes.watcher import LOCK_KEY
from tests.faults.declare import fault
from tests.fix_builds import BEFORE_BUILD, BEFORE_VALIDATION, OLD_SNAPSHOTS, oid, phases
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import ROOT, Project, new_project, until
from tests.fix_phases import (
    PHASE_IDS,
    PHASES,
    SCANNING,
    SLOW,
    begun,
    builders,
    gate,
    held_at,
    process_of,
    sessions,
    slow_function,
    statement,
    watchers,
)
from tests.fix_replica import caught_up, replicated
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table, waits, writer

GOOD = (True, True, True)
#: However slowly the machine comes to it: what holds a build here is for the build itself to wait for.
SEND = ("apply", "--yes", "--blocker-age", "1h")
AT_EACH_PHASE = pytest.mark.parametrize("phase", PHASES, ids=PHASE_IDS)
SIGNALS = pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)


@pytest.fixture
def slow(project: Project, database: Database) -> Project:
    """A table t and a migration whose build can be held in any phase."""
    table(database)
    slow_function(database)
    project.migration("1_a", SLOW)
    return project


@pytest.fixture
def two(project: Project, database: Database) -> Project:
    """Tables t and o, and migrations that want an index on each."""
    table(database)
    table(database, "o")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.migration("2_b", "CREATE INDEX CONCURRENTLY j ON o (a);")
    return project


# two perfctl, and others that want the same lock


@fault(7, "a second perfctl waits for the lock while the first builds", does="polls for it, so that nobody deadlocks")
@fault(8, "the lock and the build are two sessions', and somebody waits", does="polls for it, so that nobody hangs")
@AT_EACH_PHASE
def test_a_second_perfctl_is_never_waited_for(slow: Project, database: Database, phase: str) -> None:
    with held_at(database, phase, lambda: slow.start(*SEND)) as first:
        second = slow.start(*SEND)
        until(lambda: len(watchers_to_be(database)) == 2)
        (builder,), (keeper,) = builders(database), watchers(database)
        assert builder != keeper
        # A waiter that blocks has a snapshot, which the build would wait for in turn.
        assert_not_in_its_own_way(database, count=1)
        for _ in range(20):
            assert not sessions(database, f"pid <> {builder} AND wait_event_type = 'Lock'")
    assert (first.wait().code, second.wait().code) == (0, 0)
    assert flags(database, "i") == GOOD
    assert [line for line in journal(database) if line[2] != "done"] == []


def watchers_to_be(database: Database) -> list[int]:
    """The sessions that have, or ask for, the database's lock."""
    return sessions(database, "application_name = 'perfctl/indexes apply'")


def blocking(database: Database, pid: int) -> list[int]:
    """Who keeps a session waiting."""
    with database.connect() as connection:
        row = connection.execute("SELECT pg_blocking_pids(%s)", [pid]).fetchone()
    assert row is not None
    return list(row[0])


@fault(7, "a second perfctl waits for the lock too long", does="gives up, changes nothing, and names who has it")
def test_a_second_perfctl_gives_up_in_time(slow: Project, database: Database) -> None:
    with held_at(database, BEFORE_BUILD, lambda: slow.start(*SEND)) as first:
        (keeper,) = watchers(database)
        ran = slow.apply()
        assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
        assert f"another perfctl is at work on this database: pid {keeper} (" in ran.stderr
        assert phases(database) == [BEFORE_BUILD]
    assert first.wait().code == 0


@fault(8, "another tool blocks in pg_advisory_lock on perfctl's key", does="gives up in its budget and names it")
def test_a_session_that_blocks_on_the_lock_is_named(two: Project, database: Database) -> None:
    with gate(database):
        slow_function(database)
        two.migration("1_a", SLOW)
        process = two.start(*SEND, "--wait-budget", "2s", "--jobs", "1")
        until(lambda: phases(database) == [SCANNING])
        with statement(database, f"SELECT pg_advisory_lock({LOCK_KEY[0]}, {LOCK_KEY[1]})", "deployer") as waiting:
            until(lambda: waits(database, "deployer"))
            pid = process_of(database, "deployer")
            send(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gate'")
            ran = process.wait()
        assert waiting.exception() is None
    assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
    assert f"pid {pid} (postgres, deployer, active" in ran.stderr
    assert names(database) == set()


# perfctl's own sessions


@fault(9, "a runner's own session keeps its own build waiting", does="has no other transaction open, ever")
@AT_EACH_PHASE
def test_perfctl_is_never_among_its_own_lockers(slow: Project, database: Database, phase: str) -> None:
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        assert_not_in_its_own_way(database, count=1)
    assert process.wait().code == 0


@fault(9, "a runner's own session keeps its own build waiting", does="builds side by side without waiting for itself")
@pytest.mark.parametrize("phase", [BEFORE_BUILD, OLD_SNAPSHOTS], ids=["before-build", "old-snapshots"])
def test_two_jobs_are_never_among_each_others_lockers(two: Project, database: Database, phase: str) -> None:
    with held_at(database, phase, lambda: two.start(*SEND, "--jobs", "2")) as process:
        # The writer holds the one on its table, the snapshot holds both.
        until(lambda: flags(database, "j") == GOOD or phases(database) == [OLD_SNAPSHOTS] * 2)
        assert_not_in_its_own_way(database, count=len(phases(database)))
    ran = process.wait()
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed", "public.j": "changed"})


@fault(
    9,
    "a job's build waits for the snapshot of another job's",
    does="waits as long as the other one works, whatever the budget and the list of whom to end",
)
def test_a_job_waits_for_another_one_without_a_limit(project18: Project, database18: Database) -> None:
    table(database18)
    table(database18, "o")
    slow_function(database18, works=True)
    project18.migration("1_a", SLOW)
    # The later ones find the other build with its snapshot taken.
    plain = [f"CREATE INDEX CONCURRENTLY j{n} ON o (a) WITH (fillfactor = {50 + n});" for n in range(10)]
    project18.migration("2_b", "\n".join(plain))
    bounds = ("--wait-budget", "500ms", "--kill-blockers", "application=*")
    with (
        gate(database18) as let_go,
        begun(project18.start(*SEND, "--jobs", "2", *bounds, form="ndjson")) as process,
    ):
        assert process.popen.stdout is not None
        for line in process.popen.stdout:
            event = json.loads(line)
            assert event["event"] != "failed"
            # Who may be ended is ended after five seconds.
            if event.get("phase") == OLD_SNAPSHOTS and event["elapsed_s"] > 6:
                break
        assert set(phases(database18)) == {SCANNING, OLD_SNAPSHOTS}
        let_go()
    ran = process.wait()
    assert ran.code == 0
    assert len(names(database18)) == 11


def assert_not_in_its_own_way(database: Database, count: int) -> None:
    building = builders(database)
    assert len(building) == count
    others = " AND ".join(f"pid <> {pid}" for pid in building)
    # A look at the catalogue has a snapshot too, for as long as it takes.
    until(lambda: not sessions(database, f"{others} AND (state <> 'idle' OR backend_xmin IS NOT NULL)"))
    until(lambda: not own_lockers(database))
    for _ in range(20):
        assert not sessions(database, "state LIKE 'idle in transaction%'")
        assert not own_lockers(database)


def own_lockers(database: Database) -> set[int]:
    """The sessions of perfctl's that keep one of its builds waiting."""
    return {pid for builder in builders(database) for pid in blocking(database, builder)} & set(sessions(database))


# builds of others on the same table


@fault(10, "somebody else builds on the same table", does="builds on other tables meanwhile, then on this one")
def test_a_table_with_a_foreign_build_is_left_for_later(two: Project, database: Database) -> None:
    with writer(database) as blocker, statement(database, "CREATE INDEX CONCURRENTLY k ON t (b)") as foreign:
        until(lambda: phases(database) == [BEFORE_BUILD])
        pid = process_of(database, "psql")
        process = two.start(*SEND, "--jobs", "1", form="ndjson")
        until(lambda: flags(database, "j") == GOOD)
        # The other one has the table, and perfctl does not even queue up behind it.
        assert (builders(database), oid(database, "i")) == ([], None)
        blocker.rollback()
        assert foreign.exception(30) is None
    ran = process.wait()
    assert ran.code == 0
    assert any(f"the table is locked by pid {pid}" in event["detail"] for event in ran.events[:-1])
    assert [flags(database, name) for name in "ijk"] == [GOOD, GOOD, GOOD]


@fault(10, "somebody else builds on the same table for too long", does="gives up on this table and names who builds")
def test_a_foreign_build_that_does_not_end_is_named(two: Project, database: Database) -> None:
    with writer(database) as blocker, statement(database, "CREATE INDEX CONCURRENTLY k ON t (b)") as foreign:
        until(lambda: phases(database) == [BEFORE_BUILD])
        ran = two.apply("--wait-budget", "300ms", "--continue", "--jobs", "1")
        assert (ran.code, ran.statuses) == (5, {"public.i": "failed", "public.j": "changed"})
        assert "CREATE INDEX CONCURRENTLY k ON t (b)" in ran.stderr
        assert (oid(database, "i"), phases(database)) == (None, [BEFORE_BUILD])
        blocker.rollback()
        assert foreign.exception(30) is None
    assert flags(database, "k") == GOOD


@fault(
    10, "a foreign build begins while perfctl's runs, and PostgreSQL ends perfctl's", does="builds once more after it"
)
def test_a_build_that_lost_a_deadlock_is_built_once_more(two: Project, database: Database) -> None:
    with writer(database) as blocker:
        process = two.start(*SEND, "--only", "public.i", form="ndjson")
        until(lambda: phases(database) == [BEFORE_BUILD])
        with statement(database, "CREATE INDEX CONCURRENTLY k ON t (b)") as foreign:
            until(lambda: waits(database, "psql"))
            blocker.rollback()
            assert foreign.exception(60) is None
    ran = process.wait()
    assert ran.code == 0
    assert [event["event"] for event in ran.events if event["event"] in ("start", "retry")] == [
        "start",
        "retry",
        "start",
    ]
    assert "deadlock" in next(event["detail"] for event in ran.events if event["event"] == "retry")
    assert [flags(database, name) for name in "ik"] == [GOOD, GOOD]
    assert names(database) == {"i", "k"}
    assert journal(database) == [("create_index", "i", "done")]


@fault(10, "PostgreSQL ends perfctl's build for a foreign one twice", does="gives up after the second, leaving nothing")
def test_a_build_that_lost_two_deadlocks_is_given_up(slow: Project, database: Database) -> None:
    with gate(database) as open_first:
        process = slow.start(*SEND, form="ndjson")
        until(lambda: phases(database) == [SCANNING])
        with gate(database, "second gate") as open_second:
            for name, go_on in (("k", open_first), ("l", open_second)):
                with statement(database, f"CREATE INDEX CONCURRENTLY {name} ON t (b)") as foreign:
                    until(lambda: waits(database, "psql") and SCANNING in phases(database))
                    go_on()
                    assert foreign.exception(60) is None
                until(lambda: process.popen.poll() is not None or phases(database) == [SCANNING])
    ran = process.wait()
    assert (ran.code, ran.events[-1]["error"]["class"]) == (4, "Refused")
    assert '"public.i": deadlock detected' in ran.stderr
    assert [event["event"] for event in ran.events if event["event"] == "start"] == ["start", "start"]
    assert names(database) == {"k", "l"}
    assert journal(database) == [("create_index", "i", "failed")]


# stopping a run


@fault(22, "SIGINT or SIGTERM during a build", does="cancels it, drops what is left, writes it down, ends in order")
@SIGNALS
@pytest.mark.parametrize("phase", [SCANNING, OLD_SNAPSHOTS], ids=["in-build", "old-snapshots"])
def test_a_signal_ends_a_build_and_leaves_nothing(
    slow: Project, database: Database, phase: str, signum: signal.Signals, code: int
) -> None:
    before = catalogue(database)
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        process.popen.send_signal(signum)
        ran = process.wait()
        assert (catalogue(database), sessions(database)) == (before, [])
    assert (ran.code, ran.report["exit_name"]) == (code, "stopped")
    assert 'stopped at "public.i": 0 done, 1 left' in ran.stderr
    assert "a second Ctrl-C leaves it" in ran.stderr
    assert "to go on: perfctl indexes apply" in ran.stderr
    assert journal(database, "name, state, detail") == [("i", "failed", "stopped")]
    assert outcome(database).startswith("stopped")
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)


@pytest.fixture
def hangup(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a process started here does when its terminal is closed: it ends, or by the parameter passes over it."""
    before = signal.signal(signal.SIGHUP, getattr(request, "param", signal.SIG_DFL))
    yield
    signal.signal(signal.SIGHUP, before)


@fault(
    22,
    "the terminal is closed, or the ssh session dropped, over a build",
    does="cancels the build, drops its leftover, writes the journal, exits 129",
)
@pytest.mark.usefixtures("hangup")
def test_a_closed_terminal_ends_a_build_and_leaves_nothing(slow: Project, database: Database) -> None:
    before = catalogue(database)
    with held_at(database, OLD_SNAPSHOTS, lambda: slow.start(*SEND)) as process:
        process.popen.send_signal(signal.SIGHUP)
        # The kernel tells, and the shell does.
        until(lambda: not phases(database))
        process.popen.send_signal(signal.SIGHUP)
        ran = process.wait()
        assert (catalogue(database), sessions(database)) == (before, [])
    assert (ran.code, ran.report["exit_name"]) == (129, "stopped")
    assert 'stopped at "public.i": 0 done, 1 left' in ran.stderr


@fault(
    22,
    "the terminal is closed, or the ssh session dropped, over a build",
    does="cancels the build, drops its leftover, writes the journal, exits 129",
)
@pytest.mark.usefixtures("hangup")
def test_a_terminal_that_is_gone_does_not_change_the_exit_code(slow: Project, database: Database) -> None:
    before = catalogue(database)
    ours, theirs = os.openpty()
    # The terminal becomes its own, so that the kernel tells it when that is closed.
    own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "perfctl", "indexes", *SEND, "--quiet", "--config", str(slow.config)]
    with subprocess.Popen(
        [sys.executable, "-c", own, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        start_new_session=True,
    ) as started:
        os.close(theirs)
        with old_snapshot(database):
            until(lambda: phases(database) == [OLD_SNAPSHOTS] or started.poll() is not None)
            os.close(ours)
            assert started.wait(30.0) == 129
        assert (catalogue(database), sessions(database)) == (before, [])
    assert journal(database, "name, state, detail") == [("i", "failed", "stopped")]


@fault(
    22,
    "the terminal is closed, or the ssh session dropped, over a build",
    does="under nohup goes on to the end",
)
@pytest.mark.parametrize("hangup", [signal.SIG_IGN], indirect=True, ids=["nohup"])
@pytest.mark.usefixtures("hangup")
def test_a_closed_terminal_is_passed_over_under_nohup(slow: Project, database: Database) -> None:
    with held_at(database, OLD_SNAPSHOTS, lambda: slow.start(*SEND)) as process:
        process.popen.send_signal(signal.SIGHUP)
    assert process.wait().code == 0
    assert flags(database, "i") == GOOD


@fault(
    22, "SIGINT or SIGTERM while a writer holds the build", does="says that its leftover stays, ends soon all the same"
)
@SIGNALS
@pytest.mark.parametrize("phase", [BEFORE_BUILD, BEFORE_VALIDATION], ids=["unready", "ready"])
def test_a_signal_ends_a_build_whose_leftover_a_writer_keeps(
    slow: Project, database: Database, phase: str, signum: signal.Signals, code: int
) -> None:
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        process.popen.send_signal(signum)
        ran = process.wait()
        assert flags(database, "i") not in (None, GOOD)
    assert ran.code == code
    assert "its invalid leftover stays" in ran.stderr
    assert "postgres, web, idle in transaction" in ran.stderr
    assert journal(database) == [("create_index", "i", "failed")]
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)


@fault(22, "SIGTERM while one of two jobs builds", does="ends both, and keeps what was done before")
def test_a_signal_ends_all_jobs(two: Project, database: Database) -> None:
    table(database, "p")
    two.migration("0_first", "CREATE INDEX CONCURRENTLY first ON p (a);")
    assert two.apply("--only", "public.first").code == 0
    with held_at_both(two, database) as process:
        process.popen.send_signal(signal.SIGTERM)
        ran = process.wait()
        assert names(database) == {"first"}
    assert ran.code == 143
    assert {line[1:] for line in journal(database)} == {("first", "done"), ("i", "failed"), ("j", "failed")}


@contextlib.contextmanager
def held_at_both(project: Project, database: Database) -> Iterator[Any]:
    with old_snapshot(database):
        process = project.start(*SEND, "--jobs", "2")
        until(lambda: phases(database) == [OLD_SNAPSHOTS] * 2)
        yield process


def outcome(database: Database) -> str:
    """What the journal says became of the first run."""
    with database.connect() as connection:
        row = connection.execute("SELECT outcome FROM perfctl.run ORDER BY id").fetchone()
    assert row is not None
    return str(row[0])


@fault(59, "a second Ctrl-C during the clean-up", does="leaves at once and says what remains")
@pytest.mark.parametrize("phase", [BEFORE_BUILD, BEFORE_VALIDATION], ids=["unready", "ready"])
@SIGNALS
def test_a_second_signal_leaves_at_once_and_says_what_remains(
    slow: Project, database: Database, phase: str, signum: signal.Signals, code: int
) -> None:
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        process.popen.send_signal(signum)
        until(lambda: dropping(database))
        process.popen.send_signal(signum)
        ran = process.wait()
        # The writer is still there.
        assert flags(database, "i") not in (None, GOOD)
    assert ran.code == code
    assert '"public.i": an invalid index stays' in ran.stderr
    assert "to go on: perfctl indexes apply" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)


@fault(59, "Ctrl-C twice at once during a build", does="has the server cancel it, leaves, and says what remains")
@AT_EACH_PHASE
def test_two_signals_at_once_leave_no_build_behind(slow: Project, database: Database, phase: str) -> None:
    with held_at(database, phase, lambda: slow.start(*SEND)) as process:
        process.popen.send_signal(signal.SIGINT)
        process.popen.send_signal(signal.SIGTERM)
        ran = process.wait()
        # Nothing but a drop may still be at work: the holders are all there.
        until(lambda: phases(database) == [])
    assert ran.code in (130, 143)
    assert "public.i" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (slow.apply().code, flags(database, "i")) == (0, GOOD)


def dropping(database: Database) -> bool:
    """Whether a perfctl drops something and waits."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%' AND datname = current_database()"
        " AND state = 'active' AND query LIKE 'DROP INDEX%' AND wait_event_type = 'Lock'"
    )
    with database.connect() as connection:
        return connection.execute(query).rowcount > 0


# a clean-up that fails


@pytest.fixture
def duplicates(project: Project, database: Database) -> Project:
    """A table with one value twice, and a migration whose index is unique."""
    table(database)
    send(database, "INSERT INTO t VALUES (42, 0)")
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    return project


NO_DROPS = (
    "CREATE FUNCTION no_drops() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no drops here'; END $$",
    "CREATE EVENT TRIGGER no_drops ON ddl_command_start WHEN TAG IN ('DROP INDEX') EXECUTE FUNCTION no_drops()",
)


@fault(60, "a build fails, and so does its clean-up", does="says the first error first, then what remains and why")
def test_a_clean_up_that_fails_does_not_hide_why_the_build_failed(duplicates: Project, database: Database) -> None:
    send(database, *NO_DROPS)
    ran = duplicates.apply()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    first, *rest = ran.report["error"]["message"].splitlines()
    assert "could not create unique index" in first
    assert any("its invalid leftover stays (no drops here) until the next run" in line for line in rest)
    assert "nothing was changed" not in ran.stderr
    assert flags(database, "i") == (False, False, True)
    ((detail,),) = journal(database, "detail")
    assert "could not create unique index" in detail
    assert "leftover stays" in detail
    send(database, "DROP EVENT TRIGGER no_drops", "DELETE FROM t WHERE a = 42 AND b = 0")
    assert (duplicates.apply().code, flags(database, "i")) == (0, GOOD)


@fault(60, "a build fails, and the session is ended during its clean-up", does="says the first error first")
def test_a_session_that_is_ended_during_the_clean_up_does_not_hide_why(duplicates: Project, database: Database) -> None:
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        process = duplicates.start(*SEND)
        until(lambda: dropping(database))
        (dropper,) = builders(database)
        send(database, f"SELECT pg_terminate_backend({dropper})")
        ran = process.wait()
        reader.rollback()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    first, *rest = ran.report["error"]["message"].splitlines()
    assert "could not create unique index" in first
    assert any("its invalid leftover stays" in line for line in rest)
    assert flags(database, "i") not in (None, GOOD)


@fault(60, "a build fails, and a reader keeps the clean-up waiting", does="gives up in its budget, names the reader")
def test_a_clean_up_that_waits_too_long_names_who_it_waits_for(duplicates: Project, database: Database) -> None:
    with database.connect(autocommit=False, application_name="reporter") as reader:
        reader.execute("SELECT FROM t")
        ran = duplicates.apply("--wait-budget", "300ms", "--blocker-age", "1h")
        reader.rollback()
    assert ran.code == 5
    first, *rest = ran.report["error"]["message"].splitlines()
    assert "could not create unique index" in first
    assert any("its invalid leftover stays" in line and "reporter" in line for line in rest)
    send(database, "DELETE FROM t WHERE a = 42 AND b = 0")
    assert (duplicates.apply().code, flags(database, "i")) == (0, GOOD)


# a standby


@fault(24, "the target is a standby", does="refuses before anything is touched, and asks for the primary")
@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_a_standby_is_refused(tmp_path_factory: pytest.TempPathFactory, command: str) -> None:
    with replicated(18) as (primary, standby):
        table(Database(primary, "postgres"))
        until(lambda: caught_up(primary, standby))
        project = new_project(tmp_path_factory.mktemp("standby"), Database(standby, "postgres"))
        project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
        ran = project.run(command, "--yes")
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert 'database "postgres" is on a standby' in ran.stderr
    assert "point the target at the primary" in ran.report["error"]["hint"]
