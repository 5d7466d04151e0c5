"""``sort``: ``sort: absent`` wants the order to come from an index: no sort is in the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import Node, Plan
from perfctl.explain.rule import HOLDS, BadRule, Evidence, Standard, Verdict, fails, holds

SORTS = ("Sort", "Incremental Sort")


@dataclass(frozen=True, slots=True)
class Sort(Standard):
    """Any sort is a finding."""

    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From the word absent."""
        if value != "absent":
            raise BadRule("expected absent")
        return cls()

    def judge(self, seen: Evidence) -> Verdict:
        """The first sort. For small tables an index that could give the order may not be worth its while."""
        found = _sorts(seen.plan)
        if not found:
            return HOLDS
        if (small := seen.small_says()) is not None:
            served = seen.served is not None and not _sorts(seen.served)
            return holds("too small here to choose it; an index can give the order") if served else small
        key = dict(found[0].conditions).get("Sort Key", "")
        return fails(f"sorts by {key}", found[0], f"an index that ends in {key}")


def _sorts(plan: Plan) -> list[Node]:
    return [node for node in plan.nodes() if node.type in SORTS]
