"""``forbid``: a kind of node must not be in the plan: ``forbid: Nested Loop``, ``forbid: [Sort, Materialize]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import HOLDS, Evidence, Standard, Verdict, fails
from perfctl.explain.rules.require import node_types


@dataclass(frozen=True, slots=True)
class Forbid(Standard):
    """None of these nodes."""

    types: tuple[str, ...]
    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a node's type as EXPLAIN prints it, or several."""
        return cls(node_types(value))

    def judge(self, seen: Evidence) -> Verdict:
        """The first node of such a type."""
        for node in seen.plan.nodes():
            if node.type in self.types:
                return seen.small_says() or fails(f"{node.type} is in the plan", node)
        return HOLDS
