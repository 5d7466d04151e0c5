"""Looking at plans changes nothing, whatever the queries are, and with --analyze runs only what can change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perfctl.embedded import PostgresServer
from perfctl.errors import StatementFailed
from perfctl.servers import postgres
from perfctl.servers.postgres import Postgres
from tests.fix_explain import TABLE, Hot, execute, new_hot
from tests.fix_perfctl import until
from tests.fix_replica import caught_up, replicated
from tests.fix_servers import Database

#: what a reader of the database would see of a change
STATE = """
    SELECT (SELECT array_agg(c.oid::regclass::text ORDER BY 1) FROM pg_class AS c),
           (SELECT array_agg(proname ORDER BY 1) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
           (SELECT md5(string_agg(t::text, ',' ORDER BY a)) FROM t),
           (SELECT array_agg(ctid) FROM written),
           (SELECT last_value FROM s),
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""
PREPARATION = (
    "CREATE TABLE written (a int)",
    "CREATE SEQUENCE s",
    "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO written VALUES (1) RETURNING a'",
    "CREATE FUNCTION locks() RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_lock(4711); RETURN 1; END$$",
    "CREATE VIEW through_a_view AS SELECT a, locks() AS locked FROM t WHERE a < 10",
    # What EXPLAIN shows nothing of, and what calls a function without its name.
    "CREATE VIEW through_a_limit AS SELECT a FROM t LIMIT locks()",
    "CREATE FUNCTION lock_two(a int, b int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN locks(); END'",
    "CREATE FUNCTION lock_row(t) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN locks(); END'",
    "CREATE FUNCTION stable_one() RETURNS int LANGUAGE sql STABLE AS 'SELECT locks()'",
    "CREATE OPERATOR <#> (LEFTARG = int, RIGHTARG = int, FUNCTION = lock_two)",
    "CREATE AGGREGATE locking(int) (SFUNC = lock_two, STYPE = int, INITCOND = '0')",
    "CREATE DOMAIN locked_int AS int CHECK (lock_two(VALUE, 1) = 1)",
    "CREATE TYPE pair AS (x locked_int)",
    "CREATE TYPE box_of AS (x int)",
    "CREATE FUNCTION to_box(int) RETURNS box_of LANGUAGE plpgsql AS 'BEGIN RETURN ROW(locks()); END'",
    "CREATE CAST (int AS box_of) WITH FUNCTION to_box(int)",
)
WRITING = {
    "insert": "INSERT INTO t VALUES (-1, 1, 'new')",
    "update": "UPDATE t SET b = b + 1 WHERE a = 5",
    "delete": "DELETE FROM t WHERE a = 5",
    "merge": "MERGE INTO t USING (SELECT 5 AS a) AS s ON t.a = s.a WHEN MATCHED THEN DELETE",
    "cte": "WITH gone AS (DELETE FROM t WHERE a = 5 RETURNING b) SELECT * FROM gone",
    "lock": "SELECT c FROM t WHERE a = 5 FOR UPDATE",
    "nested_lock": "SELECT * FROM (SELECT c FROM t WHERE a = 5 FOR SHARE) AS x",
    "table_as": "CREATE TABLE made AS SELECT * FROM t WHERE a = 5",
    "into": "SELECT * INTO made FROM t WHERE a = 5",
    "matview": "CREATE MATERIALIZED VIEW made AS SELECT * FROM t WHERE a = 5",
    "cursor": "DECLARE made CURSOR FOR SELECT * FROM t WHERE a = 5",
    "function": "SELECT writes()",
    "function_in_from": "SELECT * FROM t JOIN writes() AS w ON t.a = w",
    "sequence": "SELECT nextval('s')",
    "session_lock": "SELECT pg_advisory_lock(4711)",
    "view": "SELECT * FROM through_a_view",
    "view_with_a_limit": "SELECT * FROM through_a_limit",
    "wrapped": "SELECT stable_one()",
    "operator": "SELECT 1 <#> a FROM t",
    "operator_said_in_full": "SELECT 1 OPERATOR(public.<#>) a FROM t LIMIT 1",
    "operator_in_a_limit": "SELECT a FROM t LIMIT 1 <#> 2",
    "aggregate": "SELECT locking(a) FROM t",
    "domain": "SELECT a::locked_int FROM t",
    "domain_in_values": "SELECT * FROM (VALUES (1::locked_int), (2)) AS x",
    "domain_in_a_row": "SELECT json_populate_record(NULL::pair, '{\"x\": 1}')",
    "cast": "SELECT a::box_of FROM t",
    "cast_as": "SELECT CAST(a AS box_of) FROM t",
    "attribute": "SELECT t.lock_row FROM t",
    "quoted": 'SELECT "locks" /* ( */ ()',
    "escaped": 'SELECT U&"\\006Cocks"()',
    "setting": "SELECT set_config('statement_timeout', '0', false)",
    "kill": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nobody'",
}


def state(database: Database) -> Any:
    """All of it."""
    return execute(database, STATE)


@pytest.mark.parametrize("name", sorted(WRITING))
def test_what_writes_is_planned_and_never_run(hot: Hot, database: Database, name: str) -> None:
    execute(database, *PREPARATION)
    hot.query(name, f"-- rule: buffers: 100000\n{WRITING[name]}")
    before = state(database)
    ran = hot.check("--analyze")
    assert state(database) == before
    item = ran.items[name]
    assert item["status"] == "skipped", item
    assert "cannot tell: buffers: not run: it" in item["detail"]
    assert item["data"]["angles"][0]["cost"] > 0
    assert "blocks" not in item["data"]["angles"][0]


@pytest.mark.parametrize("name", ["insert", "update", "delete", "merge", "table_as", "cte"])
def test_a_writing_query_with_a_parameter_is_planned(hot: Hot, database: Database, name: str) -> None:
    execute(database, *PREPARATION)
    hot.query(name, f"-- param: five int = 5\n{WRITING[name].replace('5', ':five').replace('-1', ':five')}")
    before = state(database)
    ran = hot.check("--analyze")
    assert (ran.statuses[name], state(database)) == ("ok", before)
    assert len(ran.items[name]["data"]["angles"]) == (1 if name == "table_as" else 2)


@pytest.fixture
def session(database: Database) -> Iterator[Postgres]:
    """A session of perfctl's."""
    execute(database, *TABLE, *PREPARATION)
    pg = postgres.connect(psycopg.conninfo.conninfo_to_dict(database.dsn), application="test")  # type: ignore[arg-type]
    yield pg
    pg.close()


@pytest.mark.parametrize(
    "text",
    [
        "EXPLAIN SELECT 1; CREATE TABLE made (a int)",
        "SELECT 1; COMMIT; CREATE TABLE made (a int)",
        "EXPLAIN (FORMAT JSON) ANALYZE DELETE FROM t",
    ],
)
def test_a_text_with_more_than_one_statement_is_refused_by_the_protocol(
    session: Postgres, database: Database, text: str
) -> None:
    before = state(database)
    (answer,) = session.read_only([(text, ())], {})
    assert isinstance(answer, StatementFailed)
    assert answer.sqlstate == "42601"
    assert state(database) == before


@pytest.mark.parametrize(
    "text",
    ["INSERT INTO written VALUES (1)", "SELECT writes()", "SELECT nextval('s')", "CREATE TABLE made (a int)"],
)
def test_the_transaction_itself_takes_no_write(session: Postgres, database: Database, text: str) -> None:
    before = state(database)
    (answer,) = session.read_only([(text, ())], {"lock_timeout": "1s"})
    assert isinstance(answer, Exception)
    assert "read-only" in str(answer)
    assert state(database) == before


def test_what_reads_only_mistakenly_is_rolled_back(session: Postgres, database: Database) -> None:
    """PostgreSQL makes the table in a READ ONLY transaction; only ROLLBACK takes it back."""
    before = state(database)
    (answer,) = session.read_only([("EXPLAIN (ANALYZE) CREATE TABLE made AS SELECT 1 AS a", ())], {})
    assert isinstance(answer, list)
    assert state(database) == before


def test_the_session_is_as_it_was_after_a_failure(session: Postgres) -> None:
    limits = {"lock_timeout": "123ms", "enable_seqscan": "off"}
    answers = session.read_only([("SELECT 1", ()), ("SELECT 1/0", ()), ("SELECT 3", ())], limits)
    assert answers[0] == [(1,)]
    assert len(answers) == 2
    assert isinstance(answers[1], StatementFailed)
    assert session.current(["lock_timeout", "enable_seqscan"]) == {"lock_timeout": "0", "enable_seqscan": "on"}
    assert session.read_only([("SELECT $1::int + 1", ("2",))], {}) == [[(3,)]]


def test_only_plain_selects_are_run_serially_warmed_and_with_blocks(hot: Hot, database: Database) -> None:
    execute(database, *(f"ALTER DATABASE {database.name} SET {each}" for each in (
        "debug_parallel_query = on" if database.server.installation.major > 15 else "force_parallel_mode = on",
        "parallel_setup_cost = 0", "min_parallel_table_scan_size = 0", "jit_above_cost = 0",
    )))  # fmt: skip
    hot.query("plain", "-- rule: buffers: 100000\nSELECT count(*) FROM t WHERE c <> 'y'")
    ran = hot.check("--analyze", "-v", "-v")
    runs = [line for line in ran.stderr.splitlines() if "ANALYZE" in line]
    assert len(runs) == 2
    assert all("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, VERBOSE, SETTINGS, FORMAT JSON) SELECT" in r for r in runs)
    (angle,) = ran.items["plain"]["data"]["angles"]
    assert angle["blocks"] > 0
    assert "Gather" not in hot.text("show", "plain", "--analyze").stdout


def test_a_dry_run_shows_what_it_would_send_and_sends_nothing(hot: Hot) -> None:
    hot.query("a_there", "-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    hot.query("b_not_there", "SELECT * FROM nowhere")
    ran = hot.check("--dry-run", "--analyze", "-v", "-v")
    assert (ran.code, set(ran.statuses.values())) == (0, {"planned"})
    sent = ran.items["a_there"]["data"]["statement"]
    assert sent.count("EXPLAIN (VERBOSE") == 2
    assert sent.count("EXPLAIN (ANALYZE") == 1
    assert sent.count("-- $1 = '7'\nEXPLAIN") == 2
    assert "EXPLAIN (VERBOSE" not in ran.stderr
    assert any("twice" in note and "max_parallel_workers_per_gather = 0" in note for note in ran.report["notes"])
    assert any("BEGIN READ ONLY" in note and "lock_timeout = 1000ms" in note for note in ran.report["notes"])


def test_what_a_dry_run_shows_is_what_is_sent(hot: Hot) -> None:
    hot.query("q", "-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    shown = hot.check("--dry-run", "--analyze").items["q"]["data"]["statement"].split(";\n")
    shown = [each.removeprefix("-- $1 = '7'\n") for each in shown]
    sent = hot.check("--analyze", "-v", "-v").stderr
    assert [statement for statement in shown if " ".join(statement.split()) not in " ".join(sent.split())] == []


def test_a_role_that_may_only_read_sees_plans(hot18: Hot, database18: Database) -> None:
    role = f"{database18.name}_reader"
    execute(database18, f"CREATE ROLE {role} LOGIN", f"GRANT pg_read_all_data TO {role}")
    try:
        reader = Hot(hot18.folder, hot18.dsn.replace("postgres@/", f"{role}@/"))
        reader.configure()
        reader.query("read", "-- index: t_b\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
        reader.query("write", "UPDATE t SET b = 1 WHERE a = 5")
        ran = reader.check("--analyze")
    finally:
        execute(database18, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert ran.statuses == {"read": "ok", "write": "unknown"}
    assert "permission denied for table t" in ran.items["write"]["detail"]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and the standby that follows it."""
    with replicated(18) as servers:
        yield servers


def test_a_standby_gives_plans_and_runs(pair: tuple[PostgresServer, PostgresServer], tmp_path: Path) -> None:
    primary, standby = pair
    execute(Database(primary, "postgres"), *TABLE)
    until(lambda: caught_up(primary, standby))
    hot = new_hot(tmp_path, Database(standby, "postgres"))
    hot.query("read", "-- index: t_b\n-- rule: buffers: 1000\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    hot.query("write", "UPDATE t SET b = 1 WHERE a = 5")
    ran = hot.check("--analyze")
    assert (ran.code, ran.statuses) == (0, {"read": "ok", "write": "ok"})
    assert ran.items["read"]["data"]["angles"][0]["blocks"] > 0


def test_what_is_called_as_a_volatile_function_is_but_does_not_call_it_is_run(hot18: Hot, database18: Database) -> None:
    execute(
        database18,
        *PREPARATION,
        "CREATE FUNCTION c(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'",
        "CREATE FUNCTION on_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $1'",
    )
    hot18.query("q", "-- rule: buffers: 100000\nSELECT c AS on_change, random(), twice(b) FROM t WHERE b IN (7)")
    ran = hot18.check("--analyze")
    assert ran.statuses == {"q": "ok"}, ran.items


def test_why_a_run_is_refused_names_the_function_and_the_way_to_it(hot18: Hot, database18: Database) -> None:
    execute(database18, *PREPARATION)
    hot18.query("q", "-- rule: buffers: 100000\nSELECT locking(a) FROM t")
    assert (
        "not run: it calls public.lock_two through aggregate locking, which is volatile and may change something"
        in hot18.check("--analyze").items["q"]["detail"]
    )
