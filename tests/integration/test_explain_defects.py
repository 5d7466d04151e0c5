"""What other checkers of plans get wrong, each as a fact about perfctl: found by running and reading them."""

from __future__ import annotations

import pytest

from tests.fix_explain import Hot, execute
from tests.fix_servers import Database


def test_an_update_in_the_suite_changes_no_row(hot: Hot, database: Database) -> None:
    """Others run EXPLAIN ANALYZE of it outside a transaction, and it stays changed."""
    hot.query("update", "-- rule: time: 1s\nUPDATE t SET c = 'changed' WHERE a = 5")
    assert hot.check("--analyze").statuses == {"update": "skipped"}
    assert execute(database, "SELECT count(*) FROM t WHERE c = 'changed'") == [(0,)]


def test_a_self_join_shows_both_reads(hot: Hot) -> None:
    """Others key relations by table name, so the last scan of a table hides the others."""
    hot.query(
        "self",
        "-- rule: no_seq_scan: t\n-- rule: uses_index: t_pkey\n"
        "SELECT one.c FROM t AS one JOIN t AS other ON other.a = one.a + 1 WHERE one.c = 'x' AND other.a = 7",
    )
    hot.query("both", "SELECT one.c FROM t AS one JOIN t AS other ON other.b = one.a WHERE one.a = 7")
    ran = hot.check()
    access = ran.items["both"]["data"]["angles"][0]["access"]
    assert sum("public.t " in f"{each} " for each in access if "Bitmap Index" not in each) == 2
    assert ran.statuses["self"] == "finding"
    assert "no_seq_scan: public.t of " in ran.items["self"]["detail"]
    assert "Seq Scan on public.t one" in ran.items["self"]["detail"]


@pytest.mark.parametrize("order", ["", "DESC"])
def test_one_name_in_two_schemas_is_two_tables(hot: Hot, database: Database, order: str) -> None:
    """Whichever comes first: the one with the index does not excuse the one without."""
    execute(
        database,
        "CREATE SCHEMA archive",
        "CREATE TABLE archive.t AS SELECT * FROM public.t",
        "ANALYZE archive.t",
    )
    hot.query("qualified", "-- rule: no_seq_scan: archive.t\nSELECT c FROM public.t WHERE a = 7")
    hot.query(
        "two",
        "-- rule: no_seq_scan: archive.t\n-- rule: uses_index: public.t_pkey\n"
        "(SELECT c, 1 FROM public.t WHERE a = 7) UNION ALL (SELECT c, 2 FROM archive.t WHERE a = 7)"
        f" ORDER BY 2 {order}",
    )
    ran = hot.check()
    assert ran.statuses == {"qualified": "ok", "two": "finding"}
    assert "Seq Scan on archive.t" in ran.items["two"]["detail"]
    assert "uses_index" not in ran.items["two"]["detail"]


