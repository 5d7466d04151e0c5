"""What cannot be looked at becomes an item with its reason and its line; the other queries are looked at as well."""

from __future__ import annotations

import contextlib
import signal
import time

import psycopg
import pytest

from perfctl.explain import observe
from perfctl.explain.model import Relation
from perfctl.servers import postgres
from tests.fix_explain import Hot, execute
from tests.fix_perfctl import Ran, until
from tests.fix_servers import Cluster, Database

GOOD = "-- name: good_{n}\n-- index: t_b\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b;\n"


@pytest.fixture(autouse=True)
def _good_ones(hot: Hot) -> None:
    """One good query before the bad ones in the order of names, and one behind them."""
    for name in ("a_first", "z_last"):
        hot.query(name, GOOD.replace("good_{n}", name))


def bad(ran: Ran, name: str = "bad") -> dict[str, object]:
    """The bad query's item, after a look at the others: they were judged."""
    assert {ran.statuses[each] for each in ("a_first", "z_last")} == {"ok"}, ran.items
    assert "error" not in ran.stderr.lower()
    item: dict[str, object] = ran.items[name]
    return item


#: text of a query file that is no query → its message, and the line that the message is about
UNREADABLE = {
    "no_sql": ("SELECT c FROM t\nWHERE b = ;\n", "syntax error", 2),
    "two_statements": ("SELECT 1;\n\nDROP TABLE t;\n", "a second statement", 1),
    "nothing": ("-- name: bad\n-- only words\n", "no statement", 2),
    "no_value": ("-- param: b int\nSELECT c FROM t WHERE b = :b\n", None, 0),
    "unused": ("-- param: x int = 1\nSELECT c FROM t\n", 'parameter "x" is not used', 2),
    "unknown_rule": ("-- rule: uses_indx: t_b\nSELECT c FROM t\n", 'did you mean "uses_index"?', 1),
    "bad_rule": ("-- rule: rows: many\nSELECT c FROM t\n", "expected a range", 1),
    "contradiction": ("-- rule: require: Sort\n-- rule: forbid: Sort\nSELECT c FROM t\n", "required and forbidden", 2),
    "unknown_node": ("-- rule: forbid: Hash Joint\nSELECT c FROM t\n", "did you mean 'Hash Join'?", 1),
    "unknown_word": ("-- rules: cost: 5\nSELECT c FROM t\n", 'unknown "-- rules:"', 1),
    "no_plan": ("VACUUM t;\n", "VACUUM has no plan", 1),
}


@pytest.mark.parametrize("case", sorted(UNREADABLE))
def test_a_query_that_is_none_is_told_with_its_line(hot: Hot, case: str) -> None:
    text, message, line = UNREADABLE[case]
    path = hot.query("bad", text)
    item = bad(hot.check())
    if message is None:
        return
    assert item["status"] == "unknown"
    assert f"{path}:{line}: " in str(item["detail"])
    assert message in str(item["detail"])


def test_two_queries_with_one_name_are_both_left_out(hot: Hot) -> None:
    hot.query("bad", "-- name: bad\nSELECT 1;\n-- name: bad\nSELECT 2;\n")
    item = bad(hot.check())
    assert item["status"] == "unknown"
    assert "2 queries have this name; the first is at" in str(item["detail"])


