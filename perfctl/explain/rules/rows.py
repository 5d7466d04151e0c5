"""``rows``: the rows that the statement gives lie in a range: ``rows: 1..100``, ``rows: ..1000``.

Actual rows where it was run, else the estimate; of INSERT, UPDATE, DELETE and MERGE the rows that they write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import Node
from perfctl.explain.rule import Evidence, Standard, Verdict, bounds, counted, fails, holds, human


@dataclass(frozen=True, slots=True)
class Rows(Standard):
    """Fewer or more are findings."""

    low: float
    high: float

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a range."""
        return cls(*bounds(value))

    def judge(self, seen: Evidence) -> Verdict:
        """Compares the topmost node's rows."""
        if (small := seen.small_says()) is not None:
            return small
        root = _counting(seen.ran.root if seen.ran else seen.plan.root)
        rows, how = (root.actual_rows, "") if root.actual_rows is not None else (root.rows, " expected")
        said = counted(rows, "row") + how
        if self.low <= rows <= self.high:
            return holds(said)
        cure = None if seen.ran else "ANALYZE the tables if the estimate is wrong"
        return fails(f"{said}, not {human(self.low)}..{_end(self.high)}", root, cure)


def _counting(root: Node) -> Node:
    """The node whose rows are those of the statement: what an UPDATE is given, for it gives no row itself."""
    below = [each for each in root.plans if each.relationship not in ("InitPlan", "SubPlan")]
    return below[0] if root.target and below else root


def _end(high: float) -> str:
    return "" if high == float("inf") else human(high)
