"""``temp``: a run reads and writes at most so many blocks of temporary files: ``temp: 0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import Evidence, Standard, Verdict, fails, figure, heaviest, holds, human


@dataclass(frozen=True, slots=True)
class Temp(Standard):
    """More is a finding: a sort or a hash did not fit into work_mem."""

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
        root = seen.ran.root
        blocks = root.temp_blocks or 0
        if blocks <= self.most:
            return holds(f"{human(blocks)} temporary blocks")
        part = heaviest(
            [n for n in seen.ran.nodes() if n.type in ("Sort", "Hash", "HashAggregate")] or [root],
            lambda n: n.temp_blocks or 0,
        )
        return fails(
            f"{human(blocks)} temporary blocks, more than {human(self.most)}",
            part,
            "more work_mem, or fewer rows to sort",
        )
