"""EXPLAIN's JSON as a tree of nodes. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from perfctl.explain.model import Node, Plan, Relation

#: what is shown of a node beside its figures, in PostgreSQL's own words
CONDITIONS = (
    "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "Filter", "TID Cond", "Order By",
    "Sort Key", "Presorted Key", "Group Key", "One-Time Filter", "Cache Key",
)  # fmt: skip


def read(explained: Mapping[str, Any], asked: Container[str] = ()) -> Plan:
    """The plan in one element of what ``EXPLAIN (FORMAT JSON, VERBOSE)`` gives, without the settings ``asked`` for.

    Without VERBOSE relations have no schema. Raises KeyError for what is no plan.
    """
    return Plan(
        _node(explained["Plan"], None),
        {name: value for name, value in (explained.get("Settings") or {}).items() if name not in asked},
        explained.get("Planning Time"),
        explained.get("Execution Time"),
        explained,
    )


def _node(raw: Mapping[str, Any], heap: Mapping[str, Any] | None) -> Node:
    kind = raw["Node Type"]
    # A bitmap index scan does not say whose index it reads: the heap scan above it does.
    of = heap if kind == "Bitmap Index Scan" and heap else raw
    below = raw if kind == "Bitmap Heap Scan" else heap if kind in ("BitmapAnd", "BitmapOr") else None
    name = of.get("Relation Name")
    return Node(
        type=_type(raw),
        rows=raw.get("Plan Rows", 0),
        cost=raw.get("Total Cost", 0.0),
        startup_cost=raw.get("Startup Cost", 0.0),
        width=raw.get("Plan Width", 0),
        relation=Relation(of.get("Schema", ""), name) if name and kind != "ModifyTable" else None,
        alias=of.get("Alias"),
        target=Relation(of.get("Schema", ""), name) if name and kind == "ModifyTable" else None,
        index=raw.get("Index Name"),
        conditions=tuple((key, _words(raw[key])) for key in CONDITIONS if key in raw),
        join_type=raw.get("Join Type"),
        relationship=raw.get("Parent Relationship"),
        subplan=raw.get("Subplan Name"),
        workers_planned=raw.get("Workers Planned", 0),
        removed=raw.get("Subplans Removed", 0),
        actual_rows=raw.get("Actual Rows"),
        loops=raw.get("Actual Loops"),
        blocks=_sum(raw, "Shared Hit Blocks", "Shared Read Blocks"),
        temp_blocks=_sum(raw, "Temp Read Blocks", "Temp Written Blocks"),
        heap_fetches=raw.get("Heap Fetches"),
        lossy_blocks=raw.get("Lossy Heap Blocks"),
        rows_removed=raw.get("Rows Removed by Filter"),
        plans=tuple(_node(each, below) for each in raw.get("Plans", ())),
    )


def _type(raw: Mapping[str, Any]) -> str:
    """The node as EXPLAIN's text form calls it, without its direction: HashAggregate, Index Scan, Insert."""
    kind: str = raw["Node Type"]
    strategy = raw.get("Strategy")
    if kind == "Aggregate" and strategy:
        return {"Sorted": "GroupAggregate", "Hashed": "HashAggregate", "Mixed": "MixedAggregate"}.get(strategy, kind)
    if kind == "SetOp" and strategy == "Hashed":
        return "HashSetOp"
    if kind == "ModifyTable":
        return str(raw.get("Operation", kind))
    return kind


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sum(raw: Mapping[str, Any], *keys: str) -> int | None:
    found = [raw[key] for key in keys if key in raw]
    return sum(found) if found else None
