"""``time``: a warm run takes at most this, without the timing of single nodes: ``time: 200ms``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import (
    Evidence,
    Standard,
    Verdict,
    cannot_tell,
    duration_ms,
    fails,
    heaviest_scan,
    holds,
    human,
)


@dataclass(frozen=True, slots=True)
class Time(Standard):
    """Longer is a finding. On a shared machine it is a weak one: buffers tell more."""

    most: float
    takes_a_run = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From the most that is allowed."""
        return cls(duration_ms(value))

    def judge(self, seen: Evidence) -> Verdict:
        """Compares."""
        if seen.ended_after_ms is not None and seen.ended_after_ms >= self.most:
            return fails(f"did not end in {human(seen.ended_after_ms)} ms, more than {human(self.most)} ms")
        if seen.ran is None:
            return seen.run_says()
        if (small := seen.small_says()) is not None:
            return small
        took = seen.ran.execution_ms
        if took is None:
            return cannot_tell("the server gave no execution time")
        if took <= self.most:
            return holds(f"{human(took)} ms")
        part = heaviest_scan(seen.ran, lambda n: n.blocks or 0)
        return fails(f"{human(took)} ms, more than {human(self.most)} ms", part)
