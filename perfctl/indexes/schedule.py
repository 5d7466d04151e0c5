"""Which steps may be sent next, side by side with those under way. No server, no clock.

Two builds on one table deadlock, so a table has one at a time. A partial or expression index is built under a snapshot
that every other concurrent build waits for (PROC_IN_SAFE_IC, src/include/storage/proc.h, since PostgreSQL 14), so
those come last and stall nobody but each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perfctl.indexes.model import Step
from perfctl.migrations.model import Name


class Schedule:
    """The steps of a run, each by its number: to do, under way, done, or failed."""

    def __init__(self, steps: Sequence[Step], *, jobs: int = 1) -> None:
        self.steps = steps
        self.jobs = jobs
        self.waits_for = links(steps)
        self.todo = dict.fromkeys(range(len(steps)))
        self.under_way: set[int] = set()
        self.done: set[int] = set()
        self.failed: set[int] = set()

    def start(self, number: int) -> None:
        """It is under way."""
        del self.todo[number]
        self.under_way.add(number)

    def put_back(self, number: int) -> None:
        """It is to be tried again."""
        self.under_way.discard(number)
        self.todo = dict.fromkeys(sorted([*self.todo, number]))

    def end(self, number: int, *, well: bool) -> None:
        """It has come to its end; what waits for one that failed is never sent."""
        self.under_way.discard(number)
        self.todo.pop(number, None)
        (self.done if well else self.failed).add(number)

    def lost(self) -> dict[int, int]:
        """Takes out the steps that wait for one that failed or is lost itself; gives each with that one."""
        found: dict[int, int] = {}
        for number in list(self.todo):
            cause = next((other for other in self.waits_for[number] if other in self.failed), None)
            if cause is not None:
                found[number] = cause
                self.end(number, well=False)
        return found

    def ready(self) -> Iterator[int]:
        """The steps that may start now, the one to start first at the head.

        Steps may be started and ended while it is gone through.
        """
        free = (number for number in list(self.todo) if number in self.todo and self._may_start(number))
        if self.jobs == 1:
            return free
        left = self._remaining_s()
        return iter(sorted(free, key=lambda n: (self._turn(n), -left.get(self.steps[n].table, 0.0), n)))

    def _turn(self, number: int) -> int:
        """Leftovers go first: a unique one rejects the application's writes. What stalls others goes last."""
        step = self.steps[number]
        if step.kind == "drop_leftover":
            return 0
        return 1 if step.safe or step.kind != "create_index" else 2

    def _may_start(self, number: int) -> bool:
        if not all(other in self.done for other in self.waits_for[number]):
            return False
        step = self.steps[number]
        return not any(
            self.steps[other].table == step.table and not (_shares(self.steps[other]) and _shares(step))
            for other in self.under_way
        )

    def _remaining_s(self) -> dict[Name | None, float]:
        """Seconds of work that each table still has before it: the longest chain is begun first."""
        left: dict[Name | None, float] = {}
        for step in map(self.steps.__getitem__, self.todo):
            left[step.table] = left.get(step.table, 0.0) + (step.estimate.seconds if step.estimate else 0.0)
        return left


def _shares(step: Step) -> bool:
    """Plain builds take a lock that several may hold at once."""
    return step.kind == "create_index" and not step.concurrent


def links(steps: Sequence[Step]) -> list[list[int]]:
    """For each step the numbers of those that have to be done before it.

    Builds of one table may change places, and so may drops; all else about a table keeps the order of the files. What
    is about no table waits for everything before it, and everything after waits for it.
    """
    by_name: dict[Name, list[int]] = {}
    by_kind: dict[tuple[str, Name], list[int]] = {}
    for number, step in enumerate(steps):
        by_name.setdefault(step.name, []).append(number)
        by_kind.setdefault((step.kind, step.name), []).append(number)
    found: list[list[int]] = []
    since_barrier: list[int] = []
    barrier: int | None = None
    #: by table, the last run of steps of one kind, and the run before it
    runs: dict[Name, tuple[str, list[int], list[int]]] = {}
    for number, step in enumerate(steps):
        waits = [barrier] if barrier is not None else []
        if step.table is None:
            waits += since_barrier
            since_barrier, barrier = [], number
        else:
            since_barrier.append(number)
            kind, run, before = runs.get(step.table, ("", [], []))
            if step.kind == kind and kind in ("create_index", "drop_index"):
                run.append(number)
            else:
                before, run = run, [number]
            runs[step.table] = step.kind, run, before
            waits += before
        waits += [other for other in by_name[step.name] if other < number]
        waits += [other for key in step.after for other in by_kind.get(key, ())]
        found.append(list(dict.fromkeys(waits)))
    return found
