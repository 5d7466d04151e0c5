"""``join_method``: every join is of that method: ``join_method: hash``, or ``nested loop``, ``merge``, or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import BadRule, Evidence, Standard, Verdict, cannot_tell, fails, holds

METHODS = {"hash": "Hash Join", "merge": "Merge Join", "nested loop": "Nested Loop"}


@dataclass(frozen=True, slots=True)
class JoinMethod(Standard):
    """Joins by other methods are findings."""

    allowed: tuple[str, ...]
    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From one method or several."""
        found = value if isinstance(value, list) else [value]
        if not found or not all(isinstance(each, str) and each.lower() in METHODS for each in found):
            raise BadRule(f"expected {', '.join(METHODS)}, or a list of them")
        return cls(tuple(METHODS[each.lower()] for each in found))

    def judge(self, seen: Evidence) -> Verdict:
        """The first join by another method."""
        joins = [node for node in seen.plan.nodes() if node.type in METHODS.values()]
        for node in joins:
            if node.type not in self.allowed:
                return seen.small_says() or fails(f"{node.type}, not {' or '.join(self.allowed)}", node)
        return holds() if joins else cannot_tell("the plan has no join")
