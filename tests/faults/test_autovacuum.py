"""Autovacuum and a chain of builds on one table: who lets whom go first, and who is never sent away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perfctl.embedded import start_postgres
from tests.faults.declare import fault
from tests.faults.listen import Heard, heard, meanwhile, order, until_it_has_waited
from tests.fix_catalogue import flags, names
from tests.fix_perfctl import Project, new_project, until
from tests.fix_servers import SETTINGS, Cluster, Database, installed
from tests.fix_sessions import old_snapshot, send, table

GOOD = (True, True, True)
#: it comes round often, and has nothing to do on tables of which a test does not say otherwise
BUSY = {
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_threshold": "1000000",
    "autovacuum_vacuum_insert_threshold": "-1",
    "autovacuum_analyze_threshold": "1000000",
    "synchronous_commit": "off",
}
#: a page takes a tenth of a second: longer than any test
SLOWLY = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
EAGERLY = "autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0"
BOTH = "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY j ON o (a);"
#: rows of a table of some hundred pages
MANY = 60_000


@pytest.fixture(scope="module")
def busy_server18() -> Iterator[Cluster]:
    """A PostgreSQL 18 whose autovacuum comes round every second."""
    with start_postgres(installed(18), settings={**SETTINGS, **BUSY}) as server:
        yield Cluster(server)


@pytest.fixture
def database18(busy_server18: Cluster) -> Iterator[Database]:
    """A fresh database there."""
    with busy_server18.fresh() as fresh:
        yield fresh


@pytest.fixture
def project18(tmp_path: Path, database18: Database) -> Project:
    """A project for it."""
    return new_project(tmp_path, database18)


def autovacuums(database: Database) -> list[tuple[int, str]]:
    """The autovacuums at work in a database: pid, and what each does."""
    query = (
        "SELECT a.pid, a.query FROM pg_stat_activity AS a JOIN pg_stat_progress_vacuum AS v USING (pid)"
        " WHERE a.datname = current_database() AND a.backend_type = 'autovacuum worker'"
        " AND v.relid = to_regclass('t')"
    )
    with database.connect() as connection:
        return connection.execute(query).fetchall()


def vacuumed(database: Database) -> int:
    """How often autovacuum has come to its end on t."""
    with database.connect() as connection:
        query = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 't'"
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def slow_autovacuum(database: Database) -> int:
    """Have an autovacuum work on t, longer than the test; its pid."""
    table(database, rows=MANY)
    send(database, f"ALTER TABLE t SET ({SLOWLY}, {EAGERLY})", "DELETE FROM t WHERE a % 2 = 0")
    until(lambda: autovacuums(database))
    return autovacuums(database)[0][0]


# an autovacuum that yields

YIELDS = "an autovacuum holds the table's lock"


@fault(15, YIELDS, does="waits a little longer than deadlock_timeout, after which the autovacuum yields, and builds")
def test_an_autovacuum_yields_to_the_build(project18: Project, database18: Database) -> None:
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    slow_autovacuum(database18)
    ran = project18.apply("--wait-budget", "30s")
    assert (ran.code, flags(database18, "i")) == (0, GOOD)
    assert "canceling autovacuum task" in database18.server.log_tail(200)
    assert vacuumed(database18) == 0


@fault(15, YIELDS, does="with a lock timeout under deadlock_timeout tries again, then is busy and names the autovacuum")
def test_an_autovacuum_does_not_yield_to_a_lock_timeout_that_is_too_short(
    project18: Project, database18: Database
) -> None:
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    pid = slow_autovacuum(database18)
    ran = project18.apply("--lock-timeout", "100ms", "--wait-budget", "1s")
    assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
    assert "the table's lock was not got in" in ran.stderr
    assert f"held by pid {pid} (" in ran.stderr
    assert "autovacuum: VACUUM public.t" in ran.stderr
    # It was tried more than once, and nothing was begun.
    assert ran.stderr.count("retry: ") >= 1
    assert names(database18) == set()
    assert [found for found, _ in autovacuums(database18)] == [pid]


@fault(15, YIELDS, does="never ends it, whatever --kill-blockers names")
def test_an_autovacuum_is_never_ended(project18: Project, database18: Database) -> None:
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    pid = slow_autovacuum(database18)
    everybody = ("--kill-blockers", "role=*", "--kill-blockers", "application=*")
    ran = project18.apply("--lock-timeout", "100ms", "--wait-budget", "7s", *everybody)
    assert ran.code == 6
    assert "ended" not in ran.stderr
    assert [found for found, _ in autovacuums(database18)] == [pid]


# one that does not


def burn(database: Database, number: int) -> None:
    """Use up transaction ids."""
    with database.connect() as connection:
        connection.execute(
            "CREATE PROCEDURE burn(n int) LANGUAGE plpgsql AS $$"
            " BEGIN FOR i IN 1..n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )
        connection.execute("CALL burn(%s)", [number])


@fault(
    16,
    "an autovacuum against transaction id wraparound works on the table for days and yields to nobody",
    does="leaves that table, goes on with the others, names the autovacuum, and never cancels it",
)
def test_an_autovacuum_against_wraparound_is_let_be(project18: Project, database18: Database) -> None:
    project18.migration("1_a", BOTH)
    table(database18, rows=MANY)
    # Against wraparound it comes even where it is switched off, and 100000 is the least that may be set.
    send(database18, f"ALTER TABLE t SET ({SLOWLY}, autovacuum_enabled = off, autovacuum_freeze_max_age = 100000)")
    burn(database18, 101_000)
    table(database18, "o")
    until(lambda: autovacuums(database18))
    before = autovacuums(database18)
    assert "(to prevent wraparound)" in before[0][1]
    everybody = ("--kill-blockers", "role=*", "--kill-blockers", "application=*")
    ran = project18.apply("--wait-budget", "7s", *everybody)
    assert (ran.code, ran.statuses) == (5, {"public.i": "failed", "public.j": "changed"})
    said = ran.items["public.i"]["detail"]
    assert "an autovacuum against transaction id wraparound works on the table and yields to nobody: " in said
    assert f"pid {before[0][0]} (" in said
    assert "it must not be cancelled" in ran.report["error"]["hint"]
    assert "ended" not in ran.stderr
    assert (names(database18), autovacuums(database18)) == ({"j"}, before)


# one that is kept from its work by a chain of builds

CHAIN = "a chain of builds keeps autovacuum off the table for hours"


def built_with_dead_rows(project: Project, database: Database, options: str) -> Heard:
    """Two builds on t; while the first one keeps autovacuum off, more rows die there than autovacuum lets lie."""
    table(database)
    send(database, f"ALTER TABLE t SET ({options})")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY j ON t (b);")
    with old_snapshot(database):
        run = heard(project, "--blocker-age", "1h", "--jobs", "1")
        run.until("progress", "public.i", "pg_dump")
        send(database, "DELETE FROM t WHERE a > 20")
        dead = "SELECT n_dead_tup > 50 FROM pg_stat_user_tables WHERE relname = 't'"
        with database.connect() as connection:
            until(lambda: connection.execute(dead).fetchone() == (True,))
    assert run.end()["exit_code"] == 0
    assert names(database) == {"i", "j"}
    return run


def pauses(run: Heard) -> list[dict[str, Any]]:
    return [each for each in run.events if each["event"] == "held" and "vacuum" in each["detail"]]


@fault(17, CHAIN, does="between two builds on a table lets autovacuum come when dead rows are past its threshold")
def test_autovacuum_gets_its_turn_between_two_builds(project18: Project, database18: Database) -> None:
    run = built_with_dead_rows(project18, database18, EAGERLY)
    assert pauses(run)[0]["name"] == "public.j"
    assert "80 dead rows, and it comes for 50" in pauses(run)[0]["detail"]
    assert vacuumed(database18) >= 1
    second = next(n for n, each in enumerate(run.events) if each["event"] == "start" and each["name"] == "public.j")
    assert run.events.index(pauses(run)[-1]) < second


@fault(17, CHAIN, does="knows the cap that PostgreSQL 18 puts on the threshold of large tables")
def test_autovacuum_gets_its_turn_at_the_cap_of_its_threshold(project18: Project, database18: Database) -> None:
    capped = "autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_max_threshold = 50"
    run = built_with_dead_rows(project18, database18, capped)
    assert "80 dead rows, and it comes for 50" in pauses(run)[0]["detail"]
    assert vacuumed(database18) >= 1


@fault(17, CHAIN, does="does not wait for an autovacuum that is switched off on the table")
def test_no_autovacuum_is_waited_for_where_it_is_switched_off(project18: Project, database18: Database) -> None:
    run = built_with_dead_rows(project18, database18, f"{EAGERLY}, autovacuum_enabled = off")
    assert (pauses(run), order(run.events, "start")) == ([], ["i", "j"])
    assert vacuumed(database18) == 0


@fault(17, CHAIN, does="waits no longer than autovacuum needs to come round, then builds on")
def test_a_build_does_not_wait_for_ever_for_an_autovacuum_that_does_not_come(
    project18: Project, database18: Database
) -> None:
    table(database18)
    send(database18, f"ALTER TABLE t SET ({EAGERLY})")
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY j ON t (b);")
    with old_snapshot(database18) as blocker, meanwhile(project18, "--blocker-age", "1h", "--jobs", "1") as ran:
        until_it_has_waited(database18, 0.0, ran)
        # Rows that die under this one stay: autovacuum comes, again and again, and can take none of them away.
        with old_snapshot(database18):
            send(database18, "DELETE FROM t WHERE a > 20")
            blocker.rollback()
            until(lambda: ran.done() or vacuumed(database18) >= 2)
            assert names(database18) == {"i"}
            until(lambda: ran.done() or "j" in names(database18))
    assert ran.result().code == 0
    assert flags(database18, "j") == GOOD
    assert "autovacuum gets its turn: 80 dead rows" in ran.result().stderr
