"""``require``: a kind of node has to be in the plan: ``require: Memoize``, ``require: [Hash Join, Gather]``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import BadRule, Evidence, Standard, Verdict, fails, holds

#: as EXPLAIN prints them (ExplainNode, src/backend/commands/explain.c)
NODE_TYPES = frozenset({
    "Result", "ProjectSet", "Insert", "Update", "Delete", "Merge", "Append", "Merge Append", "Recursive Union",
    "BitmapAnd", "BitmapOr", "Nested Loop", "Merge Join", "Hash Join", "Seq Scan", "Sample Scan", "Gather",
    "Gather Merge", "Index Scan", "Index Only Scan", "Bitmap Index Scan", "Bitmap Heap Scan", "Tid Scan",
    "Tid Range Scan", "Subquery Scan", "Function Scan", "Table Function Scan", "Values Scan", "CTE Scan",
    "Named Tuplestore Scan", "WorkTable Scan", "Foreign Scan", "Custom Scan", "Materialize", "Memoize", "Sort",
    "Incremental Sort", "Group", "Aggregate", "GroupAggregate", "HashAggregate", "MixedAggregate", "WindowAgg",
    "Unique", "SetOp", "HashSetOp", "LockRows", "Limit", "Hash",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Require(Standard):
    """All of these nodes."""

    types: tuple[str, ...]
    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a node's type as EXPLAIN prints it, or several."""
        return cls(node_types(value))

    def judge(self, seen: Evidence) -> Verdict:
        """What is missing."""
        there = {node.type for node in seen.plan.nodes()}
        if missing := [each for each in self.types if each not in there]:
            return seen.small_says() or seen.pruned_says() or fails(f"there is no {missing[0]}", seen.plan.root)
        return holds()


def node_types(value: Any) -> tuple[str, ...]:
    """One or several types of node. Raises BadRule for one that PostgreSQL has not."""
    found = value if isinstance(value, list) else [value]
    known = {each.casefold(): each for each in NODE_TYPES}
    types = []
    for each in found:
        if not isinstance(each, str) or each.casefold() not in known:
            near = difflib.get_close_matches(str(each).casefold(), known, 1)
            raise BadRule(f"there is no node {each!r}" + (f"; did you mean {known[near[0]]!r}?" if near else ""))
        types.append(known[each.casefold()])
    if not types:
        raise BadRule("expected a node, such as Hash Join")
    return tuple(types)
