"""What else has to live on the server: other builds, a disk, standbys; and the lanes of one run among themselves."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from perfctl.embedded import PostgresServer, start_postgres
from tests.faults.declare import fault
from tests.faults.listen import meanwhile, until_it_has_waited, until_it_holds_back
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_disk import small_disk
from tests.fix_perfctl import Project, new_project, until
from tests.fix_replica import caught_up, pause_replay, replicated, resume_replay
from tests.fix_servers import Database, installed
from tests.fix_sessions import old_snapshot, send, table

GOOD = (True, True, True)
ONE = "CREATE INDEX CONCURRENTLY i ON t (a);"
#: every transaction is old, and none is waited for long
BRIEFLY = ("--blocker-age", "0s", "--wait-budget", "300ms")


def begun(database: Database) -> list[str]:
    """The names of what was begun, in order."""
    return [name for (name,) in journal(database, "name")]


# side by side

STALLS = "a partial or expression index that is built elsewhere stalls every other build's last wait"
TWO_AT_ONCE = "two builds at once on one table deadlock"


@fault(11, STALLS, does="builds plain indexes first, partial and expression ones last")
def test_partial_and_expression_indexes_come_last(project: Project, database: Database) -> None:
    table(database)
    table(database, "o")
    project.migration(
        "1_a",
        "CREATE INDEX CONCURRENTLY partial ON t (a) WHERE b = 1;\n"
        "CREATE INDEX CONCURRENTLY expression ON o ((a + b));\n"
        "CREATE INDEX CONCURRENTLY plain ON t (b);\n"
        "CREATE INDEX CONCURRENTLY other ON o (b);\n",
    )
    assert project.apply("--jobs", "2").code == 0
    assert set(begun(database)[:2]) == {"plain", "other"}
    assert names(database) == {"plain", "other", "partial", "expression"}


@fault(11, STALLS, does="waits before its own build for somebody's that would stall it, and names that")
def test_somebodys_expression_build_is_waited_for(project: Project, database: Database) -> None:
    table(database)
    table(database, "o")
    # It takes as long as the test wants.
    send(
        database,
        "CREATE FUNCTION slow(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN a; END $$",
    )
    project.migration("1_a", ONE)
    before = names(database)
    with database.connect() as gate, ThreadPoolExecutor() as pool:
        gate.execute("SELECT pg_advisory_lock(7)")
        build = pool.submit(send, database, "CREATE INDEX CONCURRENTLY e ON o (slow(a))")
        until(lambda: flags(database, "e") is not None and build_waits(database))
        ran = project.apply(*BRIEFLY)
        gate.execute("SELECT pg_advisory_unlock(7)")
        build.result(30)
    assert (ran.code, journal(database)) == (6, [])
    assert "CREATE INDEX CONCURRENTLY e ON o (slow(a))" in ran.stderr
    assert project.apply().code == 0
    assert names(database) == {*before, "e", "i"}


def build_waits(database: Database) -> bool:
    """Whether the build of an expression has come to its first row."""
    with database.connect() as connection:
        query = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
            " AND query LIKE 'CREATE INDEX%'"
        )
        return connection.execute(query).rowcount > 0


@fault(11, TWO_AT_ONCE, does="builds side by side on different tables, and never two at once on one")
def test_a_table_has_one_build_at_a_time(project: Project, database: Database) -> None:
    table(database)
    table(database, "o")
    project.migration(
        "1_a",
        "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY k ON t (b);\n"
        "CREATE INDEX CONCURRENTLY j ON o (a); CREATE INDEX CONCURRENTLY l ON o (b);\n",
    )
    query = "SELECT relid FROM pg_stat_progress_create_index WHERE datname = current_database()"
    with old_snapshot(database) as blocker, meanwhile(project, "--blocker-age", "1h", "--jobs", "3") as ran:
        with database.connect() as connection:
            until(lambda: ran.done() or connection.execute(query).rowcount == 2)
            # Longer than perfctl takes for its next look: the third lane has two more to choose from.
            until_it_has_waited(database, 1.5, ran)
            under_way = connection.execute(query).fetchall()
            assert len(set(under_way)) == len(under_way) == 2
            assert len(journal(database)) == 2
            blocker.rollback()
            most = 0
            while not ran.done():
                most = max([most, *Counter(connection.execute(query)).values()])
        assert most <= 1
    assert ran.result().code == 0
    assert names(database) == {"i", "j", "k", "l"}


@fault(27, "a build fails while others are under way", does="finishes and keeps what is under way, begins nothing more")
def test_a_failure_in_one_lane_leaves_the_other_ones_build(project: Project, database: Database) -> None:
    table(database)
    table(database, "o")
    send(database, "INSERT INTO t VALUES (1, 1)")
    project.migration(
        "1_a",
        "CREATE UNIQUE INDEX CONCURRENTLY u ON t (a);\n"
        "CREATE INDEX CONCURRENTLY j ON o (a);\nCREATE INDEX CONCURRENTLY k ON o (b);\n",
    )
    with old_snapshot(database) as blocker, meanwhile(project, "--blocker-age", "1h", "--jobs", "2") as ran:
        until(lambda: ran.done() or ("u", "failed") in journal(database, "name, state"))
        assert flags(database, "j") == (False, True, True)
        blocker.rollback()
    assert (ran.result().code, ran.result().statuses) == (
        5,
        {"public.u": "failed", "public.j": "changed", "public.k": "skipped"},
    )
    assert "not reached" in ran.result().items["public.k"]["detail"]
    assert "(a)=(1)" in ran.result().stderr
    assert (names(database), flags(database, "j")) == ({"j"}, GOOD)


# a disk

FULL = "the disk is full before the build is done"


@fault(50, FULL, does="estimates before it builds; what does not fit, or leaves too little, is not begun")
def test_a_build_that_leaves_too_little_free_is_not_begun(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", ONE)
    before = catalogue(database)
    ran = project.apply("--min-free", "100000TB", "--wait-budget", "300ms")
    assert (ran.code, ran.statuses) == (6, {"public.i": "failed"})
    assert "free on the server's disk; the build may take " in ran.stderr
    assert "have to stay free" in ran.stderr
    assert "lower --min-free" in ran.report["error"]["hint"]
    assert (catalogue(database), journal(database)) == (before, [])


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A disk for a whole server."""
    with small_disk(240) as folder:
        yield folder


