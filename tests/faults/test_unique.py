"""Unique indexes that cannot be built: the keys are named, and no leftover goes on rejecting writes."""

from __future__ import annotations

import pytest

from tests.faults.declare import fault
from tests.fix_builds import (
    BEFORE_BUILD,
    BEFORE_VALIDATION,
    OLD_SNAPSHOTS,
    kill_with_its_sessions,
    takes,
    until_phase,
)
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table, writer

GOOD = (True, True, True)
REPEAT = "INSERT INTO t VALUES (42, 0)"
UNIQUE = "CREATE UNIQUE INDEX CONCURRENTLY u ON t (a);"


def unique(project: Project, database: Database, definition: str = "u ON t (a)") -> Project:
    """A table with every a once, and a migration that wants a unique index."""
    table(database)
    project.migration("1_a", f"CREATE UNIQUE INDEX CONCURRENTLY {definition};")
    return project


# keys that repeat


@fault(
    27,
    "a key repeats before a unique build",
    does="names the keys that repeat and how often, and leaves no leftover",
)
@pytest.mark.parametrize(
    ("definition", "words"),
    [
        pytest.param("u ON t (a)", "keys that repeat: (42) 2 times", id="plain"),
        pytest.param("u ON t (a) WHERE b = 0", "keys that repeat: (42) 2 times", id="partial"),
        pytest.param("u ON t ((a % 90)) WHERE a > 5", "keys that repeat: (42) 2 times", id="expression"),
        pytest.param("u ON t (a, b)", "keys that repeat: (42, 0) 2 times", id="two columns"),
        pytest.param("u ON t (lower(a::text), b DESC)", "keys that repeat: (42, 0) 2 times", id="mixed"),
        pytest.param("u ON t (a) INCLUDE (b)", "keys that repeat: (42) 2 times", id="include"),
    ],
)
def test_the_keys_that_repeat_are_named(project: Project, database: Database, definition: str, words: str) -> None:
    unique(project, database, definition)
    send(database, "DELETE FROM t WHERE a > 90", REPEAT)
    before = catalogue(database)
    ran = project.apply()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert words in ran.stderr
    assert words in ran.items["public.u"]["detail"]
    assert catalogue(database) == before


@fault(
    27,
    "a key repeats before a unique build",
    does="names the keys that repeat and how often, and leaves no leftover",
)
def test_a_row_that_a_partial_index_leaves_out_repeats_nothing(project: Project, database: Database) -> None:
    unique(project, database, "u ON t (a) WHERE b < 0")
    send(database, REPEAT)
    assert project.apply().code == 0
    assert flags(database, "u") == GOOD


@fault(
    27,
    "many keys repeat before a unique build",
    does="names the five that repeat most often, and says that there are more",
)
def test_of_many_keys_the_most_frequent_are_named(project18: Project, database18: Database) -> None:
    unique(project18, database18)
    send(database18, "INSERT INTO t SELECT i, -1 FROM generate_series(1, 9) AS i", "INSERT INTO t VALUES (7, 1)")
    words = project18.apply().report["error"]["message"]
    assert "keys that repeat: (7) 3 times, (1) 2 times" in words
    assert words.count(" times") == 5
    assert "and more" in words


@fault(
    27,
    "a key is repeated while a unique index is built",
    does="drops the leftover, and tells of each later step which one it waited for",
)
def test_what_waits_for_a_unique_index_names_the_step(project18: Project, database18: Database) -> None:
    unique(project18, database18)
    text = (project18.migrations / "1_a.sql").read_text()
    project18.migration("1_a", f"{text}; COMMENT ON INDEX u IS 'x'; CREATE INDEX CONCURRENTLY k ON t (b);")
    send(database18, REPEAT)
    said = project18.apply("--continue").stderr
    assert "public.u: dropping what the build left\n" in said
    assert 'public.u: unreached: waits for create index "public.u"' in said


@fault(27, "NULLs under a unique index", does="does not count NULLs as repeated unless the index does")
def test_nulls_are_told_apart(project: Project, database: Database) -> None:
    unique(project, database)
    send(database, "INSERT INTO t VALUES (NULL, 1), (NULL, 2)")
    assert project.apply().code == 0
    assert project.rollback().code == 0
    send(database, REPEAT)
    words = project.apply().stderr
    assert "keys that repeat: (42) 2 times" in words
    assert "NULL" not in words


