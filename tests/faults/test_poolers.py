"""A pooler between perfctl and the server: refused where it would lead settings and locks astray, else worked with."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.declare import fault
from tests.fix_builds import OLD_SNAPSHOTS, kill, oid
from tests.fix_catalogue import catalogue, flags, names
from tests.fix_perfctl import Process, Project, until
from tests.fix_pgbouncer import PgBouncer, pgbouncer
from tests.fix_phases import SCANNING, SLOW, builders, elsewhere, held_at, slow_function, until_idle
from tests.fix_servers import Database
from tests.fix_sessions import at_work, old_snapshot, send, table

GOOD = (True, True, True)
SEND = ("apply", "--yes", "--blocker-age", "1h")
#: what a session of its own may set, and perfctl does
SETTINGS = ("search_path", "statement_timeout", "lock_timeout", "default_transaction_read_only", "application_name")


#: as slow on another table: neither is done before the other one is begun
OTHER = "CREATE INDEX CONCURRENTLY j ON o (slow(a));"


@pytest.fixture
def wanted(project: Project, database: Database) -> Project:
    """Tables t and o, and migrations that want an index on each."""
    table(database)
    table(database, "o")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.migration("2_b", "CREATE INDEX CONCURRENTLY j ON o (a);")
    return project


@pytest.fixture
def by_transaction(database: Database) -> Iterator[PgBouncer]:
    """A pooler that lends one server connection for a transaction at a time."""
    with pgbouncer(database, "transaction", pool_size=1) as bouncer:
        yield bouncer


def settings(connection: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """What the session behind a connection has set, and which one it is."""
    query = "SELECT pg_backend_pid(), name, setting FROM pg_settings WHERE name = ANY(%s) ORDER BY name"
    return connection.execute(query, [list(SETTINGS)]).fetchall()


@fault(48, "a pooler in transaction mode", does="refuses, asks for a direct connection, and leaves nothing behind")
@pytest.mark.parametrize("command", ["apply", "rollback", "plan", "verify", "status"])
def test_a_pooler_that_lends_by_transaction_is_refused(
    wanted: Project, database: Database, by_transaction: PgBouncer, command: str
) -> None:
    before = catalogue(database)
    with psycopg.connect(by_transaction.dsn, autocommit=True, application_name="app") as app:
        app.execute("SET statement_timeout = '7s'")
        had = settings(app)
        ran = elsewhere(wanted, by_transaction.dsn).run(
            command, *(["--yes"] if command in ("apply", "rollback") else [])
        )
        assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
        assert "a pooler that lends a connection for a transaction at a time" in ran.stderr
        assert "direct connection" in ran.report["error"]["hint"]
        # The pool has one connection: it is the very one that perfctl was lent.
        assert settings(app) == had
    assert (at_work(database), catalogue(database)) == (False, before)


@fault(48, "a pooler in transaction mode with many connections", does="refuses it too")
def test_a_pooler_with_connections_to_spare_is_refused_too(wanted: Project, database: Database) -> None:
    with pgbouncer(database, "transaction", pool_size=20) as bouncer:
        apps = [psycopg.connect(bouncer.dsn) for _ in range(3)]
        for app in apps:
            app.execute("SELECT 1")
        for app in apps:
            app.rollback()
        ran = elsewhere(wanted, bouncer.dsn).apply()
        for app in apps:
            app.close()
    assert (ran.code, at_work(database), names(database)) == (4, False, set())


@fault(48, "a pooler in transaction mode whose clients are busy", does="refuses it too")
def test_a_busy_pooler_is_refused_too(wanted: Project, database: Database) -> None:
    with (
        pgbouncer(database, "transaction", pool_size=3) as bouncer,
        psycopg.connect(bouncer.dsn) as one,
        psycopg.connect(bouncer.dsn) as other,
    ):
        # Each open transaction keeps the connection that it was lent: one is left for perfctl.
        one.execute("SELECT 1")
        other.execute("SELECT 1")
        ran = elsewhere(wanted, bouncer.dsn).apply()
    assert (ran.code, at_work(database), names(database)) == (4, False, set())


@fault(48, "a pooler in session mode", does="works: apply, verify and rollback, side by side too")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_pooler_that_lends_by_session_is_worked_with(wanted: Project, database: Database, jobs: str) -> None:
    before = catalogue(database)
    with pgbouncer(database, "session") as bouncer:
        far = elsewhere(wanted, bouncer.dsn)
        ran = far.apply("--jobs", jobs)
        assert (ran.code, ran.statuses) == (0, {"public.i": "changed", "public.j": "changed"})
        assert (far.run("verify").code, flags(database, "i"), flags(database, "j")) == (0, GOOD, GOOD)
        with psycopg.connect(bouncer.dsn, autocommit=True) as app:
            # What perfctl had set and locked went with its session, although the connection lives on.
            row = app.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')").fetchone()
            assert row == ("0", "0")
        assert not at_work(database)
        assert far.rollback("--jobs", jobs).code == 0
    assert catalogue(database) == before


@fault(
    48,
    "a build through a pooler in session mode waits too long",
    does="cancels it in its own session, by its own number",
)
def test_a_build_through_a_pooler_is_cancelled(wanted: Project, database: Database) -> None:
    before = catalogue(database)
    with pgbouncer(database, "session") as bouncer, old_snapshot(database) as blocker:
        ran = elsewhere(wanted, bouncer.dsn).apply("--wait-budget", "300ms", "--blocker-age", "1h")
        assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
        assert f"pid {blocker.info.backend_pid}" in ran.stderr
        assert catalogue(database) == before


@fault(19, "perfctl is killed while its build runs", does="adopts the build that went on behind a pooler")
def test_a_build_that_outlives_its_perfctl_behind_a_pooler(wanted: Project, database: Database) -> None:
    slow_function(database)
    wanted.migration("1_a", SLOW)
    with pgbouncer(database, "session") as bouncer:
        far = elsewhere(wanted, bouncer.dsn)
        with held_at(database, OLD_SNAPSHOTS, lambda: far.start(*SEND)) as process:
            made = oid(database, "i")
            kill(process)
            # The pooler cuts a connection whose client has left in the middle of a statement; the server goes on.
            until(lambda: len(builders(database)) == 1)
        until_idle(database)
        assert far.apply().code == 0
    assert (oid(database, "i"), flags(database, "i")) == (made, GOOD)


@fault(48, "a pool too small for a second connection", does="refuses, and says how many it needs")
def test_a_pool_of_one_is_refused_and_named(wanted: Project, database: Database) -> None:
    with pgbouncer(database, "session", pool_size=1) as bouncer:
        ran = elsewhere(wanted, bouncer.dsn).apply()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert "gave no further connection" in ran.stderr
    assert "perfctl needs one and one more for each job" in ran.report["error"]["hint"]
    assert (at_work(database), names(database)) == (False, set())


@fault(48, "a pool too small for all jobs", does="builds with as many at a time as it gets, and says so")
def test_a_pool_too_small_for_its_jobs_slows_the_run_down(wanted: Project, database: Database) -> None:
    slow_function(database)
    wanted.migration("1_a", SLOW)
    wanted.migration("2_b", OTHER)
    with pgbouncer(database, "session", pool_size=2) as bouncer:
        far = elsewhere(wanted, bouncer.dsn)
        with held_at(database, SCANNING, lambda: far.start(*SEND, "--jobs", "2", form="ndjson")) as process:
            # The pool of two has been lent out; the second build has to wait for the first one's end.
            waiting = said(process, "waiting")
        ran = process.wait()
    assert "no connection for more than 1 at a time" in waiting
    assert (ran.code, flags(database, "i"), flags(database, "j")) == (0, GOOD, GOOD)


def said(process: Process, kind: str) -> str:
    """What the next event of a kind says."""
    assert process.popen.stdout is not None
    for line in process.popen.stdout:
        event = json.loads(line)
        if event["event"] == kind:
            return str(event["detail"])
    pytest.fail(f"no event {kind}")


@fault(48, "a pool whose connections other clients have", does="gives up before anything is changed, and says why")
def test_a_pool_that_others_have_lent_out_is_named(wanted: Project, database: Database) -> None:
    with pgbouncer(database, "session", pool_size=2) as bouncer, psycopg.connect(bouncer.dsn) as app:
        app.execute("SELECT 1")
        ran = elsewhere(wanted, bouncer.dsn).apply("--jobs", "1")
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert "gave no further connection" in ran.stderr
    assert names(database) == set()


@fault(48, "the server has no connection left for a second job", does="goes on with the job that it has")
def test_a_role_with_few_connections_slows_the_run_down(wanted: Project, database: Database) -> None:
    slow_function(database)
    wanted.migration("1_a", SLOW)
    wanted.migration("2_b", OTHER)
    send(
        database, "CREATE ROLE few LOGIN CONNECTION LIMIT 2", "ALTER TABLE t OWNER TO few", "ALTER TABLE o OWNER TO few"
    )
    send(database, "GRANT CREATE ON SCHEMA public TO few", f"GRANT CREATE ON DATABASE {database.name} TO few")
    try:
        few = elsewhere(wanted, database.server.dsn(database.name, "few"))
        with held_at(database, SCANNING, lambda: few.start(*SEND, "--jobs", "2", form="ndjson")) as process:
            waiting = said(process, "waiting")
        ran = process.wait()
        assert "no connection for more than 1 at a time" in waiting
        assert "too many connections for role" in waiting
        assert (ran.code, flags(database, "i"), flags(database, "j")) == (0, GOOD, GOOD)
    finally:
        send(database, "DROP OWNED BY few CASCADE", "DROP ROLE few")
