"""The demo's decisions on plain values: query headers, placeholders, plans, the verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perfctl.demo import place, query
from perfctl.demo.files import sql_folder
from perfctl.demo.measure import Timing, scans
from perfctl.demo.placeholders import BadText, bind
from perfctl.demo.query import BadQuery, HotQuery, Parameter, parse
from perfctl.demo.show import configuration
from perfctl.demo.traffic import Traffic
from perfctl.demo.verdict import Compared, Shown, p95, say_ms
from perfctl.errors import Refused
from perfctl.report import Item, Report, Status

HEAD = "-- name: q\n-- What it is for: this.\n-- param: a text = 'it''s'\n-- param: n bigint = -1\n-- index: idx\n"
BODY = "SELECT 1 FROM t WHERE a = :a AND n = :n;\n"


def test_a_query_is_its_header_and_its_bound_statement() -> None:
    assert parse(HEAD + BODY, "q") == HotQuery(
        "q",
        "What it is for: this.",
        (Parameter("a", "text", "it's"), Parameter("n", "bigint", "-1")),
        "idx",
        "SELECT 1 FROM t WHERE a = CAST(%(a)s AS text) AND n = CAST(%(n)s AS bigint)",
    )


def test_a_query_needs_no_parameters() -> None:
    found = parse("-- name: q\n-- Purpose.\n-- index: i\nSELECT 1;\n", "q")
    assert (found.samples, found.statement) == ({}, "SELECT 1")


def test_each_of_the_reference_systems_queries_can_be_read() -> None:
    found = query.load(sql_folder() / "queries")
    assert len(found) == 27
    assert len({each.index for each in found}) == 27


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        (HEAD.replace("name: q", "name: other") + BODY, 1),
        (HEAD.replace("-- What it is for: this.\n", "") + BODY, 2),
        (HEAD.replace("-- index: idx\n", "") + BODY, 5),
        (HEAD.replace("= 'it''s'", "= 'it's'") + BODY, 3),
        (HEAD.replace("= 'it''s'", "= now()") + BODY, 3),
        (HEAD.replace("a text", "a text; DROP TABLE t") + BODY, 3),
        (HEAD.replace("-- index: idx", "-- index: idx, other") + BODY, 5),
        (HEAD + "-- tags: hot\n" + BODY.replace(":n", ":m"), 7),
        (HEAD + BODY.replace(";", ""), 6),
        (HEAD + BODY + "SELECT 2;\n", 6),
        (HEAD + "SELECT :n, :a;\n", 6),
        (HEAD + "SELECT :a;\n", 6),
    ],
)
def test_a_header_that_is_not_strict_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(BadQuery) as refused:
        parse(text, "q", "queries/q.sql")
    assert refused.value.message.startswith(f"queries/q.sql:{line}: error: ")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("SELECT x::text FROM t WHERE k = :k;", "SELECT x::text FROM t WHERE k = CAST(%(k)s AS int)"),
        ("SELECT d ? 'x' AND d ?| :k;", "SELECT d ? 'x' AND d ?| CAST(%(k)s AS int)"),
        ("SELECT ':k', E'\\':k', \":k\", :k;", "SELECT ':k', E'\\':k', \":k\", CAST(%(k)s AS int)"),
        ("SELECT $$:k;$$, $a$ :k $$ $a$, :k;", "SELECT $$:k;$$, $a$ :k $$ $a$, CAST(%(k)s AS int)"),
        ("SELECT :k -- at 10:30; :no\n;", "SELECT CAST(%(k)s AS int) -- at 10:30; :no"),
        ("SELECT /* :no; */ a[1:2], f(x := :k);", "SELECT /* :no; */ a[1:2], f(x := CAST(%(k)s AS int))"),
        ("SELECT 5 % :k, 'a%';", "SELECT 5 %% CAST(%(k)s AS int), 'a%%'"),
        ("SELECT :k + :k;", "SELECT CAST(%(k)s AS int) + CAST(%(k)s AS int)"),
        ("SELECT '2026-01-01 10:30'::timestamptz + :k::int;",
         "SELECT '2026-01-01 10:30'::timestamptz + CAST(%(k)s AS int)::int"),
    ],
)  # fmt: skip
def test_only_a_placeholder_is_taken_for_one(text: str, bound: str) -> None:
    assert bind(text, {"k": "int"}) == bound


def test_a_placeholder_without_a_parameter_is_refused_with_its_line() -> None:
    with pytest.raises(BadText) as refused:
        bind("SELECT 1\n  + :k;", {})
    assert refused.value.line == 2


def test_scans_are_found_in_the_depth_of_a_plan() -> None:
    plan = {
        "Node Type": "Limit",
        "Plans": [
            {"Node Type": "Bitmap Heap Scan", "Relation Name": "t", "Plans": [
                {"Node Type": "Bitmap Index Scan", "Index Name": "i"},
            ]},
            {"Node Type": "Seq Scan", "Relation Name": "u"},
        ],
    }  # fmt: skip
    assert [node["Node Type"] for node in scans(plan)] == ["Bitmap Index Scan", "Seq Scan"]


def report(status: Status, number: int = 2) -> Report:
    items = tuple(Item("index", f"s.i{each}", status) for each in range(number))
    return Report("indexes", "demo", items, datetime(2026, 1, 1, tzinfo=UTC), 1.0)


def compared(before_ms: float, after_ms: float, *indexes: str) -> Compared:
    found = HotQuery("q", "Purpose.", (), "i0", "SELECT 1")
    return Compared(found, Timing(before_ms, 5, ("Seq Scan on t",), ()), Timing(after_ms, 9, ("…",), indexes))


SHOWN = Shown(
    plan=report(Status.PLANNED),
    apply=report(Status.CHANGED),
    traffic=Traffic(4, 1000, 0, 12.5, 3.0, ()),
    verify=report(Status.OK),
    queries=(compared(30.0, 0.1, "i0"), compared(10.0, 0.1, "i0"), compared(20.0, 10.0, "pkey", "i0")),
    rollback=report(Status.CHANGED),
    absent=report(Status.OK),
)


def broken(shown: Shown, *left: str) -> list[str]:
    return [item.name for item in shown.promises(left) if item.status is not Status.OK]


def test_a_show_in_which_all_went_well_breaks_no_promise() -> None:
    assert broken(SHOWN) == []
    assert SHOWN.figures().data == {
        "indexes": 2, "requests": 1000, "failed_requests": 0, "longest_stall_ms": 12.5,
        "median_ratio": 100.0, "p95_before_ms": 30.0, "p95_after_ms": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "promise"),
    [
        (replace(SHOWN, traffic=replace(SHOWN.traffic, failed=1, errors=("lost",))), "nobody failed"),
        (replace(SHOWN, traffic=replace(SHOWN.traffic, longest_stall_ms=1000.1)), "nobody waited"),
        (replace(SHOWN, queries=(*SHOWN.queries, compared(1.0, 1.0, "other"))), "used"),
        (replace(SHOWN, verify=report(Status.FINDING)), "verified"),
        (replace(SHOWN, absent=report(Status.OK, 3)), "gone again"),
        (replace(SHOWN, absent=report(Status.UNKNOWN)), "gone again"),
        (replace(SHOWN, rollback=report(Status.CHANGED, 1)), "gone again"),
        (replace(SHOWN, plan=report(Status.PLANNED, 3)), "built"),
    ],
)
def test_each_promise_can_be_broken_alone(shown: Shown, promise: str) -> None:
    assert broken(shown) == [promise]


def test_nothing_built_is_a_promise_broken() -> None:
    none = report(Status.OK, 0)
    shown = replace(SHOWN, plan=none, apply=none, verify=none, rollback=none, absent=none)
    assert broken(shown) == ["built"]


def test_a_folder_left_behind_is_a_promise_broken() -> None:
    assert broken(SHOWN, "/tmp/perfctl-x") == ["nothing left"]


def test_a_query_past_its_index_is_a_finding_that_says_what_is_read_instead() -> None:
    item = compared(1.0, 2.0, "other").item()
    assert (item.status, item.data["ratio"]) == (Status.FINDING, 0.5)
    assert item.detail.endswith('; "i0" is not used: …')


def test_p95_is_one_of_the_values() -> None:
    assert p95([*range(1, 101)]) == 95
    assert p95([3.0]) == 3.0


def test_milliseconds_have_about_three_digits() -> None:
    assert [say_ms(ms) for ms in (0.123, 9.99, 12.34, 1234.5)] == ["0.12 ms", "9.99 ms", "12.3 ms", "1,234 ms"]


def test_a_dollar_in_a_path_is_not_expanded() -> None:
    assert 'migrations: "/tmp/a$${b}\\"/migrations"' in configuration("d", "c", '/tmp/a${b}"')


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_folder": true, "files": 1}'])
def test_a_manifest_that_is_not_perfctls_ends_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / place.MANIFEST).write_text(text)
    with pytest.raises(Refused):
        place.down(tmp_path)
    assert (tmp_path / place.MANIFEST).read_text() == text


def test_a_manifest_cannot_reach_out_of_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    digest = place._put(outside / "a.sql", b"SELECT 1;")
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "sql").symlink_to(outside)
    names = ("../outside/a.sql", "sql/a.sql", str(outside / "a.sql"))
    place._write_manifest(folder, True, dict.fromkeys(names, digest))
    assert place.down(folder).removed == 0
    assert (outside / "a.sql").is_file()