#: a query that the server refuses → what it says, and the line in the file that it means
REFUSED = {
    "no_table": ("-- what for\nSELECT c\nFROM nowhere\n", 'relation "nowhere" does not exist', 3),
    "no_column": ("SELECT c\n  , d\nFROM t", 'column "d" does not exist', 2),
    "wrong_value": (
        "-- param: b int = 'seven'\nSELECT c FROM t WHERE b = :b",
        "invalid input syntax for type integer",
        2,
    ),
    "wrong_type": (
        "-- param: b bytea = '7'\nSELECT c\nFROM t\nWHERE b = :b",
        "operator does not exist: integer = bytea",
        4,
    ),
    "no_type": ("-- param: b moneyy = '7'\nSELECT c\nFROM t\nWHERE b = :b", 'type "moneyy" does not exist', 4),
    "no_value": ("-- param: x int = 1\nSELECT c FROM t WHERE b = :b AND a = :x", 'parameter "b" has no value', 2),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_the_server_refuses_is_told_with_its_line(hot: Hot, case: str) -> None:
    text, message, line = REFUSED[case]
    path = hot.query("bad", text)
    ran = hot.check()
    item = bad(ran)
    assert (ran.code, item["status"]) == (2, "unknown")
    assert message in str(item["detail"])
    assert f"{path}:{line}" in str(item["detail"])


def test_a_failing_query_between_prepare_and_its_end_spoils_no_other(hot: Hot, database: Database) -> None:
    """A prepared statement outlives ROLLBACK: one whose plan fails must not leave its name taken."""
    execute(
        database,
        "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RAISE 'no plan of it'; END$$",
    )
    for n in range(3):
        hot.query(f"m_{n}", GOOD.replace("{n}", str(n)))
        hot.query(f"bad_{n}", "-- param: b int = 1\nSELECT c FROM t WHERE b = :b AND a = fails(1)")
    ran = hot.check()
    assert {ran.statuses[f"bad_{n}"] for n in range(3)} == {"unknown"}
    assert all("no plan of it" in ran.items[f"bad_{n}"]["detail"] for n in range(3))
    assert [name for name, status in ran.statuses.items() if status == "ok"] == [
        "a_first", "good_0", "good_1", "good_2", "z_last",
    ]  # fmt: skip
    assert all(len(ran.items[f"good_{n}"]["data"]["angles"]) == 2 for n in range(3))


def test_a_table_behind_access_exclusive_is_told_and_waited_for_no_longer_than_the_limit(
    hot: Hot, database: Database
) -> None:
    execute(database, "CREATE TABLE locked (a int)")
    hot.configure("dir: queries, lock_timeout: 200ms")
    hot.query("bad", "SELECT * FROM locked WHERE a = 1")
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        ran = hot.check()
        took = time.monotonic() - started
    item = bad(ran)
    assert took < 5
    assert item["status"] == "unknown"
    assert "lock timeout" in str(item["detail"])
    assert item["data"]["class"] == "Busy"  # type: ignore[index]


def test_a_locked_table_is_waited_for_once_and_its_holder_is_named(hot: Hot, database: Database) -> None:
    execute(database, "CREATE TABLE locked (a int)")
    hot.configure("dir: queries, lock_timeout: 1s")
    for n in range(15):
        hot.query(f"bad_{n:02}", f"SELECT {n} FROM locked")
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        ran = hot.check()
        took = time.monotonic() - started
        holder = f"public.locked is locked against readers by process {other.info.backend_pid} ("
    assert took < 6
    assert all(holder in ran.items[f"bad_{n:02}"]["detail"] for n in range(15)), ran.items
    assert {ran.statuses[each] for each in ("a_first", "z_last")} == {"ok"}
    assert ran.code == 6


def sleepy(database: Database, seconds: float = 0.3) -> None:
    """A function that is called while the statement is planned."""
    execute(
        database,
        "CREATE FUNCTION sleepy() RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        f" $$BEGIN PERFORM pg_sleep({seconds}); RETURN 1; END$$",
    )


def test_a_query_whose_planning_takes_too_long_is_told(hot: Hot, database: Database) -> None:
    sleepy(database, 30)
    hot.configure("dir: queries, timeout: 300ms")
    hot.query("bad", "SELECT c FROM t WHERE a = sleepy()")
    item = bad(hot.check())
    assert "statement timeout" in str(item["detail"])
    assert item["data"]["class"] == "NoAnswer"  # type: ignore[index]


def test_the_time_out_is_for_one_query_not_for_all_together(hot: Hot, database: Database) -> None:
    sleepy(database, 0.3)
    hot.configure("dir: queries, timeout: 900ms")
    for n in range(5):
        hot.query(f"slow_{n}", "SELECT c FROM t WHERE a = sleepy()")
    assert set(hot.check().statuses.values()) == {"ok"}


@pytest.mark.parametrize(("rule", "code"), [("time: 1s", 3), ("buffers: 5", 3), ("time: 400ms", 1)])
def test_a_run_that_takes_too_long_is_told_and_the_plan_is_judged(hot: Hot, rule: str, code: int) -> None:
    hot.configure("dir: queries, timeout: 500ms")
    path = hot.query("bad", f"-- rule: {rule}\n-- rule: cost: 1e12\nSELECT count(*) FROM t, t AS u, t AS v")
    ran = hot.check("--analyze")
    item = bad(ran)
    assert (ran.code, item["status"]) == (code, "finding" if code == 1 else "unknown")
    assert str(item["detail"]).startswith(f"{path}:3: canceling statement due to statement timeout (default, run)")
    assert ran.items["bad"]["data"]["angles"][0]["cost"] > 0


def test_a_run_that_fails_is_told_with_the_exit_code_of_its_cause(hot: Hot) -> None:
    path = hot.query("bad", "-- what for\nSELECT a / (b - b) FROM t")
    ran = hot.check("--analyze")
    item = bad(ran)
    assert (ran.code, item["status"]) == (2, "unknown")
    assert str(item["detail"]).startswith(f"{path}:2: division by zero (default, run)")
    shown = hot.text("show", "bad", "--analyze")
    assert (shown.code, "division by zero" in shown.stdout) == (2, True)
    assert hot.text("baseline", "--only", "bad", "--analyze").code == 2


@pytest.mark.parametrize("command", [("show", "bad"), ("baseline", "--only", "bad")])
def test_what_has_no_plan_ends_every_command_with_the_code_of_its_cause(
    hot: Hot, database: Database, command: tuple[str, ...]
) -> None:
    sleepy(database, 30)
    execute(database, "CREATE TABLE locked (a int)")
    hot.configure("dir: queries, timeout: 300ms, lock_timeout: 100ms")
    codes = []
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        for text in (
            "SELECT * FROM nowhere",
            "SELECT nothing FROM t",
            "-- param: b int = 'seven'\nSELECT c FROM t WHERE b = :b",
            "SELECT c FROM t WHERE b = '7'::bytea",
            "SELECT * FROM locked",
            "SELECT c FROM t WHERE a = sleepy()",
        ):
            hot.query("bad", text)
            codes.append(hot.text(*command).code)
    assert codes == [2, 2, 2, 2, 6, 3]


def test_a_role_that_may_not_read_is_told(hot: Hot, database: Database) -> None:
    execute(database, "CREATE TABLE secret (a int)")
    role = f"{database.name}_guest"
    execute(database, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON t TO {role}")
    try:
        guest = Hot(hot.folder, hot.dsn.replace("postgres@/", f"{role}@/"))
        guest.configure()
        guest.query("bad", "SELECT a FROM secret")
        item = bad(guest.check())
    finally:
        execute(database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert item["status"] == "unknown"
    assert "permission denied for table secret" in str(item["detail"])
    assert item["data"]["class"] == "Denied"  # type: ignore[index]


@pytest.fixture
def waiting(hot: Hot, database: Database) -> None:
    """A query that takes long to plan."""
    sleepy(database, 60)
    hot.configure("dir: queries, timeout: 50s")
    hot.query("bad", "SELECT c FROM t WHERE a = sleepy()")


def is_waiting(database: Database) -> bool:
    """perfctl's statement is being planned."""
    rows = execute(
        database,
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'perfctl%' AND wait_event = 'PgSleep'",
    )
    return bool(rows)


@pytest.mark.usefixtures("waiting")
def test_ctrl_c_ends_the_statement_on_the_server(hot: Hot, database: Database) -> None:
    process = hot.start()
    until(lambda: is_waiting(database))
    process.popen.send_signal(signal.SIGINT)
    ran = process.wait(20)
    assert ran.code == 130
    assert ran.stderr.strip() == "error: stopped by a signal"
    until(lambda: not is_waiting(database), 5)


@pytest.mark.usefixtures("waiting")
def test_a_killed_backend_is_told(hot: Hot, database: Database) -> None:
    process = hot.start()
    until(lambda: is_waiting(database))
    execute(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'perfctl%'",
    )
    ran = process.wait(20)
    assert (ran.code, ran.report["error"]["class"]) == (3, "ConnectionLost")
    assert ran.stderr.startswith("error: the connection was lost: ")
    assert ran.stderr.count("\n") == 1


def test_a_server_that_stops_in_the_middle_is_told(hot: Hot, pg_server: Cluster, database: Database) -> None:
    sleepy(database, 60)
    hot.configure("dir: queries, timeout: 50s")
    hot.query("bad", "SELECT c FROM t WHERE a = sleepy()")
    process = hot.start()
    until(lambda: is_waiting(database))
    pg_server.server.stop()
    with contextlib.ExitStack() as stack:
        stack.callback(pg_server.server.start)
        ran = process.wait(20)
    assert (ran.code, ran.report["error"]["class"]) == (3, "ConnectionLost")
    assert "Traceback" not in ran.stderr


def test_the_catalogue_is_read_while_tables_and_partitions_are_locked(database: Database) -> None:
    execute(
        database,
        "CREATE TABLE p (a int) PARTITION BY LIST (a)",
        "CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1)",
        "CREATE TABLE p_2 PARTITION OF p FOR VALUES IN (2)",
        "INSERT INTO p SELECT 1 FROM generate_series(1, 10000)",
        "ANALYZE p_1",
    )
    relations = [Relation("public", name) for name in ("p", "p_1", "p_2", "t")]
    pg = postgres.connect(psycopg.conninfo.conninfo_to_dict(database.dsn), application="test")  # type: ignore[arg-type]
    with contextlib.closing(pg), database.connect(autocommit=False) as other:
        pg.settings({"lock_timeout": "1s"})
        free = observe.catalogue(pg, relations)
        other.execute("LOCK TABLE p_1, t IN ACCESS EXCLUSIVE MODE")
        held = observe.catalogue(pg, relations)
    assert held.locked == {Relation("public", "p_1"), Relation("public", "t")}
    assert [(i.table, i.name) for i in free.indexes] == [("t", "t_b"), ("t", "t_pkey")]
    assert held.indexes == ()
    assert {r: facts.pages for r, facts in held.tables.items()} == {r: facts.pages for r, facts in free.tables.items()}
    assert {str(r): facts.pages > 0 for r, facts in free.tables.items()} == {
        "public.p": True, "public.p_1": True, "public.p_2": False, "public.t": True,
    }  # fmt: skip
    assert free.tables[Relation("public", "p")].partitions == 2
