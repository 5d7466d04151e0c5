"""What is read of a hot query's text: placeholders, heads, values, rules, and where something is wrong."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfctl.hotqueries.files import load
from perfctl.hotqueries.model import Expectation, HotQuery, Kind, Parameter, Problem, ValueSet
from perfctl.hotqueries.parse import from_config, parse, together
from perfctl.hotqueries.placeholders import BadText, Numbered, as_sql, number


def numbered(text: str, **types: str | None) -> tuple[str, tuple[str, ...]]:
    found = number(text, types)
    return found.sql, found.names


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("SELECT :x", "SELECT $1"),
        ("SELECT %(x)s", "SELECT $1"),
        ("SELECT :'x'", "SELECT $1"),
        ("SELECT :x + :x", "SELECT $1 + $1"),
        ("SELECT (:x), f(:x), k=:x", "SELECT ($1), f($1), k=$1"),
        ("SELECT :x::int", "SELECT $1::int"),
        ("SELECT f(k => :x, l := :x)", "SELECT f(k => $1, l := $1)"),
        ("SELECT d @> :x AND d ? 'y' AND d ?| :x", "SELECT d @> $1 AND d ? 'y' AND d ?| $1"),
        ("SELECT d ? :x, d ->> :x, d #>> :x", "SELECT d ? $1, d ->> $1, d #>> $1"),
        ("SELECT d->>':x' = :x", "SELECT d->>':x' = $1"),
        ("SELECT ARRAY[:x, 1]", "SELECT ARRAY[$1, 1]"),
        ("SELECT a[:x]", "SELECT a[$1]"),
        ("SELECT ARRAY[CASE WHEN :x THEN 1 END]", "SELECT ARRAY[CASE WHEN $1 THEN 1 END]"),
        ("SELECT 5 %% %(x)s, 'a%%'", "SELECT 5 % $1, 'a%'"),
        ("SELECT k FROM t\n;  \n-- end\n", "SELECT k FROM t"),
        ("SELECT :x /* a */; /* and /* nested */ no more */", "SELECT $1 /* a */"),
        ("SELECT 'ü', :x", "SELECT 'ü', $1"),
    ],
)
def test_a_placeholder_becomes_a_number(text: str, sql: str) -> None:
    assert numbered(text) == (sql, ("x",) if "$1" in sql else ())


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ':x', E'\\':x', \":x\", ':''x'",
        "SELECT U&'\\0041:x', e'it\\\\', B'01'",
        "SELECT $$:x;$$, $a$ :x $$ %(x)s $a$",
        "SELECT foo$a$b, c$a$d",
        "SELECT 1 -- at 10:30 :x; %(x)s\n + 2",
        "SELECT /* :x; */ 1",
        "SELECT /* a /* b */ :x; */ 1",
        "SELECT a[1:2], a[1:n], a[lo:hi], a[lo :hi], a[f(1):n], a['1':n]",
        "SELECT k::text, k :: int, '10:30'::time",
        "SELECT f(k := 1)",
        "SELECT a % b, 'a%%', a %% b",
        "SELECT a%(b)such",
        "SELECT d ? 'x' AND d ?& ARRAY['y'] AND d @? '$.x' AND d -> 'x' ->> 'y' = '$1'",
        "SELECT date'2026-01-01'",
    ],
)
def test_what_only_looks_like_a_placeholder_is_left_alone(text: str) -> None:
    assert numbered(text) == (text, ())


def test_a_percent_sign_is_written_twice_only_beside_percent_placeholders() -> None:
    assert numbered("SELECT 'a%%' LIKE :x") == ("SELECT 'a%%' LIKE $1", ("x",))


def test_parameters_are_numbered_by_their_first_use_and_cast_to_their_type() -> None:
    found = numbered("SELECT :b, :a, :b", a="bigint", b=None)
    assert found == ("SELECT $1, CAST($2 AS bigint), $1", ("b", "a"))


def test_numbers_stay_what_they_are() -> None:
    assert numbered("SELECT $2, $1, $10, a$1") == (
        "SELECT $2, $1, $10, a$1", ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10"),
    )  # fmt: skip


def test_a_numbered_parameter_can_be_typed() -> None:
    assert number("SELECT $1, $2", {"2": "date"}) == Numbered("SELECT $1, CAST($2 AS date)", ("1", "2"))


@pytest.mark.parametrize(
    ("normalised", "sql"),
    [
        ("date $1", "CAST($1 AS date)"),
        ("interval $1 day", "CAST($1 AS interval day)"),
        ("INTERVAL $2 hour to minute", "CAST($2 AS INTERVAL hour to minute)"),
        ("timestamp with time zone $1", "CAST($1 AS timestamp with time zone)"),
        ("timestamp(3) without time zone $1", "CAST($1 AS timestamp(3) without time zone)"),
        ("jsonb $1 @> x", "CAST($1 AS jsonb) @> x"),
        ("EXTRACT($1 FROM x)", "pg_catalog.date_part(CAST($1 AS text), x)"),
        ("'date $1' || \"date $1\" -- date $1", "'date $1' || \"date $1\" -- date $1"),
        ("d.date = $1 AND o.update $2", "d.date = $1 AND o.update $2"),
        ("x IN ($1 /*, ... */)", "x IN ($1 /*, ... */)"),
    ],
)
def test_text_of_pg_stat_statements_is_made_sql_again(normalised: str, sql: str) -> None:
    assert as_sql(normalised) == sql


def test_a_typed_number_behind_a_type_is_cast_to_both() -> None:
    assert number("SELECT date $1", {"1": "text"}).sql == "SELECT CAST(CAST($1 AS text) AS date)"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("SELECT 1;\nSELECT 2", 1, "a second statement"),
        ("SELECT 1\n;;\n; SELECT 2", 2, "a second statement"),
        ("", 1, "no statement"),
        ("-- nothing\n/* /* here */ */\n;", 2, "no statement"),
        ("SELECT :x,\n %(y)s", 2, "parameters in two notations"),
        ("SELECT $1,\n\n :y", 3, "parameters in two notations"),
    ],
)
def test_a_text_that_is_no_statement_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(BadText, match=message) as bad:
        number(text, {})
    assert bad.value.line == line


QUOTED = st.one_of(
    st.text().map(lambda text: "'" + text.replace("'", "''").replace("\x00", "") + "'"),
    st.text().map(lambda text: '"' + text.replace('"', '""').replace("\x00", "") + '"'),
    st.text().filter(lambda text: "$q$" not in text).map(lambda text: f"$q${text}$q$"),
    st.text().map(lambda text: "-- " + text.replace("\n", " ") + "\n"),
    st.text(alphabet=" :x;$1%()s'\"-").map(lambda text: f"/* {text} */"),
)


@given(st.lists(QUOTED, min_size=1))
def test_text_in_quotes_and_comments_is_never_changed(quoted: list[str]) -> None:
    text = "SELECT " + " , :x , ".join(quoted) + " , :y"
    parts = [*("x",) * (len(quoted) > 1), "y"]
    sql = "SELECT " + " , $1 , ".join(quoted) + f" , ${len(parts)}"
    assert numbered(text) == (sql.strip(), tuple(parts))


@given(st.text(alphabet="ab:=[]()'\"$1%;-/* \nsE\\"))
def test_any_text_is_a_statement_or_refused_in_one_of_its_lines(text: str) -> None:
    try:
        names: tuple[str, ...] = number(text, {}).names
        line = 1
    except BadText as bad:
        names, line = (), bad.line
    assert len(set(names)) == len(names)
    assert 1 <= line <= text.count("\n") + 1


def one(text: str, stem: str = "stem") -> HotQuery:
    (query,), problems = parse(text, file="q.sql", stem=stem)
    assert problems == []
    return query


def wrong(text: str) -> tuple[int, str]:
    queries, (problem,) = parse(text, file="q.sql", stem="stem")
    assert (queries, problem.file) == ([], "q.sql")
    return problem.line, problem.message


FULL = """\
-- Licence.

