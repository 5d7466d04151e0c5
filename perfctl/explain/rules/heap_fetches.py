"""``heap_fetches``: index-only scans look at most so often into the table: ``heap_fetches: 100``."""

from __future__ import annotations

from dataclasses import dataclass

from perfctl.explain.rule import Ceiling, Evidence, Verdict, cannot_tell, fails, heaviest, holds, human


@dataclass(frozen=True, slots=True)
class HeapFetches(Ceiling):
    """More is a finding: the visibility map is behind."""

    takes_a_run = True

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if seen.ran is None:
            return seen.run_says()
        if (small := seen.small_says()) is not None:
            return small
        scans = [node for node in seen.ran.nodes() if node.heap_fetches is not None]
        if not scans:
            return cannot_tell("the plan has no index-only scan")
        fetches = sum(node.heap_fetches or 0 for node in scans)
        if fetches <= self.most:
            return holds(f"{human(fetches)} heap fetches")
        part = heaviest(scans, lambda n: n.heap_fetches or 0)
        return fails(f"{human(fetches)} heap fetches, more than {human(self.most)}", part, f"VACUUM {part.relation}")
