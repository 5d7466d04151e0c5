"""``q_error``: no estimate is off by more than this factor: ``q_error: 10``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import Evidence, Standard, Verdict, cannot_tell, fails, figure, heaviest, holds, human


@dataclass(frozen=True, slots=True)
class QError(Standard):
    """A node whose rows are misjudged further is a finding."""

    most: float
    takes_a_run = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From the most that is allowed."""
        return cls(figure(value))

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if seen.ran is None:
            return seen.run_says()
        judged = [node for node in seen.ran.nodes() if node.q_error is not None]
        worst = heaviest(judged, lambda n: n.q_error or 0.0) if judged else None
        if worst is None or worst.q_error is None:
            return cannot_tell("no node was executed")
        if worst.q_error <= self.most:
            return holds(f"estimates within {human(worst.q_error)} times")
        saw = (
            f"{human(worst.rows)} rows expected, {human(worst.actual_rows or 0)} came: off {human(worst.q_error)} times"
        )
        return fails(
            saw,
            worst,
            f"ANALYZE {worst.relation}, or CREATE STATISTICS on what its condition joins" if worst.relation else None,
        )
