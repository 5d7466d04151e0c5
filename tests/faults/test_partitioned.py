"""Indexes of whole partitioned tables: built a partition at a time, whatever happens on the way."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from tests.faults.declare import fault
from tests.faults.listen import Heard
from tests.fix_builds import OLD_SNAPSHOTS, end_sessions, kill, oid, phases, statements, until_it_sends, until_phase
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import at_work, old_snapshot, send, writer

GOOD = (True, True, True)
CREATE = "CREATE INDEX CONCURRENTLY i ON t (b);"
#: t → low, and t → high → high_a, high_b
DEEP = (
    "CREATE TABLE t (a int, b int) PARTITION BY RANGE (a)",
    "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (300) PARTITION BY LIST (b)",
    "CREATE TABLE high_a PARTITION OF high FOR VALUES IN (0, 1, 2)",
    "CREATE TABLE high_b PARTITION OF high DEFAULT",
    "INSERT INTO t SELECT i, i % 7 FROM generate_series(0, 299) AS i",
)
FLAT = (
    "CREATE TABLE t (a int, b int) PARTITION BY RANGE (a)",
    "CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (100) TO (200)",
    "INSERT INTO t SELECT i, i % 7 FROM generate_series(0, 199) AS i",
)


@pytest.fixture
def flat(project: Project, database: Database) -> Project:
    """A table t of two partitions, and a migration that wants index i on the whole."""
    send(database, *FLAT)
    project.migration("1_a", CREATE)
    return project


def tree(database: Database, name: str = "i") -> dict[str, bool]:
    """The index and all its parts, each with whether it is valid."""
    query = (
        "SELECT i.indexrelid::regclass::text, i.indisvalid FROM pg_partition_tree(%s::regclass) AS t"
        " JOIN pg_index AS i ON i.indexrelid = t.relid"
    )
    with database.connect() as connection:
        return dict(connection.execute(query, [name]).fetchall())


# the whole tree


@fault(
    41,
    "an index of a partitioned table",
    does="builds it a partition at a time, attaches the parts from below, and sees that the whole is valid",
)
def test_a_tree_of_three_levels_goes_forward_and_back(project: Project, database: Database) -> None:
    send(database, *DEEP)
    project.migration(
        "1_a", f"{CREATE} CREATE INDEX CONCURRENTLY k ON t (a DESC) WHERE b > 1; COMMENT ON INDEX i IS 'whole';"
    )
    before = catalogue(database)
    ran = project.apply()
    assert ran.code == 0
    expected = {"i", "low_i", "high_i", "high_a_i", "high_b_i"}
    assert tree(database) == dict.fromkeys(expected, True)
    assert tree(database, "k") == dict.fromkeys((name.replace("_i", "_k") for name in expected - {"i"} | {"k"}), True)
    assert project.run("verify").code == 0
    assert project.apply().report["counts"] == {"skipped": 3}
    assert project.rollback().code == 0
    assert catalogue(database) == before


@fault(
    41,
    "an index of a partitioned table",
    does="builds it a partition at a time, attaches the parts from below, and sees that the whole is valid",
)
def test_a_unique_index_holds_over_the_whole(flat: Project, database: Database) -> None:
    flat.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a, b);")
    assert flat.apply().code == 0
    assert tree(database) == {"i": True, "p1_i": True, "p2_i": True}
    with database.connect() as connection:
        query = "SELECT bool_and(indisunique) FROM pg_index WHERE indrelid IN ('t'::regclass, 'p1'::regclass)"
        assert connection.execute(query).fetchone() == (True,)
    assert flat.rollback().code == 0
    assert names(database) == set()


@fault(41, "a unique index that lacks the partition key", does="refuses it in the plan with the server's reason")
def test_a_unique_index_without_the_partition_key_is_refused(flat: Project, database: Database) -> None:
    flat.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (b);")
    before = catalogue(database)
    ran = flat.apply()
    assert ran.code == 4
    assert "partition" in ran.stderr
    assert catalogue(database) == before


@fault(41, "a key repeats in one partition", does="names the key and keeps the parts that are good")
def test_a_repeated_key_in_one_partition_is_named_and_the_rest_goes_on(flat: Project, database: Database) -> None:
    flat.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    send(database, "INSERT INTO t VALUES (142, 9)")
    ran = flat.apply()
    assert ran.code == 5
    assert "keys that repeat: (142) 2 times" in ran.stderr
    assert (flags(database, "p1_i"), flags(database, "p2_i")) == (GOOD, None)
    kept = oid(database, "p1_i")
    send(database, "DELETE FROM t WHERE a = 142 AND b = 9")
    assert flat.apply().code == 0
    assert tree(database) == {"i": True, "p1_i": True, "p2_i": True}
    assert oid(database, "p1_i") == kept


# parts that are not as they should be


@fault(41, "a part that a failed build left invalid", does="never attaches it, and builds it anew at the next apply")
def test_an_invalid_part_is_built_anew_and_then_attached(flat: Project, database: Database) -> None:
    with old_snapshot(database):
        process = flat.start("apply", "--yes")
        until_phase(database, OLD_SNAPSHOTS)
        kill(process)
        end_sessions(database)
    assert flags(database, "p1_i") == (False, True, True)
    assert tree(database) == {"i": False}
    assert flat.run("verify").code == 1
    left = oid(database, "p1_i")
    assert flat.apply().code == 0
    assert tree(database) == {"i": True, "p1_i": True, "p2_i": True}
    assert oid(database, "p1_i") != left
    assert flat.run("verify").code == 0
    assert flat.rollback().code == 0
    assert names(database) == set()


@fault(
    41,
    "a part that turns invalid before it is attached",
    does="does not attach it, says so, and builds it anew at the next apply",
)
def test_a_part_that_turns_invalid_in_the_middle_is_not_attached(flat: Project, database: Database) -> None:
    with writer(database, "INSERT INTO p2 VALUES (150, 1)"):
        process = flat.start("apply", "--yes")
        until_it_sends(database, '"p2_i"')
        # What a failed REINDEX or a half done drop does to it: PostgreSQL would attach it without a word.
        send(database, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'p1_i'::regclass")
    ran = process.wait()
    assert ran.code == 5
    assert '"public.p1_i" is not valid, so it is not attached' in ran.stderr
    assert "p1_i" not in tree(database)
    assert flat.apply().code == 0
    assert tree(database) == {"i": True, "p1_i": True, "p2_i": True}


@fault(41, "an invalid part that is attached already", does="refuses to go on, and says what to drop")
def test_an_attached_invalid_part_is_refused_with_the_cure(flat: Project, database: Database) -> None:
    send(
        database,
        "CREATE INDEX i ON ONLY t (b)",
        "CREATE INDEX p1_i ON p1 (b)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'p1_i'::regclass",
        "ALTER INDEX i ATTACH PARTITION p1_i",
    )
    before = catalogue(database)
    ran = flat.apply()
    assert ran.code == 4
    assert "attached to it and not valid: public.p1_i" in ran.stderr
    assert catalogue(database) == before
    send(database, 'DROP INDEX "public"."i"')
    assert flat.apply().code == 0
    assert flat.run("verify").code == 0


@fault(
    41,
    "a partition that has such an index already",
    does="attaches that one and builds none beside it, and says what a rollback will leave",
)
def test_an_equivalent_index_of_a_partition_becomes_its_part(flat: Project, database: Database) -> None:
    send(database, "CREATE INDEX theirs ON p2 (b)")
    there = oid(database, "theirs")
    ran = flat.apply()
    assert ran.code == 0
    assert tree(database) == {"i": True, "p1_i": True, "theirs": True}
    assert oid(database, "theirs") == there
    assert any("theirs" in note for note in ran.report["notes"])
    back = flat.rollback()
    assert back.code == 4
    assert "attached parts that perfctl did not make would go with it: public.theirs" in back.stderr
    assert tree(database) == {"i": True, "p1_i": True, "theirs": True}


@fault(
    35,
    "a part of a partitioned index was there before, at any level",
    does="refuses to roll the whole back, for that index would go with it, and names it",
)
def test_a_part_that_was_there_before_is_not_dropped_from_any_level(project: Project, database: Database) -> None:
    send(database, *DEEP, "CREATE INDEX theirs ON high_b (b)")
    project.migration("1_a", CREATE)
    assert project.apply().code == 0
    ran = project.rollback()
    assert ran.code == 4
    assert "public.theirs" in ran.stderr
    assert flags(database, "theirs") == GOOD


@fault(41, "a foreign table as a partition", does="refuses the whole and names it")
def test_a_foreign_partition_is_refused(flat: Project, database: Database) -> None:
    send(
        database,
        "CREATE FOREIGN DATA WRAPPER w",
        "CREATE SERVER s FOREIGN DATA WRAPPER w",
        "CREATE FOREIGN TABLE far PARTITION OF t FOR VALUES FROM (200) TO (300) SERVER s",
    )
    before = catalogue(database)
    ran = flat.apply()
    assert ran.code == 4
    assert "foreign tables cannot have a part of it: public.far" in ran.stderr
    assert catalogue(database) == before


# runs that end in the middle


@fault(
    19, "perfctl is killed in the middle of a tree", does="keeps the parts that are good and goes on with the others"
)
def test_a_tree_is_gone_on_with_after_a_kill(project: Project, database: Database) -> None:
    send(database, *DEEP)
    project.migration("1_a", CREATE)
    before = catalogue(database)
    with writer(database, "INSERT INTO low VALUES (1, 1)"):
        process = project.start("apply", "--yes", "--jobs", "1")
        until_it_sends(database, '"low_i"')
        made = {name: oid(database, name) for name in names(database) - {"low_i"}}
        kill(process)
        end_sessions(database)
    assert project.apply().code == 0
    assert tree(database) == dict.fromkeys(("i", "low_i", "high_i", "high_a_i", "high_b_i"), True)
    assert {name: oid(database, name) for name in made} == made
    assert project.rollback().code == 0
    assert catalogue(database) == before


@fault(19, "perfctl is killed in the middle of a tree", does="takes off by rollback what it had made of it")
def test_a_tree_that_was_begun_is_taken_off(project: Project, database: Database) -> None:
    send(database, *DEEP)
    project.migration("1_a", CREATE)
    before = catalogue(database)
    with writer(database, "INSERT INTO low VALUES (1, 1)"):
        process = project.start("apply", "--yes", "--jobs", "1")
        until_it_sends(database, '"low_i"')
        kill(process)
        end_sessions(database)
    assert project.rollback().code == 0
    assert catalogue(database) == before


@fault(36, "one partition is stuck", does="builds the others with --continue, and goes on with that one later")
def test_the_other_partitions_are_built_while_one_is_stuck(project18: Project, database18: Database) -> None:
    send(database18, *FLAT)
    project18.migration("1_a", CREATE)
    with writer(database18, "INSERT INTO p1 VALUES (1, 1)"):
        ran = project18.apply("--continue", "--wait-budget", "300ms", "--blocker-age", "0s")
    assert ran.code == 5
    assert flags(database18, "p2_i") == GOOD
    assert not tree(database18)["i"]
    said = '"public.i": it is not valid and no query uses it, without "public.p1_i"; the next apply builds'
    assert said in ran.report["error"]["message"]
    assert project18.apply().code == 0
    assert tree(database18) == {"i": True, "p1_i": True, "p2_i": True}


# side by side


@fault(11, "several partitions to build", does="builds those of several partitions at once with --jobs")
def test_partitions_are_built_side_by_side(flat: Project, database: Database) -> None:
    with ExitStack() as stack:
        for statement in ("INSERT INTO p1 VALUES (1, 1)", "INSERT INTO p2 VALUES (150, 1)"):
            stack.enter_context(writer(database, statement))
        process = flat.start("apply", "--yes", "--jobs", "2")
        until(lambda: len(phases(database)) == 2)
        under_way = statements(database)
    assert '"p1_i"' in under_way
    assert '"p2_i"' in under_way
    assert process.wait().code == 0
    assert tree(database) == {"i": True, "p1_i": True, "p2_i": True}


# partitions that come and go


@fault(
    42,
    "a new partition appears while the others are built",
    does="has the parent's index first, so that it gets its part by itself, and the whole is valid in the end",
)
def test_a_partition_that_comes_in_the_middle_has_its_part(flat: Project, database: Database) -> None:
    # A writer of a partition has its parent locked too, against those who change the tree.
    with old_snapshot(database):
        process = flat.start("apply", "--yes", "--jobs", "1")
        until_it_sends(database, '"p1_i"')
        send(database, "CREATE TABLE late PARTITION OF t FOR VALUES FROM (200) TO (300)")
    assert process.wait().code == 0
    assert set(tree(database).values()) == {True}
    assert len(tree(database)) == 4
    assert flat.run("verify").code == 0
    assert flat.rollback().code == 0
    assert names(database) == set()


@fault(
    42,
    "a table with rows is attached while the others are built",
    does="leaves that the server gives it its part, and the whole is valid in the end",
)
def test_a_table_that_is_attached_in_the_middle_has_its_part(flat: Project, database: Database) -> None:
    send(database, "CREATE TABLE late (a int, b int)", "INSERT INTO late VALUES (250, 1)")
    # A writer of a partition has its parent locked too, against those who change the tree.
    with old_snapshot(database):
        process = flat.start("apply", "--yes", "--jobs", "1")
        until_it_sends(database, '"p1_i"')
        send(database, "ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (200) TO (300)")
    assert process.wait().code == 0
    assert len(tree(database)) == 4
    assert flat.run("verify").code == 0


@fault(
    42,
    "a partition is detached while the others are built",
    does="leaves its index alone, names it, and ends with a whole that is valid",
)
def test_a_partition_that_is_detached_in_the_middle(flat: Project, database: Database) -> None:
    # A writer of a partition has its parent locked too, against those who change the tree.
    with old_snapshot(database):
        process = flat.start("apply", "--yes", "--jobs", "1")
        until_it_sends(database, '"p1_i"')
        send(database, "ALTER TABLE t DETACH PARTITION p2")
    ran = process.wait()
    assert "p2" in ran.stdout
    if ran.code:
        assert ran.code == 5
        assert "p2" in ran.stderr
        assert flat.apply().code == 0
    assert tree(database) == {"i": True, "p1_i": True}
    assert flat.run("verify").code == 0


@fault(
    42,
    "a partition is dropped while the others are built",
    does="says which one is gone, and the next apply ends with a whole that is valid",
)
def test_a_partition_that_is_dropped_in_the_middle(flat: Project, database: Database) -> None:
    # A writer of a partition has its parent locked too, against those who change the tree.
    with old_snapshot(database):
        process = flat.start("apply", "--yes", "--jobs", "1")
        until_it_sends(database, '"p1_i"')
        send(database, "DROP TABLE p2")
    ran = process.wait()
    assert ran.code == 5
    assert "p2" in ran.stderr
    assert flat.apply().code == 0
    assert tree(database) == {"i": True, "p1_i": True}
    assert flat.run("verify").code == 0


# taking it off


@fault(
    43,
    "dropping a partitioned index locks the whole tree",
    does="lists in a dry run every table that it locks",
)
def test_a_dry_rollback_lists_what_it_locks(project: Project, database: Database) -> None:
    send(database, *DEEP)
    project.migration("1_a", CREATE)
    project.apply()
    before = catalogue(database)
    ran = project.rollback("--dry-run")
    locks = {"public.t", "public.low", "public.high", "public.high_a", "public.high_b"}
    assert set(ran.items["public.i"]["data"]["locks"]) == locks
    assert all(name in ran.items["public.i"]["detail"] for name in locks)
    assert catalogue(database) == before


@fault(
    43,
    "a reader keeps a partitioned index from being dropped",
    does="waits in short tries, lets writers through between them, and gives up with nothing changed",
)
def test_a_reader_blocks_the_rollback_and_nobody_queues_behind_it_for_long(flat: Project, database: Database) -> None:
    flat.apply()
    before = catalogue(database)
    with database.connect(autocommit=False) as reader, database.connect() as application:
        reader.execute("SELECT FROM p1 LIMIT 1")
        process = flat.start("rollback", "--yes", "--wait-budget", "3s")
        until(lambda: at_work(database))
        slowest = 0.0
        while process.popen.poll() is None:
            row = application.execute(
                "WITH w AS (INSERT INTO t VALUES (1, 1) RETURNING 1)"
                " SELECT count(*), extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 FROM w"
            ).fetchone()
            assert row is not None
            slowest = max(slowest, row[1])
        ran = process.wait()
        pid = reader.info.backend_pid
        reader.rollback()
    assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
    assert f"pid {pid}" in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert catalogue(database) == before
    # Each try is given up after a second at most.
    assert slowest < 2.5
    assert flat.rollback().code == 0
    assert names(database) == set()


@fault(
    43,
    "Ctrl-C while a partitioned index cannot be dropped for a reader",
    does="leaves the index whole, and no line of the journal that claims to be at work",
)
def test_ctrl_c_between_two_tries_closes_the_journals_line(flat: Project, database: Database) -> None:
    flat.apply()
    before = catalogue(database)
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM p1 LIMIT 1")
        run = Heard(flat.start("rollback", "--yes", form="ndjson"))
        run.until("retry")
        run.process.popen.send_signal(signal.SIGINT)
        run.end()
    assert run.process.popen.returncode == 130
    assert catalogue(database) == before
    assert journal(database, "state")[-1] == ("failed",)
    # What somebody else does under the name is not taken for the run's.
    assert flat.rollback().code == 0


@fault(
    41,
    "perfctl is killed when it has made the whole and not written it down",
    does="takes the whole for its own in the next run, and drops it at a stroke with its parts",
)
def test_a_whole_that_was_taken_up_goes_with_its_parts(flat: Project, database: Database) -> None:
    flat.apply()
    send(database, "UPDATE perfctl.step SET state = 'started', ended_at = NULL WHERE name = 'i'")
    ran = flat.apply()
    assert (ran.code, ran.statuses["public.i"]) == (0, "changed")
    assert flat.rollback().code == 0
    assert names(database) == set()


@fault(
    43,
    "a reader keeps a part from being attached",
    does="waits in short tries until the reader has ended",
)
def test_an_attach_waits_for_whoever_is_in_its_way(flat: Project, database: Database) -> None:
    send(database, "CREATE INDEX i ON ONLY t (b)", "CREATE INDEX p1_i ON p1 (b)", "CREATE INDEX p2_i ON p2 (b)")
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE p1 IN SHARE ROW EXCLUSIVE MODE")
        ran = flat.apply("--wait-budget", "300ms")
        pid = other.info.backend_pid
        other.rollback()
    assert ran.code in (5, 6)
    assert f"pid {pid}" in ran.stderr
    assert flat.apply().code == 0
    assert set(tree(database).values()) == {True}
