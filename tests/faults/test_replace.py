"""An index of another definition gives way to the wanted one, and at no time is there none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.faults.declare import fault
from tests.fix_catalogue import catalogue, flags, indexes, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table, until_it_waits, writer

WHAT = "an index of that name has another definition"
DOES = "refuses, and with --replace builds anew beside it, swaps the names in one transaction and drops the old one"
GOOD = (True, True, True)
OLD = "i_perfctl_old"
NEW = "i_perfctl_new"


@pytest.fixture
def drifted(project: Project, database: Database) -> Project:
    """An index i on (b), and a migration that wants it on (a)."""
    table(database)
    send(database, "CREATE INDEX i ON t (b)", "COMMENT ON INDEX i IS 'kept'")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    return project


def columns(database: Database, name: str = "i") -> str | None:
    """What the index of that name is on; None without one."""
    found = [row[2] for row in indexes(database) if row[1] == name]
    return found[0].rpartition("btree ")[2] if found else None


@fault(37, WHAT, DOES)
def test_drift_is_refused_and_both_definitions_are_shown(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    ran = drifted.apply()
    assert ran.code == 4
    assert "USING btree (b)" in ran.stderr
    assert "USING btree (a)" in ran.stderr
    assert "--replace" in ran.stderr
    assert catalogue(database) == before


@fault(37, WHAT, DOES)
def test_a_replacement_leaves_the_wanted_one_alone_under_the_name(drifted: Project, database: Database) -> None:
    assert drifted.apply("--replace").code == 0
    assert (names(database), columns(database), flags(database, "i")) == ({"i"}, "(a)", GOOD)
    assert drifted.run("verify").code == 0
    assert drifted.apply("--replace").statuses == {"public.i": "skipped"}


@fault(37, WHAT, DOES)
def test_a_replacement_keeps_the_comment(drifted: Project, database: Database) -> None:
    drifted.apply("--replace")
    assert [row[9] for row in indexes(database)] == ["kept"]


@fault(37, WHAT, DOES)
def test_a_replacement_that_is_rolled_back_brings_the_old_one_back(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    assert drifted.apply("--replace").code == 0
    assert drifted.rollback().code == 0
    assert catalogue(database) == before


@fault(37, WHAT, DOES)
def test_a_plan_shows_each_step_of_a_replacement(drifted: Project) -> None:
    ran = drifted.run("plan", "--replace")
    planned = [item["data"]["action"] for item in ran.report["items"] if item["status"] == "planned"]
    assert planned == ["create_index", "swap_index", "drop_index", "comment"]


@contextmanager
def gaps(database: Database) -> Iterator[list[str]]:
    """Every moment at which no good index of the name, old or new, is there, as another session sees it."""
    found: list[str] = []
    stop = threading.Event()

    def look() -> None:
        query = "SELECT count(*) FILTER (WHERE indisvalid) FROM pg_index WHERE indexrelid = to_regclass('public.i')"
        with database.connect() as connection:
            while not stop.is_set():
                if connection.execute(query).fetchone() != (1,):
                    found.append("no valid index is called i")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


@fault(37, WHAT, DOES)
def test_at_every_moment_of_a_replacement_there_is_a_good_index(drifted: Project, database: Database) -> None:
    with gaps(database) as found:
        with old_snapshot(database):
            process = drifted.start("apply", "--yes", "--replace")
            until_it_waits(database)
        assert process.wait().code == 0
    assert found == []
    assert columns(database) == "(a)"


@fault(37, WHAT, DOES)
def test_a_unique_index_is_replaced_while_writers_go_on(project18: Project, database18: Database) -> None:
    table(database18)
    send(database18, "CREATE UNIQUE INDEX i ON t (a, b)")
    project18.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    assert project18.apply("--replace").code == 0
    with pytest.raises(psycopg.errors.UniqueViolation):
        send(database18, "INSERT INTO t VALUES (1, 100)")


@fault(37, WHAT, DOES)
def test_what_a_constraint_needs_is_not_replaced(project18: Project, database18: Database) -> None:
    table(database18)
    send(database18, "ALTER TABLE t ADD CONSTRAINT i UNIQUE (a, b)")
    project18.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    before = catalogue(database18)
    ran = project18.apply("--replace")
    assert (ran.code, catalogue(database18)) == (4, before)
    assert 'constraint "i" needs it' in ran.stderr


@fault(37, "a replacement is killed", "goes on from where it was, or puts the old one back")
def test_a_replacement_killed_while_it_builds_is_finished(drifted: Project, database: Database) -> None:
    with old_snapshot(database):
        process = drifted.start("apply", "--yes", "--replace")
        until_it_waits(database)
        process.popen.kill()
        process.popen.communicate()
    assert drifted.apply("--replace").code == 0
    assert (names(database), columns(database)) == ({"i"}, "(a)")
    assert drifted.rollback().code == 0
    assert columns(database) == "(b)"


@fault(37, "a replacement is killed", "goes on from where it was, or puts the old one back")
def test_a_replacement_killed_while_it_builds_is_rolled_back(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    with old_snapshot(database):
        process = drifted.start("apply", "--yes", "--replace")
        until_it_waits(database)
        process.popen.kill()
        process.popen.communicate()
    until(lambda: flags(database, NEW) == GOOD)
    assert drifted.rollback().code == 0
    assert catalogue(database) == before


@contextmanager
def killed_after_the_swap(drifted: Project, database: Database) -> Iterator[None]:
    """A replacement that was killed when the names had changed and the old one was not dropped yet."""
    with database.connect(autocommit=False) as reader:
        # The drop waits for whoever reads the table; the build and the renames do not.
        reader.execute("SELECT FROM t")
        process = drifted.start("apply", "--yes", "--replace")
        until(lambda: columns(database, OLD) == "(b)")
        until_it_waits(database)
        process.popen.kill()
        process.popen.communicate()
        send(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%'",
        )
        reader.rollback()
    yield


@fault(37, "a replacement is killed", "goes on from where it was, or puts the old one back")
@pytest.mark.parametrize("option", [[], ["--replace"]], ids=["plain", "replace"])
def test_a_replacement_killed_after_the_swap_is_finished(
    drifted: Project, database: Database, option: list[str]
) -> None:
    with killed_after_the_swap(drifted, database):
        assert columns(database) == "(a)"
        assert drifted.apply(*option).code == 0
    assert names(database) == {"i"}
    assert drifted.rollback().code == 0
    assert (names(database), columns(database)) == ({"i"}, "(b)")


@fault(37, "a replacement is killed", "goes on from where it was, or puts the old one back")
def test_a_replacement_killed_after_the_swap_is_rolled_back(drifted: Project, database: Database) -> None:
    with killed_after_the_swap(drifted, database):
        assert drifted.rollback().code == 0
    assert (names(database), columns(database), flags(database, "i")) == ({"i"}, "(b)", GOOD)


@fault(37, WHAT, DOES)
def test_a_replacement_that_a_writer_holds_up_changes_nothing(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    with writer(database):
        ran = drifted.apply("--replace", "--wait-budget", "300ms", "--blocker-age", "0s")
    assert (ran.code, catalogue(database)) == (6, before)
    assert journal(database) == []
