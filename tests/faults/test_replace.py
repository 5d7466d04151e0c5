"""apply --replace: another definition takes an index's place, and at every instant one of the two is there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.declare import fault
from tests.fix_builds import OLD_SNAPSHOTS, end_sessions, kill, oid, until_it_sends, until_phase
from tests.fix_catalogue import catalogue, flags, indexes, journal, names
from tests.fix_perfctl import Process, Project, until
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table

GOOD = (True, True, True)
WANTED = "CREATE INDEX CONCURRENTLY i ON t (a, b);"
OLD = "CREATE INDEX i ON public.t USING btree (a)"
NEW = "CREATE INDEX i ON public.t USING btree (a, b)"


@pytest.fixture
def drifted(project: Project, database: Database) -> Project:
    """A table whose index i is on (a), with a comment, and a migration that wants it on (a, b)."""
    table(database)
    send(database, "CREATE INDEX i ON t (a)", "COMMENT ON INDEX i IS 'old one'")
    project.migration("1_a", WANTED)
    return project


def definition(database: Database, name: str = "i") -> str | None:
    return next((row[2] for row in indexes(database) if row[1] == name), None)


@contextlib.contextmanager
def always_one(database: Database) -> Iterator[None]:
    """Looks all the time, and fails when a look finds no valid index of that name."""
    query = (
        "SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE c.relname = 'i' AND i.indrelid = to_regclass('t') AND i.indisvalid AND i.indisready AND i.indislive"
    )
    looks: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        with database.connect() as connection:
            while not ended.wait(0.001):
                row = connection.execute(query).fetchone()
                looks.append(row[0] if row else 0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        until(lambda: looks)
        yield
    finally:
        ended.set()
        thread.join()
    assert set(looks) == {1}


@contextlib.contextmanager
def reader(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """An open transaction that has read the table: a concurrent drop on it waits for its end."""
    with database.connect(autocommit=False, application_name="report") as connection:
        connection.execute("SELECT FROM t")
        yield connection
        connection.rollback()


# without --replace


@fault(37, "an index of that name has another definition", does="refuses, shows both definitions and the ways out")
def test_drift_is_refused(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    ran = drifted.apply()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    for words in ("has: USING btree (a)", "wanted: USING btree (a, b)", "apply --replace", "DROP INDEX CONCURRENTLY"):
        assert words in ran.stderr
    assert (catalogue(database), journal(database)) == (before, [])
    assert drifted.run("verify").items["public.i"]["data"]["state"] == "different"


# with it


@fault(
    37,
    "an index is replaced by another definition",
    does="builds the new one beside, swaps the names at a stroke, and drops the old one: there is always one",
)
def test_at_every_instant_there_is_one(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    with always_one(database), old_snapshot(database) as snapshot:
        process = drifted.start("apply", "--yes", "--replace")
        until_phase(database, OLD_SNAPSHOTS)
        assert definition(database) == OLD
        with reader(database):
            snapshot.rollback()
            until_it_sends(database, "DROP INDEX")
            assert definition(database) == NEW
        ran = process.wait()
    assert ran.code == 0
    assert (names(database), definition(database)) == ({"i"}, NEW)
    assert drifted.run("verify").code == 0
    assert "old one" in {row[9] for row in indexes(database)}
    assert drifted.rollback().code == 0
    assert catalogue(database) == before


@fault(
    37,
    "a replacement is rolled back",
    does="brings the old definition back with its comment, and nothing is left of the new one",
)
def test_a_replacement_goes_back_and_forth(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    for _ in range(2):
        assert drifted.apply("--replace").code == 0
        assert definition(database) == NEW
        assert drifted.rollback().code == 0
        assert catalogue(database) == before


@fault(37, "a unique index is replaced by another definition", does="keeps keys apart all the while")
def test_a_unique_index_is_replaced(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE UNIQUE INDEX i ON t (a)")
    before = catalogue(database)
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a) INCLUDE (b);")
    with always_one(database):
        assert project.apply("--replace").code == 0
    assert names(database) == {"i"}
    assert project.rollback().code == 0
    assert catalogue(database) == before


@fault(
    37, "the new definition of a unique index cannot be built", does="keeps the old one as it was, and names the keys"
)
def test_a_replacement_that_fails_leaves_the_old_one(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX i ON t (a)", "INSERT INTO t VALUES (42, 1)")
    before = catalogue(database)
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    with always_one(database):
        ran = project.apply("--replace")
    assert ran.code == 4
    assert "keys that repeat: (42) 2 times" in ran.stderr
    assert catalogue(database) == before


@fault(37, "an index that a constraint needs is to be replaced", does="refuses and names the constraint")
def test_a_constraints_index_is_not_replaced(project: Project, database: Database) -> None:
    table(database)
    send(database, "ALTER TABLE t ADD CONSTRAINT i UNIQUE (a)")
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a) INCLUDE (b);")
    before = catalogue(database)
    ran = project.apply("--replace")
    assert ran.code == 4
    assert 'constraint "i" needs it' in ran.stderr
    assert catalogue(database) == before


@fault(37, "an index of a partitioned table is to be replaced", does="refuses and says so")
@pytest.mark.parametrize("on", ["t", "p"])
def test_a_partitioned_index_and_its_parts_are_not_replaced(project: Project, database: Database, on: str) -> None:
    send(
        database,
        "CREATE TABLE t (a int, b int) PARTITION BY RANGE (a)",
        "CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (9)",
        "CREATE INDEX whole ON t (a)",
        f"ALTER INDEX {'whole' if on == 't' else 'p_a_idx'} RENAME TO i",
    )
    project.migration("1_a", f"CREATE INDEX CONCURRENTLY i ON {on} (b);")
    before = catalogue(database)
    ran = project.apply("--replace")
    assert ran.code == 4
    assert "partitioned" in ran.stderr
    assert catalogue(database) == before


# what is said and written down


@fault(
    37,
    "a report keeps the replaced index from being dropped",
    does="says that the one that was renamed away is half dropped, not the good one",
)
def test_what_is_half_dropped_is_called_by_its_name(drifted: Project, database: Database) -> None:
    with reader(database):
        ran = drifted.apply("--replace", "--wait-budget", "300ms")
    assert (ran.code, flags(database, "i")) == (5, GOOD)
    assert flags(database, "i_perfctl_old") != GOOD
    assert '"public.i_perfctl_old": it is half dropped' in ran.report["error"]["message"]
    assert '"public.i":' not in ran.report["error"]["message"]
    assert '"public.i_perfctl_old" is half dropped' in "".join(item["detail"] for item in ran.report["items"])
    assert drifted.apply().code == 0
    assert names(database) == {"i"}


@fault(
    37,
    "an index is replaced by another definition",
    does="writes down the build as done, under which name it goes on, and its seconds beside that name",
)
@pytest.mark.parametrize("kind", ["database", "file"])
def test_the_journal_says_what_became_of_the_build(
    drifted: Project, database: Database, tmp_path: Path, kind: str
) -> None:
    before = catalogue(database)
    where = () if kind == "database" else ("--journal", f"file:{tmp_path / 'journal.jsonl'}")
    assert drifted.apply("--replace", *where).code == 0
    if kind == "database":
        built, drop, swap, _ = journal(database, "kind, name, state, detail, undo IS NULL, build_s, size_bytes")
        assert built[:5] == ("create_index", "i_perfctl_new", "done", "renamed to i", True)
        assert drop[:3] == ("drop_index", "i", "done")
        assert (swap[:3], swap[5:]) == (("create_index", "i", "done"), built[5:])
        assert min(built[5:]) > 0
    assert drifted.run("verify", *where).code == 0
    assert drifted.rollback(*where).code == 0
    assert catalogue(database) == before
    assert drifted.rollback(*where).items == {}


@fault(
    37,
    "a replacement was built, and nobody wants it any more",
    does="names it in plan, verify and status with the statement that drops it",
)
def test_a_replacement_that_nobody_takes_is_named(drifted: Project, database: Database) -> None:
    killed_at(drifted, database, "built")
    remedy = 'DROP INDEX CONCURRENTLY "public"."i_perfctl_new"'
    refused = drifted.apply()
    assert (refused.code, remedy in refused.stderr) == (4, True)
    drifted.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    assert remedy in "".join(drifted.run("plan").report["notes"])
    for command in ("verify", "status"):
        item = drifted.run(command).items["public.i_perfctl_new"]
        assert (item["status"], item["remedy"]) == ("finding", remedy)
    assert drifted.rollback().code == 0
    assert drifted.run("verify").code == 0


# back again


@fault(
    37,
    "a replacement is rolled back",
    does="builds the old one beside, swaps the names at a stroke, and drops the new one: there is always one",
)
def test_at_every_instant_of_the_way_back_there_is_one(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    assert drifted.apply("--replace").code == 0
    with always_one(database), reader(database) as web:
        process = drifted.start("rollback", "--yes")
        until_it_sends(database, "DROP INDEX")
        assert definition(database) == OLD
        web.rollback()
        ran = process.wait()
    assert (ran.code, catalogue(database)) == (0, before)
    assert drifted.rollback().items == {}
    assert drifted.run("verify", "--absent").code == 0


@fault(37, "the old definition cannot be built any more", does="keeps the new one, and says why")
def test_a_way_back_that_fails_leaves_the_new_one(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE UNIQUE INDEX i ON t (a)")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a, b);")
    assert project.apply("--replace").code == 0
    send(database, "INSERT INTO t VALUES (42, 1)")
    with always_one(database):
        ran = project.rollback()
    assert "keys that repeat: (42) 2 times" in ran.stderr
    assert (ran.code, names(database), definition(database)) == (4, {"i"}, NEW)
    send(database, "DELETE FROM t WHERE ctid IN (SELECT max(ctid) FROM t WHERE a = 42)")
    assert project.rollback().code == 0
    assert (names(database), definition(database)) == ({"i"}, OLD.replace("CREATE", "CREATE UNIQUE"))


@fault(37, "perfctl is killed while it takes a replacement back", does="goes on at the next rollback")
@pytest.mark.parametrize("where", ["build", "built", "swapped", "half dropped"])
def test_a_killed_way_back_is_gone_on_with(drifted: Project, database: Database, where: str) -> None:
    before = catalogue(database)
    assert drifted.apply("--replace").code == 0
    with always_one(database):
        killed_at(drifted, database, where, lambda: drifted.start("rollback", "--yes"))
        assert drifted.rollback().code == 0
    assert catalogue(database) == before
    assert drifted.rollback().items == {}


@fault(37, "perfctl is killed while it takes a replacement back", does="finishes the drop at the next apply too")
def test_an_apply_finishes_the_drop_of_a_killed_way_back(drifted: Project, database: Database) -> None:
    before = catalogue(database)
    assert drifted.apply("--replace").code == 0
    killed_at(drifted, database, "half dropped", lambda: drifted.start("rollback", "--yes"))
    drifted.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    assert (drifted.apply().code, names(database)) == (0, {"i"})
    assert drifted.rollback().code == 0
    assert catalogue(database) == before


# perfctl dies


def killed_at(project: Project, database: Database, where: str, begin: Callable[[], Process] | None = None) -> None:
    """A replacement whose perfctl is killed: while it builds, after the build, or while it drops the old one."""
    start = begin or (lambda: _replacing(project))
    if where == "build":
        with old_snapshot(database):
            process = start()
            until_phase(database, OLD_SNAPSHOTS)
            kill(process)
            end_sessions(database)
    elif where == "built":
        with old_snapshot(database):
            process = start()
            until_phase(database, OLD_SNAPSHOTS)
            kill(process)
        # The server finishes what nobody waits for any more.
        until(lambda: flags(database, "i_perfctl_new") == GOOD)
        end_sessions(database)
    else:
        with reader(database):
            process = start()
            until_it_sends(database, "DROP INDEX")
            kill(process)
            if where == "half dropped":
                until(lambda: flags(database, "i_perfctl_old") != GOOD)
            end_sessions(database)
        if where == "swapped":
            # As it was between the swap and the drop.
            send(
                database,
                "UPDATE pg_index SET indisvalid = true, indisready = true, indislive = true"
                " WHERE indexrelid = to_regclass('i_perfctl_old')",
            )


def _replacing(project: Project) -> Process:
    return project.start("apply", "--yes", "--replace")


WHERE = ["build", "built", "swapped", "half dropped"]


@fault(
    37,
    "perfctl is killed while it replaces an index",
    does="goes on at the next apply --replace to one index of the new definition, and a rollback brings the old one",
)
@pytest.mark.parametrize("where", WHERE)
def test_a_killed_replacement_is_gone_on_with(drifted: Project, database: Database, where: str) -> None:
    before = catalogue(database)
    with always_one(database):
        killed_at(drifted, database, where)
        assert drifted.apply("--replace").code == 0
    assert (names(database), definition(database), flags(database, "i")) == ({"i"}, NEW, GOOD)
    assert drifted.run("verify").code == 0
    assert drifted.rollback().code == 0
    assert catalogue(database) == before


@fault(
    37,
    "perfctl is killed while it replaces an index",
    does="finishes what is left to drop at the next plain apply, and refuses what has not been swapped yet",
)
@pytest.mark.parametrize("where", WHERE)
def test_a_plain_apply_after_a_killed_replacement(drifted: Project, database: Database, where: str) -> None:
    before = catalogue(database)
    killed_at(drifted, database, where)
    ran = drifted.apply()
    if where in ("build", "built"):
        assert ran.code == 4
        assert definition(database) == OLD
        assert drifted.apply("--replace").code == 0
    else:
        assert ran.code == 0
    assert (names(database), definition(database)) == ({"i"}, NEW)
    assert drifted.rollback().code == 0
    assert catalogue(database) == before


@fault(
    37,
    "perfctl is killed while it replaces an index",
    does="brings the old index back by rollback, wherever it was killed",
)
@pytest.mark.parametrize("where", WHERE)
def test_a_killed_replacement_is_taken_back(drifted: Project, database: Database, where: str) -> None:
    before = catalogue(database)
    old = oid(database, "i")
    killed_at(drifted, database, where)
    assert drifted.rollback().code == 0
    assert catalogue(database) == before
    if where != "half dropped":
        assert oid(database, "i") == old
