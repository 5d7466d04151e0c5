"""``cost``: the planner's estimate of the whole is at most this: ``cost: 5000``."""

from __future__ import annotations

from dataclasses import dataclass

from perfctl.explain.rule import Ceiling, Evidence, Verdict, fails, heaviest_scan, holds, human


@dataclass(frozen=True, slots=True)
class Cost(Ceiling):
    """More is a finding."""

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if (small := seen.small_says()) is not None:
            return small
        root = seen.plan.root
        if root.cost <= self.most:
            return holds(f"cost {human(root.cost)}")
        part = heaviest_scan(seen.plan, lambda n: n.cost)
        return fails(f"cost {human(root.cost)}, more than {human(self.most)}", part)
