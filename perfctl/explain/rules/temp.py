"""``temp``: a run reads and writes at most so many blocks of temporary files: ``temp: 0``."""

from __future__ import annotations

from dataclasses import dataclass

from perfctl.explain.model import Node
from perfctl.explain.rule import Ceiling, Evidence, Verdict, fails, heaviest, holds, human


@dataclass(frozen=True, slots=True)
class Temp(Ceiling):
    """More is a finding: a sort or a hash did not fit into work_mem."""

    takes_a_run = True

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if seen.ran is None:
            return seen.run_says()
        if (small := seen.small_says()) is not None:
            return small
        blocks = seen.ran.root.temp_blocks or 0
        if blocks <= self.most:
            return holds(f"{human(blocks)} temporary blocks")
        part = heaviest([*seen.ran.nodes()], _own)
        cure = "more work_mem, or fewer rows to sort and hash"
        return fails(f"{human(blocks)} temporary blocks, more than {human(self.most)}", part, cure)


def _own(node: Node) -> int:
    """A node's blocks count those below it too."""
    return (node.temp_blocks or 0) - sum(each.temp_blocks or 0 for each in node.plans)
