"""``buffers``: a warm run touches at most so many 8 kB blocks of tables and indexes: ``buffers: 200``."""

from __future__ import annotations

from dataclasses import dataclass

from perfctl.explain.rule import Ceiling, Evidence, Verdict, cannot_tell, fails, heaviest_scan, holds, human


@dataclass(frozen=True, slots=True)
class Buffers(Ceiling):
    """More is a finding. Blocks are the figure that does not depend on the machine's speed."""

    takes_a_run = True

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if seen.ran is None:
            return seen.run_says()
        if (small := seen.small_says()) is not None:
            return small
        root = seen.ran.root
        blocks = root.blocks
        if blocks is None:
            return cannot_tell("the server counted no blocks")
        if blocks <= self.most:
            return holds(f"{human(blocks)} blocks")
        part = heaviest_scan(seen.ran, lambda n: n.blocks or 0)
        return fails(f"{human(blocks)} blocks, more than {human(self.most)}", part)
