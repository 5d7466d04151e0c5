"""EXPLAIN's JSON as a tree: what PostgreSQL 18 gave for some statements, less what is not read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from perfctl.explain.model import Plan, Relation
from perfctl.explain.plan import read

T, E = Relation("public", "t"), Relation("public", "e")


@cache
def plans() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("explain_plans.json").read_text(encoding="utf-8"))
    return found


def given(name: str) -> Plan:
    return read(plans()[name])


def nodes(name: str) -> list[str]:
    return [str(node) for node in given(name).nodes()]


@pytest.mark.parametrize("name", ["or", "and"])
def test_every_scan_of_a_bitmap_knows_whose_index_it_reads(name: str) -> None:
    plan = given(name)
    assert nodes(name) == [
        "Bitmap Heap Scan on public.t",
        "BitmapOr" if name == "or" else "BitmapAnd",
        "Bitmap Index Scan using t_a",
        "Bitmap Index Scan using t_b",
    ]
    assert [node.relation for node in plan.nodes()] == [T, None, T, T]
    assert plan.access == (
        ("Bitmap Heap Scan", "public.t", ""),
        ("Bitmap Index Scan", "public.t", "t_a"),
        ("Bitmap Index Scan", "public.t", "t_b"),
    )


def test_a_bitmap_that_reports_no_row_is_not_misjudged() -> None:
    plan = given("or")
    bitmap = next(node for node in plan.nodes() if node.type == "BitmapOr")
    assert (bitmap.actual_rows, bitmap.rows, bitmap.q_error) == (0.0, 100, None)
    assert {error for _, error in plan.q_errors()} == {1.0}


def test_figures_are_those_of_the_run() -> None:
    plan = given("or")
    assert (plan.was_run, plan.root.blocks, plan.root.temp_blocks, plan.root.lossy_blocks) == (True, 94, 0, 0)
    assert (plan.root.actual_rows, plan.root.loops, plan.root.rows) == (100.0, 1, 100)
    assert plan.execution_ms == plans()["or"]["Execution Time"]
    assert plan.raw is plans()["or"]


def test_a_plan_that_was_not_run_has_no_actual_figures() -> None:
    plan = given("insert")
    assert (plan.was_run, plan.execution_ms, plan.root.blocks, plan.root.q_error) == (False, None, None, None)
    assert plan.planning_ms == plans()["insert"]["Planning Time"]


def test_partitions_stand_side_by_side() -> None:
    plan = given("append")
    assert sorted(map(str, plan.relations)) == ["public.ev_1", "public.ev_2", "public.ev_3"]
    assert plan.pruned == 0
    assert plan.shape == (
        "Append(Bitmap Heap Scan on public.ev_1(Bitmap Index Scan using ev_1_k_idx),"
        " Bitmap Heap Scan on public.ev_2(Bitmap Index Scan using ev_2_k_idx),"
        " Bitmap Heap Scan on public.ev_3(Bitmap Index Scan using ev_3_k_idx))"
    )


def test_partitions_that_were_pruned_at_the_start_are_counted_and_not_shown() -> None:
    plan = given("generic_pruned")
    assert (nodes("generic_pruned"), plan.pruned, plan.relations) == (["Append"], 3, frozenset())


def test_partitions_that_were_pruned_on_the_way_were_never_executed() -> None:
    scans = [node for node in given("runpruned").nodes() if node.type == "Bitmap Heap Scan"]
    assert [(str(node.relation), node.loops, node.q_error) for node in scans] == [
        ("public.ev_1", 0, None), ("public.ev_2", 1, 1.0), ("public.ev_3", 0, None),
    ]  # fmt: skip


def test_what_a_statement_writes_to_is_no_table_that_it_reads() -> None:
    assert nodes("insert") == ["Insert on public.t", "Result"]
    assert given("insert").relations == frozenset()
    assert nodes("update") == ["Update on public.t", "Index Scan using t_pkey on public.t"]
    assert given("update").access == (("Index Scan", "public.t", "t_pkey"),)


def test_ctes_and_subplans_are_part_of_the_tree() -> None:
    plan = given("cte")
    assert plan.relations == {T, E}
    named = [(node.subplan, node.relationship, str(node)) for node in plan.nodes() if node.subplan]
    assert named == [
        ("CTE x", "InitPlan", "Bitmap Heap Scan on public.t"),
        ("SubPlan 3", "SubPlan", "Result"),
        ("InitPlan 2", "InitPlan", "Limit"),
    ]
    assert plan.shape.startswith("Nested Loop Semi(Bitmap Heap Scan on public.t(")
    assert "Index Scan using t_pkey on public.t t2" in plan.shape


def test_a_plan_may_read_nothing() -> None:
    plan = given("false")
    assert (plan.access, plan.root.conditions) == ((), (("One-Time Filter", "false"),))


@pytest.mark.parametrize("name", ["limit", "exists"])
def test_what_was_stopped_early_is_not_misjudged(name: str) -> None:
    plan = given(name)
    assert max(node.q_error or 0 for node in plan.nodes()) >= 10_000
    assert {error for _, error in plan.q_errors()} == {1.0}


def test_what_a_merge_join_reads_again_is_counted_once() -> None:
    plan = given("merge")
    materialize = next(node for node in plan.nodes() if node.type == "Materialize")
    assert materialize.q_error == pytest.approx(2.0, rel=0.01)
    judged = {node.type for node, _ in plan.q_errors()}
    assert judged == {"Aggregate", "Merge Join", "Index Scan", "Index Only Scan"}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"Node Type": "Aggregate", "Strategy": "Plain"}, "Aggregate"),
        ({"Node Type": "Aggregate", "Strategy": "Sorted"}, "GroupAggregate"),
        ({"Node Type": "Aggregate", "Strategy": "Hashed"}, "HashAggregate"),
        ({"Node Type": "Aggregate", "Strategy": "Mixed"}, "MixedAggregate"),
        ({"Node Type": "SetOp", "Strategy": "Hashed"}, "HashSetOp"),
        ({"Node Type": "SetOp", "Strategy": "Sorted"}, "SetOp"),
        ({"Node Type": "ModifyTable", "Operation": "Merge"}, "Merge"),
        ({"Node Type": "Index Scan", "Scan Direction": "Backward"}, "Index Scan"),
        ({"Node Type": "Seq Scan", "Parallel Aware": True}, "Seq Scan"),
    ],
)
def test_nodes_are_called_as_explain_prints_them(raw: dict[str, Any], name: str) -> None:
    assert read({"Plan": raw}).root.type == name


def test_conditions_of_several_parts_are_one_text() -> None:
    raw = {"Node Type": "Sort", "Sort Key": ["a", "b DESC"], "Workers Planned": 2}
    root = read({"Plan": raw, "Settings": {"work_mem": "1MB"}}).root
    assert (root.conditions, root.workers_planned) == ((("Sort Key", "a, b DESC"),), 2)


def test_tables_of_one_name_in_two_schemas_are_told_apart() -> None:
    raw = [
        {"Node Type": "Seq Scan", "Relation Name": "t", "Schema": schema, "Alias": alias}
        for schema, alias in (("a", "t"), ("b", "t_1"))
    ]
    plan = read({"Plan": {"Node Type": "Nested Loop", "Plans": raw}})
    assert plan.access == (("Seq Scan", "a.t", ""), ("Seq Scan", "b.t", ""))
    assert plan.shape == "Nested Loop(Seq Scan on a.t, Seq Scan on b.t t_1)"


def test_a_scan_without_verbose_has_no_schema() -> None:
    assert read({"Plan": {"Node Type": "Seq Scan", "Relation Name": "t"}}).relations == {Relation("", "t")}
