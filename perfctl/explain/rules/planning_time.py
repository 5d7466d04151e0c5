"""``planning_time``: planning takes at most this: ``planning_time: 20ms``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import Evidence, Standard, Verdict, cannot_tell, duration_ms, fails, holds, human


@dataclass(frozen=True, slots=True)
class PlanningTime(Standard):
    """Longer is a finding: many partitions, many joins, or statistics that are too wide."""

    most: float

    @classmethod
    def read(cls, value: Any) -> Self:
        """From the most that is allowed."""
        return cls(duration_ms(value))

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        took = seen.plan.planning_ms
        if took is None:
            return cannot_tell("the server gave no planning time")
        if took <= self.most:
            return holds(f"planned in {human(took)} ms")
        return fails(
            f"planned in {human(took)} ms, more than {human(self.most)} ms",
            seen.plan.root,
            "fewer partitions or joins, or a prepared statement",
        )
