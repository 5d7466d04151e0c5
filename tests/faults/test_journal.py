"""The journal: lost, out of reach, kept in a file, or not kept at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.declare import fault
from tests.fix_builds import OLD_SNAPSHOTS, end_sessions, kill, oid, until_phase
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, new_project, until
from tests.fix_servers import Cluster, Database
from tests.fix_sessions import old_snapshot, send, table

GOOD = (True, True, True)
TWO = "CREATE INDEX CONCURRENTLY i ON t (a);\nCREATE INDEX CONCURRENTLY k ON t (b);\n"


@pytest.fixture
def two(project: Project, database: Database) -> Project:
    """A table t and a migration that wants indexes i and k on it."""
    table(database)
    project.migration("1_a", TWO)
    return project


def built_without_perfctl(project: Project, database: Database, *options: str) -> None:
    """A run that is killed while its first build waits, and a build that the server then finishes."""
    with old_snapshot(database):
        process = project.start("apply", "--yes", "--jobs", "1", *options)
        until_phase(database, OLD_SNAPSHOTS)
        kill(process)
    until(lambda: flags(database, "i") == GOOD)
    end_sessions(database)


# lost


@fault(6, "an index is good and its journal is lost", does="leaves it as it is: it is neither dropped nor built again")
def test_a_good_index_without_a_journal_is_left_alone(two: Project, database: Database) -> None:
    two.apply()
    made = oid(database, "i"), oid(database, "k")
    send(database, "DROP SCHEMA perfctl CASCADE")
    assert two.apply().statuses == {"public.i": "skipped", "public.k": "skipped"}
    assert (oid(database, "i"), oid(database, "k")) == made
    # Nobody knows any more that perfctl made them.
    assert two.rollback().code == 0
    assert names(database) == {"i", "k"}


@fault(6, "an index is good and its journal is lost", does="leaves it as it is: it is neither dropped nor built again")
def test_a_build_that_outlived_perfctl_and_its_journal_is_left_alone(two: Project, database: Database) -> None:
    built_without_perfctl(two, database)
    made = oid(database, "i")
    send(database, "DELETE FROM perfctl.step")
    assert two.apply().statuses == {"public.i": "skipped", "public.k": "changed"}
    assert oid(database, "i") == made


@fault(
    6,
    "an index is good and its journal does not say so",
    does="writes it down as its own, without building it again, and a rollback takes it off",
)
@pytest.mark.parametrize("place", ["database", "file"])
def test_a_build_that_outlived_perfctl_is_adopted(two: Project, database: Database, tmp_path: Path, place: str) -> None:
    options = () if place == "database" else ("--journal", f"file:{tmp_path / 'journal.jsonl'}")
    before = catalogue(database)
    built_without_perfctl(two, database, *options)
    made = oid(database, "i")
    ran = two.apply(*options)
    assert ran.statuses == {"public.i": "changed", "public.k": "changed"}
    assert ran.items["public.i"]["detail"].startswith("adopt")
    assert oid(database, "i") == made
    assert two.rollback(*options).code == 0
    assert catalogue(database) == before


# who and where


@fault(58, "a run may come from a shell or from CI, under any role", does="writes down role, host and job of every run")
def test_the_journal_says_who_ran_it_and_where(
    two: Project, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_URL", "https://ci.example/jobs/7")
    two.apply()
    with database.connect() as connection:
        row = connection.execute("SELECT command, target, role, origin FROM perfctl.run").fetchone()
    assert row is not None
    assert row[:3] == ("indexes apply", "test", "postgres")
    assert row[3].endswith("ci:https://ci.example/jobs/7")
    assert "@" in row[3]


@fault(
    58,
    "a role's own search_path leads elsewhere",
    does="names schema, table and index in full in every statement that it sends",
)
def test_a_search_path_of_the_role_leads_nowhere_else(two: Project, database: Database) -> None:
    send(database, "CREATE SCHEMA decoy", "CREATE TABLE decoy.t (a int, b int)")
    two.migration("1_a", TWO.replace("ON t", "ON public.t"))
    send(database, f"ALTER DATABASE {database.name} SET search_path = decoy, public")
    assert two.apply().statuses == {"public.i": "changed", "public.k": "changed"}
    assert all('"public"."t"' in statement for (statement,) in journal(database, "statement"))
    send(database, f"ALTER DATABASE {database.name} RESET search_path", "CREATE INDEX i ON decoy.t (a)")
    assert two.rollback().code == 0
    assert names(database) == {"decoy.i"}


# out of reach


@pytest.fixture
def guest(two: Project, database: Database) -> Iterator[str]:
    """A role that owns the table and may make no schema; the project connects as it."""
    name = f"{database.name}_guest"
    send(
        database,
        f"CREATE ROLE {name} LOGIN",
        f"ALTER TABLE t OWNER TO {name}",
        f"GRANT CREATE ON SCHEMA public TO {name}",
    )
    two.configure(two.config.read_text().replace("postgres@/", f"{name}@/"))
    yield name
    send(database, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


@fault(
    53,
    "a role may make no schema for the journal",
    does="refuses before the first index, with the GRANT and the way without it",
)
def test_without_a_place_for_the_journal_nothing_is_begun(two: Project, database: Database, guest: str) -> None:
    ran = two.apply()
    assert (ran.code, ran.report["error"]["class"]) == (7, "Denied")
    grant = f'GRANT CREATE ON DATABASE "{database.name}" TO "{guest}"'
    assert grant in ran.stderr
    assert "--journal file:PATH" in ran.stderr
    assert names(database) == set()
    send(database, grant)
    assert two.apply().code == 0


@fault(
    53,
    "a role may make no schema for the journal",
    does="keeps it in a file with --journal file:PATH: apply, verify and rollback work from it",
)
@pytest.mark.usefixtures("guest")
def test_a_journal_in_a_file_is_enough(two: Project, database: Database, tmp_path: Path) -> None:
    where = "--journal", f"file:{tmp_path / 'journal.jsonl'}"
    before = catalogue(database)
    ran = two.apply(*where)
    assert ran.statuses == {"public.i": "changed", "public.k": "changed"}
    assert any("need this very file" in note for note in ran.report["notes"])
    assert two.run("verify", *where).code == 0
    assert two.run("status", *where).items["1_a"]["data"]["made_by_perfctl"] == 2
    assert two.apply(*where).report["counts"] == {"skipped": 2}
    assert two.rollback(*where).report["counts"] == {"changed": 2}
    assert catalogue(database) == before
    assert two.run("verify", "--absent", *where).code == 0
    assert two.apply(*where).report["counts"] == {"changed": 2}
    assert two.rollback("--only", "k", *where).code == 0
    assert names(database) == {"i"}


@fault(
    19,
    "perfctl is killed while its journal is a file",
    does="takes the run up from the file, and a rollback takes off what the killed run began",
)
@pytest.mark.parametrize("then", ["apply", "rollback"])
def test_a_killed_run_is_taken_up_from_its_file(two: Project, database: Database, tmp_path: Path, then: str) -> None:
    where = "--journal", f"file:{tmp_path / 'journal.jsonl'}"
    before = catalogue(database)
    with old_snapshot(database):
        process = two.start("apply", "--yes", *where)
        until_phase(database, OLD_SNAPSHOTS)
        kill(process)
        end_sessions(database)
    assert False in (flags(database, "i") or flags(database, "k") or ())
    if then == "apply":
        assert two.apply(*where).code == 0
        assert (flags(database, "i"), flags(database, "k")) == (GOOD, GOOD)
        assert two.run("verify", *where).code == 0
    assert two.rollback(*where).code == 0
    assert catalogue(database) == before


@fault(6, "a journal's file is of another database", does="refuses it and changes nothing")
def test_another_databases_file_is_refused(
    two: Project, database: Database, pg_server: Cluster, tmp_path: Path
) -> None:
    where = "--journal", f"file:{tmp_path / 'journal.jsonl'}"
    two.apply(*where)
    written = (tmp_path / "journal.jsonl").read_text()
    (tmp_path / "other").mkdir()
    with pg_server.fresh() as fresh:
        table(fresh)
        other = new_project(tmp_path / "other", fresh)
        other.migration("1_a", TWO)
        for ran in (other.apply(*where), other.rollback(*where)):
            assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
            assert database.name in ran.stderr
        assert names(fresh) == set()
    assert (tmp_path / "journal.jsonl").read_text() == written


@fault(6, "a journal's file is damaged or cannot be written", does="refuses before the first index and names the line")
def test_a_damaged_file_is_refused(two: Project, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text("no journal\n")
    ran = two.apply("--journal", f"file:{file}")
    assert ran.code == 2
    assert f'"{file}" line 1' in ran.stderr
    gone = two.apply("--journal", f"file:{tmp_path / 'nowhere' / 'journal.jsonl'}")
    assert gone.code == 2
    assert "cannot be written" in gone.stderr
    assert names(database) == set()


@fault(6, "the name of a journal's file is mistyped", does="refuses instead of taking it for a journal of nothing")
@pytest.mark.parametrize("command", [("rollback", "--yes"), ("verify", "--absent")], ids=["rollback", "absent"])
def test_a_file_that_is_not_there_proves_nothing(
    two: Project, database: Database, tmp_path: Path, command: tuple[str, ...]
) -> None:
    assert two.apply("--journal", f"file:{tmp_path / 'journal.jsonl'}").code == 0
    typo = ("--journal", f"file:{tmp_path / 'jornal.jsonl'}")
    ran = two.run(*command, *typo)
    assert (ran.code, ran.report["error"]["class"]) == (2, "UsageError")
    assert 'jornal.jsonl" does not exist' in ran.stderr
    assert two.run("verify", *typo).code == 0
    assert two.run("plan", *typo).code == 0
    assert names(database) == {"i", "k"}
    assert not (tmp_path / "jornal.jsonl").exists()


@fault(6, "the name of a journal's file is empty", does="refuses; --journal file alone means perfctl-journal.jsonl")
@pytest.mark.parametrize("word", ["file:", "database:", "none:"])
def test_an_empty_name_of_a_file_is_refused(two: Project, database: Database, word: str) -> None:
    ran = two.apply("--journal", word)
    assert (ran.code, ran.report["error"]["class"]) == (2, "UsageError")
    assert names(database) == set()


@fault(
    53,
    "a role may make no schema for the journal",
    does="works without one with --journal none, and refuses a rollback with the reason",
)
@pytest.mark.usefixtures("guest")
def test_without_a_journal_there_is_no_rollback(two: Project, database: Database) -> None:
    ran = two.apply("--journal", "none")
    assert ran.code == 0
    assert any("no rollback will know" in note for note in ran.report["notes"])
    assert two.run("verify").code == 0
    assert two.apply("--journal", "none").report["counts"] == {"skipped": 2}
    back = two.rollback("--journal", "none")
    assert back.code == 2
    assert "takes off what a journal says perfctl made" in back.stderr
    assert names(database) == {"i", "k"}


@fault(
    60,
    "the journal goes away in the middle of a run",
    does="ends, says what is done and not written down, and the next run goes on",
)
def test_a_journal_that_goes_away_in_the_middle(two: Project, database: Database) -> None:
    with old_snapshot(database):
        process = two.start("apply", "--yes", "--jobs", "1")
        until_phase(database, OLD_SNAPSHOTS)
        until(lambda: journal(database, "object_oid") == [(oid(database, "i"),)])
        send(database, "DROP SCHEMA perfctl CASCADE")
    ran = process.wait()
    assert ran.code == 5
    assert 'relation "perfctl.step" does not exist' in ran.stderr
    assert "it is done on the server, and the journal does not say so" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert flags(database, "i") == GOOD
    assert two.apply().code == 0
    assert {flags(database, name) for name in "ik"} == {GOOD}
    assert two.run("verify").code == 0


@fault(6, "a crash cuts a line of the journal's file short", does="passes over it: nothing was sent for it")
def test_a_line_that_was_cut_short_is_passed_over(two: Project, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    where = ("--journal", f"file:{file}")
    assert two.apply(*where).code == 0
    file.write_text(file.read_text() + '{"event": "start", "id')
    assert two.apply(*where).code == 0
    assert two.rollback(*where).code == 0
    assert names(database) == set()
