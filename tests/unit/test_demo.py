"""The demo's decisions on plain values: the reference queries, plans, the verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perfctl.demo import place, reference
from perfctl.demo.files import sql_folder
from perfctl.demo.measure import Timing, scans
from perfctl.demo.show import configuration
from perfctl.demo.traffic import Traffic
from perfctl.demo.verdict import Compared, Shown, p95, say_ms
from perfctl.errors import Refused, UsageError
from perfctl.hotqueries.model import Expectation, HotQuery
from perfctl.report import Item, Report, Status

QUERIES = sql_folder() / "queries"


def test_each_of_the_reference_systems_queries_can_be_read() -> None:
    found = reference.hot_queries(sql_folder())
    assert len(found) == 27
    assert len({each.index for each in found}) == 27


def test_a_reference_query_that_is_not_usable_ends_the_demo_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "q.sql").write_text("-- name: q\n-- index: i\nSELEC 1;\n", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        reference.hot_queries(tmp_path)
    assert refused.value.message == f'{tmp_path}/queries/q.sql:3: error: syntax error at or near "SELEC"'


@pytest.mark.parametrize("query", reference.hot_queries(sql_folder()), ids=lambda query: query.name)
def test_a_reference_query_says_what_it_is_for_its_index_and_a_sample_of_every_parameter(query: HotQuery) -> None:
    text = (QUERIES / f"{query.name}.sql").read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("--")]
    words = [re.match(r"-- (?:(name|param|index): )?", line) for line in head]
    assert [found and found[1] for found in words] == ["name", None, *("param",) * len(query.parameters), "index"]
    assert query.purpose
    assert [each.key for each in query.rules] == ["uses_index"]
    assert re.fullmatch(r"idx_[a-z_]+", query.index or "")
    assert all(each.type for each in query.parameters)
    (values,) = query.sets
    assert [*values.values] == [each.name for each in query.parameters]
    assert None not in query.bound(values)
    assert query.why_not_run is None
    assert text.endswith(";\n")


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
    found = HotQuery("q", "SELECT 1", "q.sql", 1, rules=(Expectation("uses_index", "i0"),))
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
