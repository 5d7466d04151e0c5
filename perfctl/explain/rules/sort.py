"""``sort``: ``sort: absent`` wants the order to come from an index: no sort is in the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import HOLDS, BadRule, Evidence, Standard, Verdict, fails

_SORTS = ("Sort", "Incremental Sort")


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
        """The first sort; for small tables in the plan without sequential scans."""
        plan = seen.served or seen.plan
        for node in plan.nodes():
            if node.type in _SORTS:
                key = dict(node.conditions).get("Sort Key", "")
                return fails(f"sorts by {key}", node, f"an index that ends in {key}")
        return HOLDS