@pytest.fixture(scope="module")
def small_server18(disk: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL 18 with all that it has on that disk."""
    settings = {"max_wal_size": "48MB", "min_wal_size": "32MB", "autovacuum": "off"}
    with start_postgres(installed(18), base_dir=disk, settings=settings) as server:
        yield server


@pytest.fixture
def on_small_disk(small_server18: PostgresServer, tmp_path: Path) -> Iterator[tuple[Project, Database]]:
    """A project for a database there, with a table of 50000 rows."""
    database = Database(small_server18, "postgres")
    table(database, rows=50_000)
    send(database, "ANALYZE t")
    yield new_project(tmp_path, database), database
    send(database, "DROP TABLE t", "DROP SCHEMA IF EXISTS perfctl CASCADE")


def free(disk: Path) -> int:
    """Bytes free."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@contextmanager
def only_free(disk: Path, size: int) -> Iterator[Path]:
    """A file that takes all but so many bytes of the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        left = free(disk) - size
        assert left > 0
        while left > 0:
            left -= file.write(b"\0" * min(left, 1 << 20))
    try:
        yield ballast
    finally:
        ballast.unlink(missing_ok=True)


@fault(50, FULL, does="estimates before it builds; what does not fit, or leaves too little, is not begun")
def test_a_build_that_does_not_fit_waits_until_there_is_room(
    on_small_disk: tuple[Project, Database], disk: Path
) -> None:
    project, database = on_small_disk
    project.migration("1_a", ONE)
    # The estimate is some 1.3 MB, and a sort may take as much again.
    with only_free(disk, 2_000_000) as ballast:
        busy = project.apply("--wait-budget", "300ms")
        assert (busy.code, names(database), journal(database)) == (6, set(), [])
        assert "free on the server's disk; the build may take " in busy.stderr
        with meanwhile(project) as ran:
            until_it_holds_back(database, ran)
            assert not ran.done()
            ballast.unlink()
        assert ran.result().code == 0
    assert flags(database, "i") == GOOD


@fault(50, FULL, does="when the estimate was too low drops the leftover, gives the space back, and reports the cause")
def test_a_build_that_runs_out_of_disk_leaves_nothing(on_small_disk: tuple[Project, Database], disk: Path) -> None:
    project, database = on_small_disk
    # A key is hundreds of times what anybody would guess, and hardly to be compressed.
    send(
        database,
        "CREATE OR REPLACE FUNCTION noise(a int) RETURNS text IMMUTABLE LANGUAGE sql AS"
        " $$ SELECT string_agg(md5((a * 1000 + i)::text), '') FROM generate_series(1, 50) AS i $$",
    )
    # Little memory: the sort goes to the disk, and that is full before any of the index is there.
    project.migration("1_a", "SET maintenance_work_mem = '1MB';\nCREATE INDEX CONCURRENTLY i ON t (noise(a));")
    send(database, "CHECKPOINT")
    before = catalogue(database)
    with only_free(disk, 24 << 20):
        at_first = free(disk)
        ran = project.apply()
        assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
        assert "No space left on device; nothing was changed" in ran.stderr
        assert (catalogue(database), journal(database, "name, state")) == (before, [("i", "failed")])
        assert at_first - free(disk) < 4 << 20


# standbys

LAGS = "a standby falls behind what the builds write"


@pytest.fixture(scope="module")
def pair18() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary of 18, and a standby that says often how far it is."""
    with replicated(18) as (primary, standby):
        with Database(standby, "postgres").connect() as connection:
            connection.execute("ALTER SYSTEM SET wal_receiver_status_interval = '1s'")
            connection.execute("SELECT pg_reload_conf()")
        yield primary, standby


@pytest.fixture
def replicated_project(
    pair18: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> Iterator[tuple[Project, Database]]:
    """A project for the primary, with two indexes to come on a table that the standby has too."""
    primary, standby = pair18
    database = Database(primary, "postgres")
    table(database)
    project = new_project(tmp_path, database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY j ON t (b);")
    until(lambda: caught_up(primary, standby))
    yield project, database
    resume_replay(standby)
    send(database, "DROP TABLE t", "DROP SCHEMA IF EXISTS perfctl CASCADE")


def lags(database: Database) -> bool:
    """Whether the standby is seen to be late."""
    with database.connect() as connection:
        query = "SELECT FROM pg_stat_replication WHERE replay_lag > '200ms'"
        return connection.execute(query).rowcount > 0


def fall_behind(standby: PostgresServer, database: Database) -> None:
    """Have the standby seen to be late."""
    pause_replay(standby)
    send(database, "INSERT INTO t SELECT 0, 0 FROM generate_series(1, 1000)")
    until(lambda: lags(database))


@fault(51, LAGS, does="pauses between two builds, names the replica, and goes on when it has caught up")
def test_a_standby_that_lags_is_waited_for_between_two_builds(
    replicated_project: tuple[Project, Database], pair18: tuple[PostgresServer, PostgresServer]
) -> None:
    project, database = replicated_project
    arguments = ("--max-replica-lag", "100ms", "--blocker-age", "1h", "--jobs", "1")
    with old_snapshot(database) as blocker, meanwhile(project, *arguments) as ran:
        until_it_has_waited(database, 0.0, ran)
        fall_behind(pair18[1], database)
        blocker.rollback()
        until(lambda: ran.done() or flags(database, "i") == GOOD)
        until_it_holds_back(database, ran)
        assert not ran.done()
        assert begun(database) == ["i"]
        resume_replay(pair18[1])
    assert ran.result().code == 0
    assert "replica walreceiver (local) is " in ran.result().stderr
    assert "behind, more than 100 ms" in ran.result().stderr
    assert names(database) == {"i", "j"}


@fault(51, LAGS, does="gives up when the budget is spent; 0s takes no account of replicas")
def test_a_standby_that_stays_behind_is_busy_unless_nobody_cares(
    replicated_project: tuple[Project, Database], pair18: tuple[PostgresServer, PostgresServer]
) -> None:
    project, database = replicated_project
    before = catalogue(database)
    fall_behind(pair18[1], database)
    ran = project.apply("--max-replica-lag", "100ms", "--wait-budget", "300ms")
    assert (ran.code, catalogue(database), journal(database)) == (6, before, [])
    assert "replica walreceiver (local) is " in ran.stderr
    *_, option, value = ran.report["error"]["hint"].split()
    # The cure that it names is one.
    assert project.apply(option, value).code == 0
    assert names(database) == {"i", "j"}


@fault(
    52,
    "the drop of an index takes an ACCESS EXCLUSIVE lock on standbys that serve reads",
    does="names the replicas before it drops",
)
def test_a_rollback_says_what_it_does_to_standbys(replicated_project: tuple[Project, Database]) -> None:
    project, database = replicated_project
    project.apply()
    line = "replica walreceiver (local): DROP INDEX CONCURRENTLY replays an ACCESS EXCLUSIVE lock there"
    assert any(line in note for note in project.rollback("--dry-run").report["notes"])
    ran = project.rollback()
    assert any(line in note for note in ran.report["notes"])
    assert (ran.code, names(database)) == (0, set())


@fault(
    52,
    "the drop of an index takes an ACCESS EXCLUSIVE lock on standbys that serve reads",
    does="names the replicas before it drops",
)
def test_without_standbys_a_rollback_says_nothing_of_them(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", ONE)
    project.apply()
    assert not any("replica" in note for note in project.rollback().report["notes"])
