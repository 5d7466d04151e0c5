"""The journal: who did it, and what a role does that may keep none in the database."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.faults.declare import fault
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, new_project, until
from tests.fix_servers import Cluster, Database
from tests.fix_sessions import old_snapshot, send, table, until_it_waits

GOOD = (True, True, True)
ONE = "CREATE INDEX CONCURRENTLY i ON t (a);"


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", ONE)
    return project


@pytest.fixture
def guest(one: Project, database: Database) -> Project:
    """The same, as a role that owns the table and may make no schema."""
    name = f"{database.name}_guest"
    send(
        database,
        f"CREATE ROLE {name} LOGIN",
        f"ALTER TABLE t OWNER TO {name}",
        f"GRANT CREATE ON SCHEMA public TO {name}",
    )
    project = replace(one, dsn=make_conninfo(database.dsn, user=name))
    project.configure(
        "version: 1\ntargets:\n  test:\n    database: {dsn: '{dsn}'}\nindexes: {migrations: migrations}\n"
    )
    return project


@fault(58, "whoever runs it is somebody else than last time", "writes down role and origin of every run")
def test_the_journal_tells_role_and_origin(one: Project, database: Database) -> None:
    one.apply()
    with database.connect() as connection:
        row = connection.execute("SELECT role, origin FROM perfctl.run").fetchone()
    assert row is not None
    assert row[0] == "postgres"
    assert "@" in row[1]


@fault(53, "the role may make no schema for the journal", "names the GRANT, and --journal as the way without")
def test_a_missing_right_for_the_journal_is_named_with_the_way_out(guest: Project, database: Database) -> None:
    before = catalogue(database)
    ran = guest.apply()
    assert (ran.code, catalogue(database)) == (7, before)
    assert "GRANT CREATE ON DATABASE" in ran.stderr
    assert "--journal file:PATH" in ran.stderr


def kept(project: Project) -> tuple[str, str]:
    """The option that keeps the journal in the project's folder."""
    return "--journal", f"file:{project.folder / 'journal.jsonl'}"


@fault(53, "the role may make no schema for the journal", "names the GRANT, and --journal as the way without")
def test_a_journal_in_a_file_serves_a_rollback(guest: Project, database: Database) -> None:
    before = catalogue(database)
    where = kept(guest)
    assert guest.apply(*where).code == 0
    assert guest.run("verify", *where).code == 0
    assert guest.run("status", *where).items["1_a"]["detail"] == "1 of 1 indexes there, 1 made by perfctl"
    assert guest.apply(*where).statuses == {"public.i": "skipped"}
    assert guest.rollback(*where).code == 0
    assert catalogue(database) == before
    assert guest.rollback(*where).report["counts"] == {}


@fault(53, "the role may make no schema for the journal", "names the GRANT, and --journal as the way without")
def test_a_run_says_what_a_journal_in_a_file_means(guest: Project) -> None:
    notes = guest.apply(*kept(guest)).report["notes"]
    assert any("need this very file" in note for note in notes)


@fault(19, "perfctl is killed and its journal is a file", "goes on from the file")
def test_a_killed_run_is_gone_on_with_from_a_file(one: Project, database: Database) -> None:
    where = kept(one)
    before = catalogue(database)
    with old_snapshot(database):
        process = one.start("apply", "--yes", *where)
        until_it_waits(database)
        process.popen.kill()
        process.popen.communicate()
    until(lambda: flags(database, "i") == GOOD)
    ran = one.apply(*where)
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed"})
    assert one.rollback(*where).code == 0
    assert catalogue(database) == before


@fault(53, "the journal's file is another database's", "refuses it")
def test_another_databases_file_is_refused(
    one: Project, database: Database, pg_server: Cluster, tmp_path: Path
) -> None:
    where = kept(one)
    one.apply(*where)
    with pg_server.fresh() as other:
        (tmp_path / "other").mkdir()
        there = new_project(tmp_path / "other", other)
        there.migration("1_a", ONE)
        table(other)
        ran = there.apply(*where)
        assert (ran.code, names(other)) == (4, set())
    assert "is of another database" in ran.stderr
    assert names(database) == {"i"}


@fault(53, "the journal's file is damaged", "says which line, and touches nothing")
def test_a_damaged_file_is_named_by_its_line(one: Project, database: Database) -> None:
    where = kept(one)
    one.apply(*where)
    path = one.folder / "journal.jsonl"
    path.write_text(path.read_text() + "{half a line\n")
    ran = one.rollback(*where)
    assert (ran.code, names(database)) == (2, {"i"})
    assert f"line {len(path.read_text().splitlines())}" in ran.stderr


@fault(53, "the journal's last line was cut short by a crash", "passes over it: nothing was sent before it was written")
def test_a_line_that_a_crash_cut_short_is_passed_over(one: Project, database: Database) -> None:
    where = kept(one)
    one.apply(*where)
    path = one.folder / "journal.jsonl"
    path.write_text(path.read_text() + '{"event": "start", "id')
    assert one.apply(*where).code == 0
    assert one.rollback(*where).code == 0
    assert names(database) == set()


@fault(53, "no journal is kept", "says what then does not hold, and refuses to roll back")
def test_without_a_journal_nothing_is_rolled_back(guest: Project, database: Database) -> None:
    ran = guest.apply("--journal", "none")
    assert ran.code == 0
    assert any("no rollback will know" in note for note in ran.report["notes"])
    assert guest.rollback("--journal", "none").code == 2
    assert (names(database), journal(database)) == ({"i"}, [])


@fault(6, "the journal's line of a good index is lost", "takes the index for what it is and drops nothing")
def test_a_good_index_without_a_line_is_not_touched(one: Project, database: Database) -> None:
    one.apply()
    send(database, "TRUNCATE perfctl.run CASCADE")
    before = catalogue(database)
    assert one.apply().statuses == {"public.i": "skipped"}
    assert one.rollback().code == 0
    assert catalogue(database) == before


@fault(35, "an index was there before perfctl came", "leaves it at a rollback")
def test_a_rollback_leaves_what_was_there_before(one: Project, database: Database) -> None:
    send(database, "CREATE INDEX i ON t (a)")
    before = catalogue(database)
    assert one.apply().statuses == {"public.i": "skipped"}
    assert one.rollback().code == 0
    assert catalogue(database) == before


@fault(34, "a rollback file drops without CONCURRENTLY", "drops concurrently by its own journal")
def test_a_rollback_is_concurrent(one: Project) -> None:
    one.apply()
    ran = one.rollback("--dry-run")
    assert [item["data"]["statement"] for item in ran.report["items"]] == ['DROP INDEX CONCURRENTLY "public"."i"']


def test_the_file_says_which_database_it_is_of(one: Project, database: Database) -> None:
    one.apply(*kept(one))
    head = json.loads((one.folder / "journal.jsonl").read_text().splitlines()[0])
    assert head["database"]["name"] == database.name