-- name: newest_of_user
-- What it is for:
-- the first page.
-- param: user_id bigint = '42'
-- param: since timestamptz
-- set: busy: user_id = '7', since = '2026-01-01'
-- set: nobody: since = null
-- rule: no_seq_scan: public.orders
-- rule: rows: 1..100
-- rule: uses_index: {leading: user_id}
-- index: idx_orders_user
-- override: cost: a report: once a day

SELECT id FROM public.orders WHERE user_id = :user_id AND created_at > :since;
"""


def test_a_head_says_all_of_a_query() -> None:
    assert one(FULL) == HotQuery(
        name="newest_of_user",
        sql="SELECT id FROM public.orders WHERE user_id = CAST($1 AS bigint) AND created_at > CAST($2 AS timestamptz)",
        file="q.sql",
        line=16,
        purpose="What it is for: the first page.",
        parameters=(Parameter("user_id", "bigint"), Parameter("since", "timestamptz")),
        sets=(
            ValueSet("busy", {"user_id": "7", "since": "2026-01-01"}),
            ValueSet("nobody", {"user_id": "42", "since": None}),
        ),
        rules=(
            Expectation("no_seq_scan", "public.orders", "q.sql", 10),
            Expectation("rows", "1..100", "q.sql", 11),
            Expectation("uses_index", {"leading": "user_id"}, "q.sql", 12),
            Expectation("uses_index", "idx_orders_user", "q.sql", 13),
        ),
        overrides=(Expectation("cost", None, "q.sql", 14, "a report: once a day"),),
    )


def test_values_are_bound_in_the_order_of_their_numbers() -> None:
    query = one(FULL)
    assert [query.bound(each) for each in query.sets] == [("7", "2026-01-01"), ("42", None)]
    with pytest.raises(KeyError, match="since"):
        query.bound(ValueSet("half", {"user_id": "7"}))


def test_defaults_are_a_set_when_they_are_all_there_is_or_complete() -> None:
    head = "-- param: a int = 1\n-- param: b int"
    assert [each.name for each in one(f"{head}\nSELECT :a + :b").sets] == ["default"]
    assert [each.name for each in one(f"{head} = 2\n-- set: c: b = 3\nSELECT :a + :b").sets] == ["default", "c"]
    assert [each.name for each in one(f"{head}\n-- set: c: b = 3\nSELECT :a + :b").sets] == ["c"]
    assert one("SELECT :a").sets == ()
    assert one("SELECT 1").sets == (ValueSet("default", {}),)


def test_a_file_without_a_head_is_one_query_named_as_the_file() -> None:
    query = one("\n\n-- What for.\nSELECT 1\n", "by_file")
    assert (query.name, query.purpose, query.line) == ("by_file", "What for.", 4)


def test_text_of_pg_stat_statements_takes_types_and_values_by_number() -> None:
    query = one("-- param: $1 bigint = 4\n-- param: 2 = 'x'\n-- set: s: $2 = 'y'\nSELECT $1, date $2")
    assert query.sql == "SELECT CAST($1 AS bigint), CAST($2 AS date)"
    assert query.sets == (ValueSet("default", {"1": "4", "2": "x"}), ValueSet("s", {"1": "4", "2": "y"}))


def test_a_file_holds_several_queries_and_a_bad_one_takes_none_with_it() -> None:
    text = (
        "-- name: a\nSELECT 1;\n\n-- name: b\nSELEC 2;\n-- name: c d\nSELECT 3;\n"
        "-- name: e\n\nSELECT 'it;\n-- name: f\nSELECT 4"
    )
    queries, problems = parse(text, file="q.sql", stem="q")
    assert [(each.name, each.line) for each in queries] == [("a", 2), ("f", 12)]
    assert [(each.name, each.line) for each in problems] == [("b", 5), ("c d", 6), ("e", 10)]


@pytest.mark.parametrize(
    "name", ["-- name: a.b-c", "--name: a", "-- name: a!", "-- name: a$", "-- name: a :many", "  -- name:   a   "]
)
def test_heads_are_those_of_the_usual_libraries(name: str) -> None:
    assert one(f"{name}\nSELECT 1").name in ("a", "a.b-c")


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("bigint", "-1"), ("numeric(10, 2)", "1.50"), ("character varying(5)[]", "'{a,b}'"),
        ("timestamp(3) with time zone", "'2026-01-01'"), ("double precision", "0.5"), ('app."Status"', "'it''s'"),
        ("boolean", "TRUE"),
    ],
)  # fmt: skip
def test_a_parameter_has_any_type_and_a_literal(type_name: str, value: str) -> None:
    query = one(f"-- param: x {type_name} = {value}\nSELECT :x")
    assert query.parameters == (Parameter("x", type_name),)
    text = value.lower() if value == "TRUE" else value.strip("'").replace("''", "'")
    assert query.sets == (ValueSet("default", {"x": text}),)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no statement"),
        ("-- one\n-- two\n", 2, "no statement"),
        ("-- name: a\n-- nothing", 2, "no statement"),
        ("-- name: a\n\nSELECT\n FROM FROM", 4, 'syntax error at or near "FROM"'),
        ("-- name: a\nSELECT 'ü\n',\n 1 FROM FROM", 4, 'syntax error at or near "FROM"'),
        ("-- name: a\nSELECT 1;\nSELECT 2", 2, "a second statement"),
        ("-- name: a\nVACUUM t", 2, "VACUUM has no plan"),
        ("-- name: a b\nSELECT 1", 1, "no name: -- name: a b"),
        ("-- Name: a\nSELECT 1", 1, "no name: -- Name: a"),
        ("-- names: a\nSELECT 1", 1, 'unknown "-- names:"'),
        ("-- params: x\nSELECT 1", 1, 'unknown "-- params:"'),
        ("-- Rule: cost: 1\nSELECT 1", 1, 'unknown "-- Rule:"'),
        ("-- param: x int = now()\nSELECT :x", 1, "no parameter"),
        ("-- param: x int = 'it's'\nSELECT :x", 1, "no parameter"),
        ("-- param: x int; DROP TABLE t = 1\nSELECT :x", 1, "no parameter"),
        ("-- param: x int\n-- param: x text\nSELECT :x", 2, 'parameter "x" is said twice'),
        ("-- param: y int = 1\nSELECT :x", 2, 'parameter "y" is not used'),
        ("-- set: s: y = 1\nSELECT :x", 1, 'there is no parameter "y"'),
        ("-- set: s: x = 1, x = 2\nSELECT :x", 1, 'parameter "x" is said twice'),
        ("-- set: s: x = 1 y = 2\nSELECT :x", 1, "no value set"),
        ("-- set: s\nSELECT :x", 1, "no value set"),
        ("-- set: s: x = 1\n-- set: s: x = 2\nSELECT :x", 3, 'two value sets are called "s"'),
        ("-- rule: sort\nSELECT 1", 1, "expected a key, a colon and a value"),
        ("-- rule: uses_index: *_user\nSELECT 1", 1, "the rule's value is no YAML"),
        ("-- override: cost:\nSELECT 1", 1, "expected a key, a colon and a value"),
        ("SELECT 1\n-- rule: cost: 5\n", 2, '"-- rule:" stands inside the statement'),
        ("SELECT 1;\n\n-- index: i", 3, '"-- index:" stands inside the statement'),
        ("SELECT :a, %(b)s", 1, "parameters in two notations"),
        ("-- param: x wat?\nSELECT :x", 1, "no parameter"),
    ],
)
def test_a_problem_says_where_and_what(text: str, line: int, message: str) -> None:
    assert wrong(text) == (line, message)


def test_a_statement_before_the_first_head_is_a_problem_beside_the_others() -> None:
    queries, problems = parse("SELECT 0;\n-- name: a\nSELECT 1", file="q.sql", stem="q")
    assert [each.name for each in queries] == ["a"]
    assert problems == [Problem("q", 'a statement before the first "-- name:"', "q.sql", 1)]


def test_a_nameless_placeholder_gets_the_cure() -> None:
    _, (problem,) = parse("SELECT 1 WHERE k = %s", file="q.sql", stem="q")
    assert problem.hint == "give each parameter a name: :name or %(name)s"


def test_what_stands_in_a_string_is_no_head_and_no_command() -> None:
    text = "SELECT 'a\n\\x\n-- name: b\n', $$\n\\y\n-- name: c\n$$"
    assert one(f"-- name: a\n{text}").sql == text
    queries, problems = parse("\\echo it's\n-- name: a\nSELECT 1;\n-- name: b\nSELECT 'x';", file="q.sql", stem="q")
    assert ([each.name for each in queries], problems) == (["a", "b"], [])


def test_psql_commands_are_passed_over() -> None:
    assert one("\\restrict abc\n-- name: a\nSELECT 1;\n\\unrestrict abc\n").sql == "SELECT 1"


def test_a_word_of_a_purpose_is_no_directive() -> None:
    assert one("-- Note: the first page\n-- see: the wiki\nSELECT 1").purpose == "Note: the first page see: the wiki"


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", Kind.SELECT),
        ("VALUES (1)", Kind.SELECT),
        ("WITH x AS (SELECT 1) TABLE x", Kind.SELECT),
        ("INSERT INTO t VALUES (1)", Kind.WRITE),
        ("UPDATE t SET a = 1", Kind.WRITE),
        ("DELETE FROM t", Kind.WRITE),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", Kind.WRITE),
        ("SELECT 1 FROM t FOR UPDATE", Kind.WRITE),
        ("SELECT 1 FROM (SELECT 1 FROM t FOR SHARE) AS s", Kind.WRITE),
        ("WITH x AS (DELETE FROM t RETURNING a) SELECT a FROM x", Kind.WRITE),
        ("SELECT 1 INTO t", Kind.OTHER),
        ("CREATE TABLE t AS SELECT 1", Kind.OTHER),
        ("CREATE MATERIALIZED VIEW t AS SELECT 1", Kind.OTHER),
        ("DECLARE c CURSOR FOR SELECT 1", Kind.OTHER),
    ],
)
def test_what_a_statement_does_decides_whether_it_may_be_run(sql: str, kind: Kind) -> None:
    query = one(sql)
    assert (query.kind, query.why_not_run is None) == (kind, kind is Kind.SELECT)


def inline(**keys: Any) -> HotQuery | Problem:
    given: Mapping[str, Any] = {"name": "q", "sql": "SELECT :a", **keys}
    return from_config(given, file="perfctl.yaml", line=7)


def test_an_inline_query_says_the_same_as_a_file() -> None:
    found = inline(
        purpose="What for.",
        sql="\nSELECT :a, b % 2\n",
        params={"a": {"type": "bigint", "value": 42}},
        sets={"busy": {"a": None}},
        rules=[{"rows": "1..5"}],
        override={"cost": "once a day"},
    )
    assert found == HotQuery(
        name="q",
        sql="SELECT CAST($1 AS bigint), b % 2",
        file="perfctl.yaml",
        line=7,
        purpose="What for.",
        parameters=(Parameter("a", "bigint"),),
        sets=(ValueSet("default", {"a": "42"}), ValueSet("busy", {"a": None})),
        rules=(Expectation("rows", "1..5", "perfctl.yaml", 7),),
        overrides=(Expectation("cost", None, "perfctl.yaml", 7, "once a day"),),
        inline=True,
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (1.5, "1.5"), ("x", "x"), (None, None),
     (datetime.date(2026, 1, 1), "2026-01-01")],
)  # fmt: skip
def test_yaml_values_become_sql_text(value: object, text: str | None) -> None:
    found = inline(params={"a": value})
    assert isinstance(found, HotQuery)
    assert found.sets == (ValueSet("default", {"a": text}),)


def test_an_inline_query_of_numbers_takes_its_values_by_number() -> None:
    found = inline(sql="SELECT $1", params={"$1": {"type": "int", "value": 1}}, sets={"s": {1: 2}})
    assert isinstance(found, HotQuery)
    assert found.sets == (ValueSet("default", {"1": "1"}), ValueSet("s", {"1": "2"}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sql": "SELEC 1"}, 'syntax error at or near "SELEC"'),
        ({"params": {"a": {"typ": "int"}}}, 'parameter "a" has an unknown key "typ"'),
        ({"params": {"a": {"type": "int); DROP TABLE t --"}}}, "parameter \"a\": 'int); DROP TABLE t --' is no type"),
        ({"params": {"a": {"type": 5}}}, 'parameter "a": 5 is no type'),
        ({"params": {"a": [1, 2]}}, 'parameter "a" has no single value'),
        ({"params": {"a": {"value": {"x": 1}}}}, 'parameter "a" has no single value'),
        ({"params": {"b": 1}}, 'parameter "b" is not used'),
        ({"sets": {"s": {"b": 1}}}, 'there is no parameter "b"'),
        ({"sets": {"generic plan": {"a": 1}}}, '"generic plan" is no name for a value set'),
        ({"rules": [{"cost": 1, "rows": 2}]}, "a rule is one key and its value"),
    ],
)
def test_what_is_wrong_inline_is_a_problem_at_its_line(keys: dict[str, Any], message: str) -> None:
    found = inline(**keys)
    assert isinstance(found, Problem)
    assert (found.name, found.file, found.line, found.message) == ("q", "perfctl.yaml", 7, message)


def test_of_queries_with_one_name_none_is_taken_and_the_others_are() -> None:
    queries, _ = parse("-- name: a\nSELECT 1;\n-- name: b\nSELECT 2;\n-- name: a\nSELECT 3", file="q.sql", stem="q")
    found = together(queries, [])
    assert [each.name for each in found.queries] == ["b"]
    assert found.problems == (
        Problem("a", "2 queries have this name; the first is at q.sql:2", "q.sql", 6, "rename one"),
    )


def test_a_folder_is_read_in_order_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.sql").write_text("\ufeffSELECT 1", encoding="utf-8")
    (tmp_path / "sub" / "c.sql").write_text("SELECT 2\r\n", encoding="utf-8", newline="")
    (tmp_path / "a.sql").write_text("SELEC", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no SQL", encoding="utf-8")
    found = load(tmp_path, [({"name": "i", "sql": "SELECT 3"}, "perfctl.yaml", 3), ({"name": "j", "sql": ""}, "y", 4)])
    assert [each.name for each in found.queries] == ["b", "c", "i"]
    assert [(each.name, each.line) for each in found.problems] == [("a", 1), ("j", 4)]


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "latin.sql").write_bytes("-- x\nSELECT 'ü'".encode("latin-1"))
    (tmp_path / "good.sql").write_text("SELECT 1", encoding="utf-8")
    (tmp_path / "folder.sql").mkdir()
    found = load(tmp_path, files=[tmp_path / "none.sql"])
    assert [each.name for each in found.queries] == ["good"]
    assert [(each.name, each.message, each.line) for each in found.problems] == [
        ("folder", "it cannot be read: Is a directory", 1),
        ("latin", "it is not UTF-8", 2),
        ("none", "it cannot be read: No such file or directory", 1),
    ]


def test_a_chain_of_operators_that_is_too_deep_for_the_parser_is_a_problem() -> None:
    queries, (problem,) = parse(f"\nSELECT {' + '.join('1' * 3000)}", file="q.sql", stem="q")
    assert queries == []
    assert problem.message == "expressions are nested too deep to be looked at"


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "a b", "1st", ".."])
def test_an_inline_query_is_named_as_one_in_a_file(name: str) -> None:
    problem = from_config({"name": name, "sql": "SELECT 1"}, file="perfctl.yaml", line=7)
    assert isinstance(problem, Problem)
    assert (problem.message, problem.line) == (f'"{name}" is no name', 7)


def test_a_file_is_called_as_from_the_folder_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.sql").write_text("SELECT 1", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert [each.file for each in load(tmp_path / "sub").queries] == ["sub/a.sql"]
