"""Plans, tables and indexes for the rules to judge, each with only what a test is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfctl.explain.model import Catalogue, IndexFacts, Node, Plan, Relation, TableFacts
from perfctl.explain.rule import Evidence

#: pages of a table that is large enough to be judged
LARGE = 5000


def relation(name: str) -> Relation:
    """``orders`` in public, or ``schema.name``."""
    schema, dot, table = name.rpartition(".")
    return Relation(schema if dot else "public", table)


def node(kind: str, *plans: Node, on: str = "", alias: str = "", **keys: Any) -> Node:
    """A node of the kind; ``on`` is its relation, whose name is the alias unless one is given."""
    table = relation(on) if on else None
    conditions = tuple((keys.pop("conditions", None) or {}).items())
    figures = {"rows": 10.0, "cost": 100.0, "startup_cost": 0.0, "width": 8, **keys}
    return Node(
        type=kind, relation=table, alias=alias or (table.name if table else None), conditions=conditions, plans=plans,
        **figures,
    )  # fmt: skip


def seq_scan(on: str = "orders", alias: str = "", **keys: Any) -> Node:
    """A scan of the whole table, with a filter."""
    return node("Seq Scan", on=on, alias=alias, **{"conditions": {"Filter": "(k = 1)"}, **keys})


def index_scan(index: str, on: str = "orders", alias: str = "", kind: str = "Index Scan", **keys: Any) -> Node:
    """A scan by an index, with a condition."""
    return node(kind, on=on, alias=alias, index=index, **{"conditions": {"Index Cond": "(k = 1)"}, **keys})


def bitmap_scan(index: str, on: str = "orders", alias: str = "") -> Node:
    """A bitmap heap scan over one index."""
    below = node("Bitmap Index Scan", on=on, alias=alias, index=index, conditions={"Index Cond": "(k = 1)"})
    return node("Bitmap Heap Scan", below, on=on, alias=alias)


def plan(root: Node, **keys: Any) -> Plan:
    """A plan of these nodes."""
    return Plan(root, **keys)


def table(name: str, pages: int = LARGE, root: str = "") -> TableFacts:
    """A table of so many pages, or a partition below ``root``."""
    place, top = relation(name), relation(root) if root else None
    return TableFacts(
        oid=abs(hash(name)) % 10**6, schema=place.schema, name=place.name, relkind="r", pages=pages, rows=pages * 50.0,
        root_schema=top.schema if top else None, root_name=top.name if top else None, partitions=0,
    )  # fmt: skip


def index(name: str, on: str = "orders", *keys: str, **changes: Any) -> IndexFacts:
    """A usable btree index on these keys, on ``k`` where none is given."""
    place = relation(on)
    facts = {
        "schema": place.schema, "table": place.name, "name": name, "method": "btree", "keys": list(keys or ("k",)),
        "is_usable": True, "definition": f"CREATE INDEX {name}", "part_of": None,
    }  # fmt: skip
    return IndexFacts(**{**facts, **changes})


def catalogue(*facts: TableFacts | IndexFacts) -> Catalogue:
    """All of them; where no table is given, a large one called orders."""
    tables: Mapping[Relation, TableFacts] = {each.relation: each for each in facts if isinstance(each, TableFacts)}
    return Catalogue(
        tables or {relation("orders"): table("orders")}, tuple(each for each in facts if isinstance(each, IndexFacts))
    )


def seen(root: Node, *facts: TableFacts | IndexFacts, **keys: Any) -> Evidence:
    """A plan for the values of the set default; other plans may be given by their root."""
    plans: dict[str, Any] = {
        key: plan(value) if isinstance(value, Node) else value
        for key, value in keys.items()
        if key in ("ran", "served", "generic")
    }
    rest: dict[str, Any] = {key: value for key, value in keys.items() if key not in plans and key != "planning_ms"}
    return Evidence(
        **{"angle": "default", **rest}, plan=Plan(root, planning_ms=keys.get("planning_ms")),
        catalogue=catalogue(*facts), **plans,
    )  # fmt: skip
