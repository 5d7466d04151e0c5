"""``q_error``: no estimate is off by more than this factor: ``q_error: 10``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import Node
from perfctl.explain.rule import BadRule, Evidence, Standard, Verdict, cannot_tell, counted, fails, figure, holds, human


@dataclass(frozen=True, slots=True)
class QError(Standard):
    """A node whose rows are misjudged further is a finding."""

    most: float
    takes_a_run = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From the most that is allowed."""
        most = figure(value)
        if most < 1:
            # An estimate that is right is off by a factor of one.
            raise BadRule("expected a factor of at least 1")
        return cls(most)

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if seen.ran is None:
            return seen.run_says()
        if (small := seen.small_says()) is not None:
            return small
        judged = [found for found in seen.ran.q_errors() if not _of_brin(found[0], seen)]
        if not judged:
            return cannot_tell("no node was executed to its end")
        worst, error = max(judged, key=lambda found: found[1])
        if error <= self.most:
            return holds(f"estimates within {human(error)} times")
        came = human(worst.actual_rows or 0)
        cure = f"ANALYZE {worst.relation}, or CREATE STATISTICS on what its condition joins" if worst.relation else None
        return fails(f"{counted(worst.rows, 'row')} expected, {came} came: off {human(error)} times", worst, cure)


def _of_brin(node: Node, seen: Evidence) -> bool:
    """A BRIN index reports ten rows for each page that it names (bringetbitmap, src/backend/access/brin/brin.c)."""
    index = seen.catalogue.index(node.index, node.relation) if node.index else None
    return index is not None and index.method == "brin"
