"""What failed builds of anybody's leave behind: seen, told apart, and taken off by whose it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import psycopg
import pytest

from tests.faults.declare import fault
from tests.fix_catalogue import catalogue, flags, names
from tests.fix_perfctl import Project
from tests.fix_servers import Database
from tests.fix_sessions import (
    broken_ready,
    broken_unready,
    half_dropped,
    old_snapshot,
    send,
    table,
    until_it_waits,
    writer,
)

GOOD = (True, True, True)


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    return project


LEFT = "a build leaves an invalid index behind"


@fault(2, LEFT, "tells by its flags what it is, drops it concurrently and builds")
@pytest.mark.parametrize("leave", [broken_ready, broken_unready], ids=["ready", "unready"])
def test_anybodys_leftover_under_a_wanted_name_is_dropped_and_built(
    one: Project, database: Database, leave: Callable[[Database], None]
) -> None:
    leave(database)
    assert flags(database, "i") != GOOD
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD


@fault(
    2,
    "a leftover cannot be dropped while somebody uses the table",
    "leaves it to the next apply or rollback, and says so",
)
@pytest.mark.parametrize("then", ["apply", "rollback"])
def test_what_could_not_be_dropped_after_a_signal_is_dropped_by_the_next_run(
    one: Project, database: Database, then: str
) -> None:
    before = catalogue(database)
    with writer(database):
        process = one.start("apply", "--yes")
        until_it_waits(database)
        process.popen.send_signal(signal.SIGTERM)
        ran = process.wait()
        assert flags(database, "i") is not None
    assert ran.code == 143
    assert "leftover stays" in ran.stderr
    assert one.run(then, "--yes").code == 0
    if then == "rollback":
        assert catalogue(database) == before
        assert one.run("verify", "--absent").code == 0
    else:
        assert flags(database, "i") == GOOD
        assert one.rollback().code == 0
        assert catalogue(database) == before


@fault(29, "an invalid index is paid for by every write", "reports it with its size and the statement that ends it")
def test_verify_reports_every_broken_index(one: Project, database: Database) -> None:
    one.apply()
    broken_ready(database, "other ON t (b)")
    ran = one.run("verify")
    assert ran.code == 1
    item = ran.items["public.other"]
    assert item["status"] == "finding"
    assert "DROP INDEX CONCURRENTLY" in item["remedy"]


REINDEX = "REINDEX CONCURRENTLY leaves _ccnew behind, try by try"


@fault(30, REINDEX, "lists each of them, and touches none")
def test_leftovers_of_reindex_are_listed_and_left(one: Project, database: Database) -> None:
    one.apply()
    for _ in range(2):
        with old_snapshot(database):
            send_failing(database, "SET lock_timeout = '50ms'", "REINDEX INDEX CONCURRENTLY i")
    left = {"i_ccnew", "i_ccnew1"}
    ran = one.run("verify")
    assert {f"public.{name}" for name in left} <= ran.items.keys()
    assert "REINDEX CONCURRENTLY" in ran.items["public.i_ccnew"]["detail"]
    assert one.apply().code == 0
    assert names(database) == {"i", *left}


def send_failing(database: Database, *statements: str) -> None:
    """Send statements of which the last one does not get its lock."""
    with pytest.raises(psycopg.errors.LockNotAvailable):
        send(database, *statements)


@fault(31, "a REINDEX CONCURRENTLY is under way", "does not take its transient index for garbage")
def test_an_index_that_is_being_rebuilt_is_no_leftover(one: Project, database: Database) -> None:
    one.apply()
    with writer(database) as blocker, database.connect(application_name="reindex") as connection:
        thread = threading.Thread(target=connection.execute, args=(b"REINDEX INDEX CONCURRENTLY i",))
        thread.start()
        until_it_waits(database, "reindex")
        ran = one.run("verify")
        blocker.rollback()
        thread.join()
    assert ran.code == 0
    assert names(database) == {"i"}


@fault(32, "pg_repack leaves index_OID behind", "names it for what it is")
def test_a_leftover_of_pg_repack_is_named(one: Project, database: Database) -> None:
    one.apply()
    broken_ready(database, "index_12345 ON t (b)")
    assert "pg_repack" in one.run("verify").items["public.index_12345"]["detail"]


@fault(33, "a concurrent drop is interrupted", "finishes it, or builds the index where it is wanted again")
@pytest.mark.parametrize("then", ["apply", "rollback"])
def test_a_half_dropped_index_is_finished(one: Project, database: Database, then: str) -> None:
    one.apply()
    half_dropped(database)
    assert flags(database, "i") != GOOD
    assert one.run(then, "--yes").code == 0
    assert flags(database, "i") == (GOOD if then == "apply" else None)