def test_a_bitmap_scan_that_became_a_sequential_one_is_found(hot: Hot, database: Database) -> None:
    """Others count only plain index scans, so that change passes."""
    hot.query("bitmap", "-- index: t_b\n-- rule: no_seq_scan: t\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    before = hot.check()
    assert before.statuses == {"bitmap": "ok"}
    assert "Bitmap Index Scan using t_b" in before.items["bitmap"]["detail"]
    execute(database, "DROP INDEX t_b")
    detail = hot.check().items["bitmap"]["detail"]
    assert "no_seq_scan" in detail
    assert 'there is no index "t_b"' in detail


def test_a_bare_analyze_turns_nothing_red(hot: Hot, database: Database) -> None:
    """A gate of 10 % over the cost of last time does."""
    execute(database, "ALTER TABLE t ALTER b SET STATISTICS 1")
    hot.query("point", "-- index: t_b\n-- rule: rows: 1..200\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    for _ in range(10):
        execute(database, "ANALYZE t")
        assert hot.check().statuses == {"point": "ok"}


def test_sixty_seconds_are_more_than_half_a_second() -> None:
    """A limit that takes the milliseconds of an interval lets 60.2 s pass for 200 ms."""
    from perfctl.explain.model import Catalogue, Node, Plan
    from perfctl.explain.rule import Evidence, State
    from perfctl.explain.rules import read

    node = Node("Result", 1, 1, 0, 4, actual_rows=1, loops=1)

    def judged(took_ms: float) -> State:
        ran = Plan(node, execution_ms=took_ms)
        return read("time", "500ms").judge(Evidence("default", ran, Catalogue(), ran=ran)).state

    assert [judged(ms) for ms in (60_200.0, 3_600_100.0, 499.0, 0.01)] == [
        State.FAILS, State.FAILS, State.HOLDS, State.HOLDS,
    ]  # fmt: skip


def test_psqls_own_commands_are_no_sql(hot: Hot) -> None:
    r"""pg_dump begins its files with \restrict, at which others stop with a syntax error."""
    hot.query(
        "dumped",
        "\\restrict a1B2c3\n\n-- index: t_b\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b;\n\\unrestrict a1B2c3\n",
    )
    assert hot.check().statuses == {"dumped": "ok"}


def test_letters_in_strings_keep_their_case(hot: Hot, database: Database) -> None:
    """Others write the text in lower case, strings too, and estimate one row instead of thousands."""
    execute(database, "UPDATE t SET c = 'MAIL' WHERE a % 2 = 0", "ANALYZE t")
    hot.query("mail", "-- rule: rows: 5000..\nSELECT a FROM t WHERE c = 'MAIL'")
    assert hot.check().statuses == {"mail": "ok"}


def test_a_file_that_has_grown_is_seen_before_the_next_analyze(hot: Hot, database: Database) -> None:
    """The planner reads the file's size of now; so does the question whether a table is small."""
    execute(database, "CREATE TABLE g (a int) WITH (autovacuum_enabled = off)", "INSERT INTO g VALUES (1)", "ANALYZE g")
    hot.query("grown", "-- rule: no_seq_scan: {over_pages: 10}\nSELECT * FROM g WHERE a = 1")
    assert hot.check().statuses == {"grown": "ok"}
    execute(database, "INSERT INTO g SELECT generate_series(1, 10000)")
    ran = hot.check()
    assert ran.statuses == {"grown": "finding"}
    assert "of 45 pages" in ran.items["grown"]["detail"]


def test_a_parameter_of_the_wrong_type_is_not_hidden(hot: Hot) -> None:
    """A bound numeric does not use an index of integers; a literal in the text would."""
    sql = "\nSELECT c FROM t WHERE a = :a"
    hot.query("as_int", "-- index: t_pkey\n-- param: a int = 7" + sql)
    hot.query("as_numeric", "-- index: t_pkey\n-- param: a numeric = 7" + sql)
    assert hot.check().statuses == {"as_int": "ok", "as_numeric": "finding"}


def test_the_generic_plan_is_held_to_the_rules_too(hot: Hot, database: Database) -> None:
    execute(database, "CREATE INDEX t_rare ON t (a) WHERE b = 7", "DROP INDEX t_b", "ANALYZE t")
    hot.query("partial", "-- index: t_rare\n-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    ran = hot.check()
    assert ran.statuses == {"partial": "finding"}
    assert "uses_index (generic plan): " in ran.items["partial"]["detail"]
    assert "uses_index (default)" not in ran.items["partial"]["detail"]


def test_text_of_pg_stat_statements_is_planned(hot: Hot) -> None:
    """``date $1`` and ``EXTRACT($1 FROM x)`` are no SQL; others stop there."""
    hot.query("day", "SELECT count(*) FROM t WHERE date $1 < date $2")
    hot.query("part", "SELECT extract($1 from current_timestamp) FROM t WHERE b = $2")
    ran = hot.check()
    assert ran.statuses == {"day": "ok", "part": "ok"}


def test_the_sessions_own_prepared_statements_are_let_alone(hot: Hot) -> None:
    """Others send DEALLOCATE ALL; here only its own name is given back."""
    hot.query("q", "-- param: b int = 7\nSELECT c FROM t WHERE b = :b")
    sent = hot.check("-v", "-v").stderr
    assert "DEALLOCATE perfctl_generic" in sent
    assert "DEALLOCATE ALL" not in sent.upper()


def test_a_run_that_is_faster_than_before_fails_nothing(hot: Hot) -> None:
    hot.query("fast", "-- rule: time: 10m\n-- rule: buffers: 1000000\nSELECT c FROM t WHERE a = 7")
    assert hot.check("--analyze").statuses == {"fast": "ok"}
