"""--offline: plain builds for when nobody writes, and what becomes of whoever does."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.faults.declare import fault
from tests.fix_builds import phases, statements
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_servers import Database
from tests.fix_sessions import send, table, writer

GOOD = (True, True, True)
#: an index on it is being built for as long as a test holds this lock
GATE = 4711
THREE = (
    "CREATE INDEX CONCURRENTLY i ON t (gated(a)); CREATE INDEX CONCURRENTLY k ON t (gated(b));"
    " CREATE INDEX CONCURRENTLY m ON t (a, b);"
)


@pytest.fixture
def gated(project: Project, database: Database) -> Project:
    """A table t and a migration with two indexes whose builds come to a gate."""
    table(database)
    send(
        database,
        # A plain build is sent under a short lock_timeout, which is meant for its table's lock.
        "CREATE FUNCTION gated(int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET lock_timeout = 0 AS"
        f" $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared({GATE}); RETURN $1; END $$",
    )
    project.migration("1_a", THREE)
    return project


def closed(database: Database) -> psycopg.Connection[tuple[object, ...]]:
    """A session that holds the gate until it is closed."""
    connection = database.connect()
    connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
    return connection


def building(database: Database) -> int:
    """How many builds have come to the gate."""
    query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    with database.connect() as connection:
        return connection.execute(query, [GATE]).rowcount


# somebody writes


@fault(13, "somebody writes when --offline begins", does="refuses, names the session, and changes nothing")
def test_a_writer_keeps_an_offline_run_from_beginning(gated: Project, database: Database) -> None:
    before = catalogue(database)
    with writer(database) as web:
        ran = gated.apply("--offline")
        assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
        assert f"pid {web.info.backend_pid} (postgres, web" in ran.stderr
        assert "nothing was changed" in ran.stderr
    assert (catalogue(database), journal(database)) == (before, [])


@fault(14, "a prepared transaction has written when --offline begins", does="refuses and names it")
def test_a_prepared_transaction_keeps_an_offline_run_from_beginning(gated: Project, database: Database) -> None:
    send(database, "BEGIN; INSERT INTO t VALUES (-1, -1); PREPARE TRANSACTION 'forgotten'")
    ran = gated.apply("--offline")
    send(database, "ROLLBACK PREPARED 'forgotten'")
    assert ran.code == 4
    assert "prepared transaction forgotten" in ran.stderr
    assert names(database) == set()


@fault(
    13,
    "somebody writes in short transactions when --offline begins",
    does="refuses and names the table, or a write in the act",
)
def test_a_busy_writer_keeps_an_offline_run_from_beginning(gated: Project, database: Database) -> None:
    # As the planner sees it, its builds take minutes.
    send(database, "UPDATE pg_class SET reltuples = 1e9 WHERE oid = 't'::regclass")
    ended = threading.Event()
    pids: list[int] = []

    def write() -> None:
        with database.connect() as web:
            pids.append(web.info.backend_pid)
            while not ended.wait(0.05):
                web.execute("UPDATE t SET b = b WHERE a = 1")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        ran = gated.apply("--offline")
    finally:
        ended.set()
        thread.join()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    # One of the short writes may be open at the very instant of the look: then its session is named.
    in_the_act = f"--offline: somebody writes here: pid {pids[0]} (postgres, active"
    assert any(
        each in ran.stderr for each in ('--offline: somebody writes to "public.t" in short transactions', in_the_act)
    )
    assert "nothing was changed" in ran.stderr
    assert (names(database), journal(database)) == (set(), [])


@fault(13, "a load ends just before --offline begins", does="builds, whether its session is still there or not")
@pytest.mark.parametrize("stays", [False, True])
def test_a_load_that_has_ended_keeps_nothing(gated: Project, database: Database, stays: bool) -> None:
    send(database, "UPDATE pg_class SET reltuples = 1e9 WHERE oid = 't'::regclass")
    with database.connect() as load:
        for number in range(1000, 1005):
            load.execute("INSERT INTO t VALUES (%s, 1)", [number])
        if not stays:
            load.close()
        assert gated.apply("--offline").code == 0
    assert {flags(database, name) for name in "ikm"} == {GOOD}


@fault(13, "somebody writes when --offline begins", does="names the session once, however many tables it has written")
def test_a_writer_of_two_tables_is_named_once(gated: Project, database: Database) -> None:
    table(database, "o")
    gated.migration("2_b", "CREATE INDEX CONCURRENTLY j ON o (a);")
    with writer(database) as web:
        web.execute("INSERT INTO o VALUES (-1, -1)")
        ran = gated.apply("--offline")
        assert ran.report["error"]["message"].count(f"pid {web.info.backend_pid} ") == 1


@fault(27, "keys repeat in a unique build with --offline", does="names them all, as a concurrent build does")
@pytest.mark.parametrize("definition", ["u ON t (a)", "u ON t ((a + 1)) WHERE b >= 0", "u ON t (a) INCLUDE (b)"])
def test_the_keys_that_repeat_are_named(project: Project, database: Database, definition: str) -> None:
    table(database)
    send(database, "INSERT INTO t VALUES (42, 0), (42, 1), (43, 1)")
    before = catalogue(database)
    project.migration("1_a", f"CREATE UNIQUE INDEX CONCURRENTLY {definition};")
    ran = project.apply("--offline")
    plus = 1 if "+" in definition else 0
    assert f"keys that repeat: ({42 + plus}) 3 times, ({43 + plus}) 2 times" in ran.stderr
    assert (ran.code, catalogue(database)) == (4, before)


@fault(13, "somebody reads when --offline begins", does="builds beside the reader")
def test_a_reader_keeps_nothing(gated: Project, database: Database) -> None:
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        assert gated.apply("--offline").code == 0
        reader.rollback()
    assert {flags(database, name) for name in "ikm"} == {GOOD}


@fault(
    13,
    "somebody begins to write in the middle of an --offline build",
    does="gives way after two seconds, says who had to wait, and leaves nothing of the build",
)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_writer_that_comes_in_the_middle_is_let_through(gated: Project, database: Database, jobs: str) -> None:
    before = catalogue(database)
    gate = closed(database)
    process = gated.start("apply", "--yes", "--offline", "--jobs", jobs, "--only", "i", "--only", "k")
    until(lambda: building(database) == int(jobs))
    with database.connect(application_name="web", options="-c statement_timeout=60s") as web:
        # The gate stays closed: it can only go through when the builds give way.
        web.execute("INSERT INTO t VALUES (1000, 1)")
        pid = web.info.backend_pid
        ran = process.wait()
    gate.close()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert f"--offline: somebody writes here and had to wait: pid {pid} (postgres, web" in ran.stderr
    assert "leave --offline out" in ran.report["error"]["hint"]
    assert catalogue(database) == before


@fault(
    13,
    "somebody begins to write in the middle of an --offline build",
    does="keeps what was built before, exits 5, and goes on at the next run",
)
def test_what_was_built_before_the_writer_came_stays(gated: Project, database: Database) -> None:
    gated.migration("1_a", "CREATE INDEX CONCURRENTLY m ON t (a, b); CREATE INDEX CONCURRENTLY i ON t (gated(a));")
    gate = closed(database)
    process = gated.start("apply", "--yes", "--offline", "--jobs", "1")
    until(lambda: building(database) == 1)
    with database.connect() as web:
        web.execute("INSERT INTO t VALUES (1000, 1)")
    ran = process.wait()
    gate.close()
    assert ran.code == 5
    assert names(database) == {"m"}
    assert gated.apply("--offline").code == 0
    assert flags(database, "i") == GOOD


@fault(
    13,
    "a reader comes in the middle of an --offline build",
    does="lets it read, and goes on",
)
def test_a_reader_that_comes_in_the_middle_does_not_wait(gated: Project, database: Database) -> None:
    gate = closed(database)
    process = gated.start("apply", "--yes", "--offline", "--jobs", "1")
    until(lambda: building(database) == 1)
    with database.connect() as web:
        assert web.execute("SELECT FROM t WHERE a = 1").rowcount == 1
    gate.close()
    assert process.wait().code == 0


# side by side


@fault(11, "several indexes of one table with --offline", does="builds as many at once as --jobs says")
def test_plain_builds_of_one_table_run_side_by_side(gated: Project, database: Database) -> None:
    gate = closed(database)
    process = gated.start("apply", "--yes", "--offline", "--jobs", "2")
    until(lambda: building(database) == 2)
    assert len(phases(database)) == 2
    assert "CONCURRENTLY" not in statements(database)
    gate.close()
    assert process.wait().code == 0
    assert {flags(database, name) for name in "ikm"} == {GOOD}
    assert gated.run("verify").code == 0
    assert gated.rollback().code == 0
    assert names(database) == set()
