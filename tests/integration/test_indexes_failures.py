"""Runs that do not come to their end: what is left, what the journal says, and how the next run goes on."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from perfctl.cli.options import Options
from perfctl.cli.session import Session
from perfctl.errors import Busy, exit_code_of
from perfctl.indexes import watcher
from perfctl.indexes.running import Limits
from perfctl.indexes.watcher import LOCK_KEY
from perfctl.stop import Stop
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import at_work, old_snapshot, send, table, until_it_waits, writer

GOOD = (True, True, True)
THREE = (
    "CREATE INDEX CONCURRENTLY i ON t (b);\nCREATE UNIQUE INDEX CONCURRENTLY u ON t (a);\n"
    "CREATE INDEX CONCURRENTLY k ON t (a, b);\n"
)
ONE = "CREATE INDEX CONCURRENTLY i ON t (a);"


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", ONE)
    return project


@pytest.fixture
def duplicates(project: Project, database: Database) -> Project:
    """A table with one value twice, and a migration whose second index is unique."""
    table(database)
    send(database, "INSERT INTO t VALUES (42, 0)")
    project.migration("1_a", THREE)
    return project


def states(database: Database) -> list[tuple[Any, ...]]:
    return journal(database, "name, kind, state")


# a build that fails


def test_duplicates_stop_the_run_and_the_key_is_named(duplicates: Project) -> None:
    ran = duplicates.apply()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "could not create unique index" in ran.stderr
    assert "(a)=(42)" in ran.items["public.u"]["detail"]


def test_duplicates_are_named_on_stderr_too(duplicates: Project) -> None:
    assert "(a)=(42)" in duplicates.text("apply", "--yes", "--quiet").stderr


def test_what_was_done_before_a_failure_stays_and_nothing_broken_does(duplicates: Project, database: Database) -> None:
    ran = duplicates.apply()
    assert ran.statuses == {"public.i": "changed", "public.u": "failed", "public.k": "skipped"}
    assert (names(database), flags(database, "i")) == ({"i"}, GOOD)


def test_the_journal_says_what_failed(duplicates: Project, database: Database) -> None:
    duplicates.apply()
    assert states(database)[:2] == [("i", "create_index", "done"), ("u", "create_index", "failed")]
    assert "(42)" in journal(database, "detail")[1][0]


def test_a_second_apply_goes_on_where_the_first_stopped(duplicates: Project, database: Database) -> None:
    duplicates.apply()
    send(database, "DELETE FROM t WHERE a = 42 AND b = 0")
    ran = duplicates.apply()
    assert (ran.code, ran.statuses) == (0, {"public.i": "skipped", "public.u": "changed", "public.k": "changed"})
    assert duplicates.run("verify").code == 0


def test_a_failed_run_is_rolled_back_to_where_it_began(duplicates: Project, database: Database) -> None:
    before = catalogue(database)
    duplicates.apply()
    assert duplicates.rollback().code == 0
    assert catalogue(database) == before


def test_an_expression_that_fails_on_a_row_leaves_nothing(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t ((100 / (a - 5)));")
    ran = project.apply()
    assert ran.code == 4
    assert "division by zero; nothing was changed" in ran.stderr
    assert names(database) == set()


# waiting


def test_a_budget_that_runs_out_leaves_nothing_and_is_busy(one: Project, database: Database) -> None:
    before = catalogue(database)
    with old_snapshot(database) as blocker:
        ran = one.apply("--wait-budget", "200ms")
        assert catalogue(database) == before
        assert f"pid {blocker.info.backend_pid}" in ran.stderr
    assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
    assert "--wait-budget" in ran.report["error"]["hint"]


def test_a_budget_that_runs_out_later_keeps_what_is_done(project18: Project, database18: Database) -> None:
    table(database18)
    table(database18, "other")
    project18.migration("1_a", f"CREATE INDEX CONCURRENTLY first ON other (a); {ONE}")
    with writer(database18):
        ran = project18.apply("--wait-budget", "200ms")
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "first" in names(database18)


def test_a_budget_that_runs_out_before_a_writer_ends_leaves_nothing_unsaid(
    project18: Project, database18: Database
) -> None:
    table(database18)
    project18.migration("1_a", ONE)
    with writer(database18):
        ran = project18.apply("--wait-budget", "200ms")
    if flags(database18, "i") is None:
        assert ran.code == 6
    else:
        # The leftover cannot be dropped either while the writer is there: something was changed.
        assert ran.code == 5
        assert "leftover" in ran.stderr
        assert "nothing was changed" not in ran.stderr


def test_a_drop_whose_budget_runs_out_does_not_say_that_nothing_was_changed(one: Project, database: Database) -> None:
    one.apply()
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        ran = one.rollback("--wait-budget", "200ms")
        reader.rollback()
    assert flags(database, "i") != GOOD
    assert ran.code == 5
    assert "nothing was changed" not in ran.stderr


def test_a_drop_whose_budget_ran_out_is_finished_by_the_next_rollback(one: Project, database: Database) -> None:
    one.apply()
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        one.rollback("--wait-budget", "200ms")
        reader.rollback()
    assert one.run("verify").items["public.i"]["data"]["state"] == "half-dropped"
    assert one.rollback().code == 0
    assert names(database) == set()


def test_a_run_waits_out_a_writer(one: Project, database: Database) -> None:
    with writer(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
    assert process.wait().code == 0
    assert flags(database, "i") == GOOD


# signals

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_signal_ends_a_blocked_build_and_leaves_nothing(
    one: Project, database: Database, signum: signal.Signals, code: int
) -> None:
    before = catalogue(database)
    with old_snapshot(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        process.popen.send_signal(signum)
        ran = process.wait()
        assert catalogue(database) == before
    assert (ran.code, ran.report["exit_name"]) == (code, "stopped")
    assert states(database)[0] == ("i", "create_index", "failed")
    assert 'stopped at "public.i": 0 done, 1 left' in ran.stderr


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_signal_ends_a_run_that_a_writer_blocks(
    project18: Project, database18: Database, signum: signal.Signals, code: int
) -> None:
    table(database18)
    project18.migration("1_a", ONE)
    with writer(database18):
        process = project18.start("apply", "--yes")
        until_it_waits(database18)
        process.popen.send_signal(signum)
        # It must not wait for the writer once more to clean up: a supervisor kills what does not end soon.
        ran = process.wait(10.0)
    assert ran.code == code
    assert flags(database18, "i") is None or "leftover" in ran.stderr
    assert states(database18)[0] == ("i", "create_index", "failed")
    assert project18.apply().code == 0
    assert flags(database18, "i") == GOOD


def test_a_second_signal_ends_the_run_at_once(one: Project, database: Database) -> None:
    with writer(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        process.popen.send_signal(signal.SIGINT)
        until(lambda: "DROP INDEX" in busy_with(database) or process.popen.poll() is not None)
        process.popen.send_signal(signal.SIGINT)
        ran = process.wait(20.0)
    assert ran.code == 130
    assert "Traceback" not in ran.stderr
    assert one.apply().code == 0


def busy_with(database: Database) -> str:
    """The statement that a perfctl waits with now."""
    query = (
        "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%'"
        " AND datname = current_database() AND state = 'active'"
    )
    with database.connect() as connection:
        return " ".join(text for (text,) in connection.execute(query))


def test_a_signal_during_a_drop_leaves_it_to_be_finished(one: Project, database: Database) -> None:
    one.apply()
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        process = one.start("rollback", "--yes")
        until_it_waits(database)
        process.popen.send_signal(signal.SIGTERM)
        ran = process.wait()
        reader.rollback()
    assert ran.code == 143
    assert one.rollback().code == 0
    assert names(database) == set()


# sessions and processes that die


def test_a_killed_backend_stops_the_run_and_the_next_apply_builds(one: Project, database: Database) -> None:
    with old_snapshot(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        send(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'perfctl/%' AND wait_event_type = 'Lock'",
        )
        ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "the connection was lost" in ran.stderr
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD


def test_a_run_whose_every_session_is_killed_ends_in_order(one: Project, database: Database) -> None:
    with old_snapshot(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        send(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%'",
        )
        ran = process.wait()
    assert ran.code == 5
    assert "Traceback" not in ran.stderr
    assert one.apply().code == 0


def kill(process: Any) -> None:
    """End a perfctl so that it can do nothing more."""
    process.popen.kill()
    process.popen.communicate()


def test_a_killed_perfctl_leaves_a_trace_and_the_next_apply_builds(one: Project, database: Database) -> None:
    with old_snapshot(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        kill(process)
    assert states(database) == [("i", "create_index", "started")]
    assert one.apply().code == 0
    assert (flags(database, "i"), one.run("verify").code) == (GOOD, 0)


def test_a_build_that_outlives_a_killed_perfctl_ends_by_itself_or_is_waited_for(
    one: Project, database: Database
) -> None:
    with old_snapshot(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        kill(process)
        again = one.start("apply", "--yes")
        until(lambda: at_work(database))
    assert again.wait().code == 0
    assert flags(database, "i") == GOOD
    assert one.rollback().code == 0
    assert names(database) == set()


def test_what_a_killed_perfctl_had_begun_is_taken_off_by_rollback(one: Project, database: Database) -> None:
    before = catalogue(database)
    with old_snapshot(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        kill(process)
    until(lambda: not builds(database))
    one.rollback()
    assert catalogue(database) == before


def builds(database: Database) -> bool:
    """Whether anything is being built."""
    with database.connect() as connection:
        query = "SELECT FROM pg_stat_progress_create_index WHERE datname = current_database()"
        return connection.execute(query).rowcount > 0


def test_a_crash_of_the_server_leaves_what_the_next_apply_mends(project18: Project, database18: Database) -> None:
    table(database18)
    project18.migration("1_a", ONE)
    with database18.connect(autocommit=False) as blocker:
        blocker.execute("INSERT INTO t VALUES (-1, -1)")
        process = project18.start("apply", "--yes")
        until_it_waits(database18)
        os.kill(database18.server.pid, signal.SIGQUIT)
        ran = process.wait()
        database18.server.start()
        blocker.close()
    assert ran.code == 5
    assert "Traceback" not in ran.stderr
    assert project18.apply().code == 0
    assert flags(database18, "i") == GOOD


# two at once


def test_a_second_runner_is_busy_and_names_the_first(one: Project, database: Database) -> None:
    pg = Session("indexes apply", Options(config=one.config)).postgres(bounded=False)
    with database.connect(application_name="perfctl/first") as first:
        first.execute("SELECT pg_advisory_lock(%s, %s)", LOCK_KEY)
        with (
            pytest.raises(Busy) as caught,
            watcher.Watcher(pg, lambda: pg, Limits(runner_wait_s=0.0), Stop()),
        ):
            pytest.fail("two runners at once")
        pg.close()
        assert f"pid {first.info.backend_pid} (postgres, perfctl/first" in caught.value.message
    assert exit_code_of(caught.value) == 6
    assert journal(database) == []


def test_two_runners_one_after_the_other_both_end_well(one: Project, database: Database) -> None:
    with old_snapshot(database):
        first = one.start("apply", "--yes")
        until_it_waits(database)
        second = one.start("apply", "--yes")
        until(lambda: second_waits(database))
    assert (first.wait().code, second.wait().code) == (0, 0)
    assert flags(database, "i") == GOOD


def second_waits(database: Database) -> bool:
    """Whether two perfctl have come to the database."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name = 'perfctl/indexes apply' AND datname = current_database()"
    )
    with database.connect() as connection:
        return connection.execute(query).rowcount > 1


def test_perfctl_is_never_what_its_own_build_waits_for(one: Project, database: Database) -> None:
    with writer(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        with database.connect() as connection:
            held = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%%'"
                " AND datname = current_database() AND backend_xmin IS NOT NULL AND wait_event_type <> 'Lock'"
            ).fetchone()
    assert held == (0,)
    assert process.wait().code == 0
