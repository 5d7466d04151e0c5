"""``generic_equals_custom``: the plan for any value reads tables as the plan for these values does.

A prepared statement is planned for any value once five executions cost no less than that
(choose_custom_plan, src/backend/utils/cache/plancache.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import GENERIC, Node, Plan
from perfctl.explain.rule import HOLDS, BadRule, Evidence, Standard, Verdict, cannot_tell, fails


@dataclass(frozen=True, slots=True)
class GenericEqualsCustom(Standard):
    """Another access path is a finding."""

    may_tie = True
    takes_generic = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From true."""
        if value is not True:
            raise BadRule("expected true")
        return cls()

    def judge(self, seen: Evidence) -> Verdict:
        """Compares how each relation is read."""
        if seen.angle == GENERIC:
            return cannot_tell("there are no values to plan it for")
        if seen.generic is None:
            return cannot_tell("there is no generic plan of it")
        if (small := seen.small_says()) is not None:
            return small
        mine, any_value = _reads(seen.plan, seen), _reads(seen.generic, seen)
        tables = mine.keys() | any_value.keys()
        if seen.plan.pruned or seen.generic.pruned:
            # Which partitions are left is decided by values; how those are read can be compared.
            tables = mine.keys() & any_value.keys()
            if not tables:
                return cannot_tell("which partitions are read is decided as the plan is started")
        differing = {table for table in tables if mine.get(table) != any_value.get(table)}
        if not differing:
            return HOLDS
        other = next((n for n in seen.generic.nodes() if _differs(n, differing, mine, seen)), None)
        saw = f"the generic plan reads otherwise: {other or seen.generic.root}"
        return fails(saw, other, "plan_cache_mode = force_custom_plan for the role, or no prepared statement here")


#: by table (an occurrence of it, or a partitioned table), the ways in which it is read
Reads = dict[str, set[tuple[str, str]]]


def _reads(plan: Plan, seen: Evidence) -> Reads:
    found: Reads = {}
    for node in plan.nodes():
        if node.relation is not None:
            table, way = _way(node, seen)
            found.setdefault(table, set()).add(way)
    return found


def _way(node: Node, seen: Evidence) -> tuple[str, tuple[str, str]]:
    """Of partitions, whatever their number, the partitioned table's name and index."""
    assert node.relation is not None
    facts = seen.catalogue.tables.get(node.relation)
    if facts is None or facts.root is None:
        return f"{node.relation} {node.alias}", (node.type, node.index or "")
    index = seen.catalogue.index(node.index, node.relation) if node.index else None
    return str(facts.root), (node.type, (index.part_of if index else None) or node.index or "")


def _differs(node: Node, tables: set[str], mine: Reads, seen: Evidence) -> bool:
    if node.relation is None:
        return False
    table, way = _way(node, seen)
    return table in tables and way not in mine.get(table, set())