@fault(27, "NULLs under a unique index", does="does not count NULLs as repeated unless the index does")
def test_nulls_that_are_not_distinct_are_named(project: Project, database: Database) -> None:
    unique(project, database, "u ON t (a) NULLS NOT DISTINCT")
    send(database, "INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 3)")
    ran = project.apply()
    assert ran.code == 4
    assert "keys that repeat: (NULL) 3 times" in ran.stderr
    assert names(database) == set()


@fault(
    27,
    "a key is repeated while a unique index is built",
    does="names the keys that repeat and how often, and leaves no leftover",
)
def test_a_key_that_is_repeated_between_the_two_scans_is_named(project: Project, database: Database) -> None:
    unique(project, database)
    with database.connect(autocommit=False) as late, writer(database) as first:
        process = project.start("apply", "--yes")
        until_phase(database, BEFORE_BUILD)
        # The first scan does not see it, for it is not committed; the second comes after its end.
        late.execute(REPEAT.encode())
        first.rollback()
        until_phase(database, BEFORE_VALIDATION)
        late.commit()
        ran = process.wait()
    assert ran.code == 4
    assert "keys that repeat: (42) 2 times" in ran.stderr
    assert names(database) == set()
    assert takes(database, REPEAT)


# leftovers that reject writes


@fault(
    28,
    "a unique build fails after it is ready",
    does="drops the leftover before it ends, so that it rejects no write",
)
def test_a_unique_build_that_is_given_up_rejects_no_write(project: Project, database: Database) -> None:
    unique(project, database)
    with old_snapshot(database):
        process = project.start("apply", "--yes", "--wait-budget", "2s")
        until_phase(database, OLD_SNAPSHOTS)
        assert not takes(database, REPEAT)
        ran = process.wait()
        assert takes(database, REPEAT)
    assert ran.code == 6
    assert names(database) == set()


def drop_age_s(database: Database) -> float | None:
    """How long a DROP INDEX CONCURRENTLY is under way; None when there is none."""
    query = (
        "SELECT extract(epoch FROM clock_timestamp() - query_start)::float8 FROM pg_stat_activity"
        " WHERE query LIKE 'DROP INDEX CONCURRENTLY%' AND state = 'active' AND datname = current_database()"
    )
    with database.connect() as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


@fault(
    28,
    "a reader keeps a unique leftover from being dropped",
    does="leaves the drop going on on the server, and says so",
)
@pytest.mark.parametrize("check", ["0s", "100ms"])
def test_a_drop_that_a_reader_blocks_goes_on_without_perfctl(project: Project, database: Database, check: str) -> None:
    unique(project, database)
    with database.connect(autocommit=False) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT FROM t")
        ran = project.apply("--wait-budget", "500ms", "--client-connection-check-interval", check)
        assert ran.code == 5
        assert "rejects writes that repeat a key" in ran.stderr
        assert f"pid {reader.info.backend_pid}" in ran.stderr
        assert "goes on on the server" in ran.stderr
        # Long enough for the server to look several times whether its client is still there.
        until(lambda: (age_s := drop_age_s(database)) is None or age_s > 2.5)
        assert drop_age_s(database) is not None
        reader.rollback()
    until(lambda: names(database) == set())
    assert takes(database, REPEAT)
    assert project.apply().code == 0


@fault(
    28,
    "a killed run leaves a unique index that rejects writes",
    does="drops it at the next apply before anything else",
)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_unique_leftover_goes_first(project: Project, database: Database, jobs: str) -> None:
    table(database)
    table(database, "first")
    project.migration("2_u", UNIQUE)
    with old_snapshot(database):
        process = project.start("apply", "--yes")
        until_phase(database, OLD_SNAPSHOTS)
        kill_with_its_sessions(database, process)
    assert flags(database, "u") == (False, True, True)
    assert not takes(database, REPEAT)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON first (a); CREATE INDEX CONCURRENTLY k ON t (b);")
    assert project.apply("--jobs", jobs).code == 0
    # Beside it the other job begins with the other table: which of the two is written down first is left open.
    assert ("drop_leftover", "u", "done") in journal(database)[1 : 1 + int(jobs)]
    assert {flags(database, name) for name in "iku"} == {GOOD}
