"""--offline builds plainly while nobody writes, and makes nobody wait who comes all the same."""

from __future__ import annotations

import time

import pytest

from tests.faults.declare import fault
from tests.fix_catalogue import catalogue, flags, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table, writer

GOOD = (True, True, True)
WHAT = "somebody writes where nobody should (--offline)"
DOES = "refuses before the first statement, and gives a build up that somebody comes to wait for"
#: an index whose build takes as long as the test wants: the function is slow only for one row
SLOW = (
    "CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
    " $$ BEGIN IF i = 1 THEN PERFORM pg_sleep(60); END IF; RETURN i; END $$"
)


@pytest.fixture
def two(project: Project, database: Database) -> Project:
    """Two tables and a migration with two indexes on each."""
    table(database)
    table(database, "other")
    project.migration(
        "1_a",
        "CREATE INDEX i ON t (a); CREATE INDEX k ON t (b);"
        " CREATE UNIQUE INDEX u ON other (a); CREATE INDEX o ON other (b);",
    )
    return project


@fault(13, WHAT, DOES)
def test_offline_builds_everything(two: Project, database: Database) -> None:
    before = catalogue(database)
    ran = two.apply("--offline", "--jobs", "2")
    assert (ran.code, names(database)) == (0, {"i", "k", "u", "o"})
    assert all("CONCURRENTLY" not in item["data"]["sql"] for item in ran.items.values())
    assert two.run("verify").code == 0
    assert two.rollback().code == 0
    assert catalogue(database) == before


@fault(13, WHAT, DOES)
def test_an_old_snapshot_does_not_hold_up_a_plain_build(two: Project, database: Database) -> None:
    with old_snapshot(database):
        assert two.apply("--offline").code == 0


@fault(13, WHAT, DOES)
def test_offline_is_refused_where_somebody_writes(two: Project, database: Database) -> None:
    before = catalogue(database)
    with writer(database) as blocker:
        ran = two.apply("--offline")
        assert f"pid {blocker.info.backend_pid}" in ran.stderr
    assert (ran.code, catalogue(database)) == (4, before)


@fault(13, WHAT, DOES)
def test_a_build_that_somebody_comes_to_wait_for_is_given_up(project: Project, database: Database) -> None:
    table(database)
    send(database, SLOW)
    project.migration("1_a", "CREATE INDEX i ON t (slow(a));")
    process = project.start("apply", "--yes", "--offline")
    until(lambda: building(database) == 1)
    took = waits_to_write(database)
    ran = process.wait()
    assert (ran.code, names(database)) == (4, set())
    assert "somebody came to write here" in ran.stderr
    assert "late writer" in ran.stderr
    # Without it the writer would wait for a minute.
    assert took < 45


def waits_to_write(database: Database) -> float:
    """Seconds that a client needed to write a row."""
    began = time.monotonic()
    with database.connect(application_name="late writer") as connection:
        connection.execute("INSERT INTO t VALUES (-1, -1)")
    return time.monotonic() - began


def building(database: Database) -> int:
    """How many indexes are being built."""
    query = "SELECT FROM pg_stat_progress_create_index WHERE datname = current_database()"
    with database.connect() as connection:
        return connection.execute(query).rowcount


@fault(
    17, "several builds on one table, one after the other", "builds them side by side where nobody writes (--offline)"
)
def test_several_plain_builds_run_on_one_table_at_once(project: Project, database: Database) -> None:
    table(database)
    send(database, SLOW)
    project.migration("1_a", "CREATE INDEX i ON t (slow(a)); CREATE INDEX k ON t (slow(a), b);")
    process = project.start("apply", "--yes", "--offline", "--jobs", "2")
    until(lambda: building(database) == 2)
    process.popen.terminate()
    ran = process.wait()
    assert (ran.code, names(database)) == (143, set())


def test_offline_and_concurrent_runs_do_not_mix(two: Project, database: Database) -> None:
    two.apply("--offline", "--only", "i")
    assert two.apply().statuses["public.i"] == "skipped"
    assert flags(database, "k") == GOOD
