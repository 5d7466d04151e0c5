"""Every state that the catalogue can show, made for real: what plan, apply and verify make of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from tests.fix_catalogue import catalogue, flags, indexes, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import (
    at_work,
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
I = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);"  # noqa: E741


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", I)
    return project


def state(project: Project, name: str = "public.i") -> str:
    """The state that verify sees."""
    found: str = project.run("verify").items[name]["data"]["state"]
    return found


def test_absent(one: Project) -> None:
    assert state(one) == "absent"
    assert one.run("verify").code == 1


def test_same_however_it_is_written(one: Project, database: Database) -> None:
    send(database, 'create index "i" on public.t using BTREE ((("a"))  asc nulls last)')
    assert state(one) == "same"
    assert one.run("verify").code == 0
    assert one.apply().statuses == {"public.i": "skipped"}


@pytest.mark.parametrize(
    "there",
    [
        "CREATE INDEX i ON t (b)",
        "CREATE INDEX i ON t (a DESC)",
        "CREATE UNIQUE INDEX i ON t (a)",
        "CREATE INDEX i ON t (a) WHERE a > 1",
        "CREATE INDEX i ON t USING hash (a)",
        "CREATE INDEX i ON t (a) WITH (fillfactor = 50)",
        "CREATE INDEX i ON t (a) INCLUDE (b)",
    ],
)
def test_different_is_refused_and_nothing_is_changed(one: Project, database: Database, there: str) -> None:
    send(database, there)
    one.migration("2_b", "CREATE INDEX CONCURRENTLY j ON t (b);")
    before = catalogue(database)
    assert state(one) == "different"
    ran = one.apply()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert "1_a.sql:1:1: public.i: an index of that name is there with another definition" in ran.stderr
    assert catalogue(database) == before
    assert journal(database) == []


@pytest.mark.parametrize(
    ("break_it", "left", "seen"),
    [
        (broken_unready, (False, False, True), "invalid-unready"),
        (broken_ready, (False, True, True), "invalid-ready"),
    ],
)
def test_a_broken_leftover_is_found_and_built_anew(
    one: Project, database: Database, break_it: Callable[[Database], None], left: tuple[bool, ...], seen: str
) -> None:
    break_it(database)
    assert flags(database, "i") == left
    assert state(one) == seen
    assert one.run("verify").code == 1
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD
    assert one.run("verify").code == 0


def test_a_leftover_is_dropped_before_it_is_built_anew(one: Project, database: Database) -> None:
    broken_ready(database)
    actions = [item["data"]["action"] for item in one.run("plan").report["items"]]
    assert actions == ["drop_leftover", "create_index"]


def test_a_leftover_of_another_definition_makes_way_too(one: Project, database: Database) -> None:
    broken_ready(database, "i ON t (b)")
    assert one.apply().code == 0
    assert one.run("verify").code == 0


def test_an_index_whose_drop_was_interrupted_is_built_anew(one: Project, database: Database) -> None:
    one.apply()
    half_dropped(database)
    assert flags(database, "i") == (False, True, True)
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD


def test_an_index_whose_drop_was_interrupted_is_taken_off_by_rollback(one: Project, database: Database) -> None:
    one.apply()
    half_dropped(database)
    assert one.rollback().code == 0
    assert names(database) == set()


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ("CREATE TABLE i (x int)", "the name belongs to a table"),
        ("CREATE VIEW i AS SELECT 1", "the name belongs to a view"),
        ("CREATE SEQUENCE i", "the name belongs to a sequence"),
        ("CREATE TYPE i AS (x int)", "the name belongs to a type"),
        ("CREATE TABLE u (a int); CREATE INDEX i ON u (a)", "the name belongs to an index of public.u"),
    ],
)
def test_a_name_that_is_taken_is_refused(one: Project, database: Database, taken: str, words: str) -> None:
    send(database, taken)
    before = catalogue(database)
    ran = one.apply()
    assert ran.code == 4
    assert words in ran.stderr
    assert catalogue(database) == before


def test_covered_by_another_name_is_left_out(one: Project, database: Database) -> None:
    send(database, "CREATE INDEX other ON t (a)")
    assert state(one) == "covered"
    assert one.apply().items["public.i"]["detail"] == 'covered: "public.other" has the same definition'
    assert names(database) == {"other"}
    assert one.run("verify").code == 0


def test_a_constraints_index_of_the_same_definition_covers(project: Project, database: Database) -> None:
    table(database)
    send(database, "ALTER TABLE t ADD CONSTRAINT t_a_key UNIQUE (a)")
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    assert project.apply().statuses == {"public.i": "skipped"}


@pytest.mark.parametrize("name", ["i_ccnew", "i_ccold", "somebodys"])
def test_anybodys_leftover_is_a_finding_and_is_left_alone(one: Project, database: Database, name: str) -> None:
    one.apply()
    broken_ready(database, f"{name} ON t (b)")
    ran = one.run("verify")
    assert (ran.code, ran.statuses) == (1, {"public.i": "ok", f"public.{name}": "finding"})
    assert one.apply().report["counts"] == {"skipped": 1}
    assert flags(database, name) == (False, True, True)


def test_a_failed_reindex_is_found(one: Project, database: Database) -> None:
    one.apply()
    with old_snapshot(database), pytest.raises(psycopg.errors.LockNotAvailable):
        send(database, "SET lock_timeout = '50ms'", "REINDEX INDEX CONCURRENTLY i")
    found = {name for name, status in one.run("verify").statuses.items() if status == "finding"}
    assert found == {"public.i_ccnew"}


def test_verify_of_all_schemas_in_scope_finds_a_leftover_on_another_table(one: Project, database: Database) -> None:
    send(database, "CREATE SCHEMA x", "CREATE TABLE x.u (a int)", "INSERT INTO x.u VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        send(database, "CREATE UNIQUE INDEX CONCURRENTLY broken ON x.u (a)")
    one.apply()
    assert one.run("verify").code == 0
    one.configure(
        "version: 1\ntargets:\n  test:\n    database: {dsn: '{dsn}', schemas: [public, x]}\n"
        "indexes: {migrations: migrations}\n"
    )
    assert one.run("verify").statuses["x.broken"] == "finding"


# a build of another session


@pytest.fixture
def other_build(database: Database) -> Callable[[str], threading.Thread]:
    """Begins a build of i in another session, which waits for whoever has the table locked."""

    def begin(definition: str = "i ON t (a)") -> threading.Thread:
        def build() -> None:
            with database.connect(application_name="somebody") as connection:
                connection.execute(f"CREATE INDEX CONCURRENTLY {definition}".encode())

        thread = threading.Thread(target=build)
        thread.start()
        until_it_waits(database, "somebody")
        return thread

    return begin


def test_a_build_of_another_session_is_seen(
    one: Project, database: Database, other_build: Callable[[], threading.Thread]
) -> None:
    with writer(database):
        thread = other_build()
        assert state(one) == "building"
        detail = one.run("plan").items["public.i"]["detail"]
    thread.join()
    assert "being built by pid" in detail
    assert "somebody" in detail


def test_apply_waits_for_another_sessions_build_and_does_not_own_it(
    one: Project, database: Database, other_build: Callable[[], threading.Thread]
) -> None:
    with writer(database):
        thread = other_build()
        process = one.start("apply", "--yes")
        until(lambda: at_work(database))
    ran = process.wait()
    thread.join()
    assert ran.code == 0
    assert flags(database, "i") == GOOD
    assert ran.items["public.i"]["status"] == "skipped"
    assert one.rollback().report["items"] == []
    assert names(database) == {"i"}


def test_a_build_of_another_definition_is_not_adopted(
    one: Project, database: Database, other_build: Callable[[str], threading.Thread]
) -> None:
    with writer(database):
        thread = other_build("i ON t (b)")
        process = one.start("apply", "--yes")
        until(lambda: at_work(database))
    ran = process.wait()
    thread.join()
    assert ran.code in (4, 5)
    assert [row[2] for row in indexes(database)] == ["CREATE INDEX i ON public.t USING btree (b)"]


# changed since


def test_what_was_redefined_since_is_refused_and_stays(one: Project, database: Database) -> None:
    one.apply()
    send(database, "DROP INDEX i", "CREATE INDEX i ON t (b)")
    ran = one.rollback()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert "changed since perfctl made it" in ran.stderr
    assert names(database) == {"i"}


def test_what_was_redefined_since_goes_when_it_is_named(one: Project, database: Database) -> None:
    one.apply()
    send(database, "DROP INDEX i", "CREATE INDEX i ON t (b)")
    assert one.rollback("--only", "public.i").code == 0
    assert names(database) == set()


def test_a_reindexed_index_is_still_perfctls(one: Project, database: Database) -> None:
    one.apply()
    send(database, "REINDEX INDEX i", "REINDEX INDEX CONCURRENTLY i")
    assert one.rollback().code == 0
    assert names(database) == set()


def test_what_was_renamed_since_is_refused(one: Project, database: Database) -> None:
    one.apply()
    send(database, "ALTER INDEX i RENAME TO k")
    ran = one.rollback()
    assert ran.code == 4
    assert 'it is called "public.k" now' in ran.stderr
    assert names(database) == {"k"}


def test_what_carries_a_constraint_now_is_refused(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    project.apply()
    send(database, "ALTER TABLE t ADD CONSTRAINT i UNIQUE USING INDEX i")
    assert project.rollback().code == 4


def test_one_refusal_keeps_the_whole_rollback_back(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY j ON t (b);")
    project.apply()
    send(database, "ALTER INDEX i RENAME TO k")
    project.rollback()
    assert names(database) == {"j", "k"}


def test_an_index_whose_table_is_gone_is_gone_already(one: Project, database: Database) -> None:
    one.apply()
    send(database, "DROP TABLE t")
    ran = one.rollback()
    assert (ran.code, ran.items["public.i"]["detail"]) == (0, "gone already")


# amcheck


def test_amcheck_reads_every_index(one: Project, database: Database) -> None:
    one.apply()
    ran = one.run("verify", "--amcheck")
    with database.connect() as connection:
        if not connection.execute("SELECT FROM pg_available_extensions WHERE name = 'amcheck'").rowcount:
            assert ran.items["amcheck"]["status"] == "unknown"
            return
    assert (ran.code, ran.items["amcheck"]["detail"]) == (1, "not installed here")
    send(database, "CREATE EXTENSION amcheck")
    checked = one.run("verify", "--amcheck")
    assert (checked.code, checked.items["public.i"]["data"]["amcheck"]) == (0, "ok")


def test_amcheck_finds_a_row_without_an_entry(project18: Project, database18: Database) -> None:
    table(database18)
    send(database18, "CREATE EXTENSION amcheck")
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project18.apply()
    # While it is not ready, rows come without their entries.
    lie = "UPDATE pg_index SET indisready = %s WHERE indexrelid = 'i'::regclass"
    with database18.connect() as connection:
        connection.execute(lie, [False])
        connection.execute("INSERT INTO t VALUES (1000, 1)")
        connection.execute(lie, [True])
    ran = project18.run("verify", "--amcheck")
    assert (ran.code, ran.statuses["public.i"]) == (1, "finding")
    assert "amcheck: heap tuple" in ran.items["public.i"]["detail"]
    assert ran.items["public.i"]["remedy"] == 'REINDEX INDEX CONCURRENTLY "public"."i"'


def test_an_index_that_new_plans_cannot_use_yet_is_a_finding(project: Project, database: Database) -> None:
    send(database, "CREATE TABLE t (a int, b int) WITH (fillfactor = 50)", "INSERT INTO t VALUES (1, 1)")
    project.migration("1_a", "CREATE INDEX i ON t (b);")
    with database.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # With a number of its own it holds back every new snapshot's horizon.
        old.execute("SELECT pg_current_xact_id()")
        send(database, "UPDATE t SET b = 2", "UPDATE t SET b = 3", "CREATE INDEX i ON t (b)")
        young = project.run("verify")
        old.rollback()
    assert young.items["public.i"]["detail"].startswith("valid, but transactions older than it still run")
    assert project.run("verify").code == 0
