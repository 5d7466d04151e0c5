"""The loop of a run: starts what may start, looks at what is under way, and keeps what came of it.

One thread decides and writes; each statement waits for the server in a thread of its lane.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from perfctl.errors import Denied, LeaveNow, PerfctlError, Refused, StopRequested, Unreachable
from perfctl.indexes import gates
from perfctl.indexes.lane import Lane
from perfctl.indexes.ledger import Journal
from perfctl.indexes.model import Blocker, Step
from perfctl.indexes.running import (
    Event,
    HeldUp,
    Limits,
    Neighbours,
    Obstacle,
    Outcome,
    Progress,
    Replica,
    TableLoad,
    WaitedTooLong,
)
from perfctl.indexes.schedule import Schedule
from perfctl.indexes.statements import Again
from perfctl.indexes.tasks import Tasks
from perfctl.indexes.watcher import Watcher
from perfctl.migrations.model import Name
from perfctl.servers.postgres import Postgres
from perfctl.stop import Stop

_FIRST_LOOK_S = 0.05
_LOOK_S = 0.5
#: what the neighbours do is asked at most so often
_AROUND_S = 1.0

OnEvent = Callable[[Event], None]


@dataclass(slots=True)
class Held:
    """A step that could not be sent yet: since when, and what stood in the way."""

    since: float
    obstacle: Obstacle
    not_before: float = 0.0
    tries: int = 0
    #: transactions that were there at the first look
    wall: frozenset[tuple[object, ...]] | None = None
    #: transactions that a build was lost to
    lost_to: frozenset[tuple[object, ...]] = frozenset()
    builds_lost: int = 0
    #: seconds of work that came to nothing
    worked_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What a run works on."""

    steps: Sequence[Step]
    #: OIDs of the tables by name
    tables: Mapping[Name, int]
    deadlock_timeout_s: float
    connect: Callable[[], Postgres]
    #: bytes free where the server's data is; None where it cannot be known
    free_bytes: Callable[[], int | None]
    now: Callable[[], datetime]


@dataclass(slots=True)
class Run:
    """Sends a plan's steps; what became of each is in ``outcomes``."""

    ground: Ground
    watcher: Watcher
    journal: Journal
    limits: Limits
    on_event: OnEvent
    stop: Stop
    outcomes: list[Outcome] = field(default_factory=list)
    #: why a step failed, in the order in which they did
    errors: list[tuple[Step, BaseException]] = field(default_factory=list)
    #: what stays behind of a step that failed, in words
    leftovers: dict[Name, str] = field(default_factory=dict)
    #: what a reader of the report should know besides
    notes: list[str] = field(default_factory=list)
    #: transactions that could not be ended for want of a right
    denied: set[tuple[object, ...]] = field(default_factory=set)
    stopped_by: int | None = None
    lanes: list[Lane] = field(default_factory=list)
    idle: list[Lane] = field(default_factory=list)
    held: dict[int, Held] = field(default_factory=dict)
    worked: set[Name | None] = field(default_factory=set)
    bell: threading.Event = field(default_factory=threading.Event)
    random: random.Random = field(default_factory=random.Random)
    tasks: Tasks = field(init=False)
    _schedule: Schedule = field(init=False)
    _near: Neighbours = field(default_factory=Neighbours)
    _near_at: float = -_AROUND_S
    #: what autovacuum has to do on tables that were worked on, by OID, and when that was asked
    _loads: dict[int, TableLoad | None] = field(default_factory=dict)
    _loads_at: float = 0.0
    _pause_s: float = _FIRST_LOOK_S
    _held_told: float = 0.0
    _halted: bool = False
    _jobs: int = 1

    def __post_init__(self) -> None:
        self._jobs = self.limits.jobs
        self._schedule = Schedule(self.ground.steps, jobs=self.limits.jobs)

    def all(self) -> None:
        """Send every step that can be sent."""
        self.tasks = Tasks(self)
        try:
            self.stop.may_leave = True
            while self._turn():
                pass
            self.stop.may_leave = False
        except StopRequested as stop:
            # A second signal, or one that came while a lost server was waited for.
            self.stopped_by = stop.signum
            self._leave()
        except PerfctlError as lost:
            # What was done is told all the same, and what is under way is not taken for undone.
            self.errors += [(lane.step, lost) for lane in self.lanes if lane.step and not lane.told] or [
                (self.ground.steps[0], lost)
            ]
            for lane in self.lanes:
                self._tell_left(lane, "the server may go on with it; the next run looks")
        finally:
            self.stop.may_leave = False
            for lane in (*self.lanes, *self.idle):
                if lane.is_sending:
                    lane.pg.hang_up()
            self._close_lines()

    def _close_lines(self) -> None:
        """A step that was to be tried again is not under way any more: its line must not claim what others build."""
        for number in self._schedule.todo:
            outcome = Outcome(self.ground.steps[number], "failed", "the run ended before it could be sent")
            self.tasks.close_line(number, outcome)

    def _leave(self) -> None:
        """Asked twice: what is under way is told to end and not waited for, and a drop is left to end by itself."""
        for lane in self.lanes:
            assert lane.step is not None
            # A third signal cuts the look short as well, and what is known is told all the same.
            with suppress(PerfctlError, StopRequested):
                if lane.is_sending and not lane.dropping:
                    lane.pg.cancel()
            with suppress(StopRequested):
                self._tell_left(lane, self.tasks.what_remains(lane))

    def _tell_left(self, lane: Lane, what: str) -> None:
        assert lane.step is not None
        self.leftovers[lane.step.actual] = what
        if not lane.told:
            self.outcomes.append(Outcome(lane.step, "failed", f"stopped; {what}"))

    def _turn(self) -> bool:
        if self.stopped_by is None:
            self.stopped_by = self.stop()
        if self.stopped_by is None and not self._halted:
            self._start()
        if not self.lanes:
            if self._halted or self.stopped_by is not None or not self._schedule.todo:
                return False
            self.bell.wait(_LOOK_S)
            return True
        if not self.bell.wait(self._pause_s):
            self._look()
            self._pause_s = min(_LOOK_S, self._pause_s * 2)
        self.bell.clear()
        for lane in list(self.lanes):
            self._advance(lane)
        return True

    # what may start

    def _start(self) -> None:
        while len(self.lanes) < self._jobs and (number := self._next()) is not None:
            step = self.ground.steps[number]
            if (lane := self._free_lane(number)) is None:
                return
            self._schedule.start(number)
            lane.begin(number, step, self.tasks.of(lane, step))
            self.lanes.append(lane)
            self._pause_s = _FIRST_LOOK_S
            self._advance(lane)

    def _free_lane(self, number: int) -> Lane | None:
        """A session for a step; None where no further one is to be had beside those at work."""
        if self.idle:
            return self.idle.pop()
        try:
            return Lane(self.ground.connect(), self.bell, connection_check_s=self.limits.connection_check_s)
        except (Unreachable, Refused) as error:
            if not self.lanes:
                raise
            # What is under way goes on: fewer at a time are better than none.
            self._jobs = len(self.lanes)
            why = f"no connection for more than {self._jobs} at a time: {error.message}"
            self.tell("waiting", self.ground.steps[number], number, detail=why)
            return None

    def _next(self) -> int | None:
        """The first step that may start and has nothing in its way."""
        now = time.monotonic()
        found = None
        waiting: list[int] = []
        for number in self._schedule.ready():
            held = self.held.get(number)
            if held is None or now >= held.not_before:
                if (obstacle := self._obstacle(number)) is None:
                    found = number
                    break
                self._hold(number, obstacle)
                if self._halted:
                    break
            waiting.append(number)
        self._tell_held(waiting)
        return found

    def _tell_held(self, waiting: Sequence[int]) -> None:
        """Say what the first step that cannot be sent yet waits for, and how many there are; or none any more."""
        # Not the time at which it was begun to look: by now a step may have been held since later.
        now = time.monotonic()
        still = [number for number in waiting if number in self.held and number in self._schedule.todo]
        if not still:
            if self._held_told:
                self._held_told = 0.0
                self.tell("held", self.ground.steps[0], 0)
            return
        if now - self._held_told < _AROUND_S:
            return
        self._held_told = now
        first = still[0]
        held = self.held[first]
        others = f"; {len(still) - 1} more are held" if len(still) > 1 else ""
        self.tell(
            "held", self.ground.steps[first], first, elapsed_s=now - held.since, detail=held.obstacle.why + others
        )

    def table_oid(self, step: Step) -> int | None:
        """The table's OID, None for a step about no table."""
        return self.ground.tables.get(step.table) if step.table else None

    @property
    def own_pids(self) -> list[int]:
        """The server processes of the run's lanes."""
        return [lane.pg.pid for lane in (*self.lanes, *self.idle)]

    def _obstacle(self, number: int) -> Obstacle | None:
        step = self.ground.steps[number]
        held = self.held.get(number)
        return gates.obstacle(
            step,
            self.table_oid(step),
            replace(self.around(), loads=self._load_of(step)),
            self.limits,
            now=self.ground.now(),
            wall=held.wall if held else None,
            lost_to=held.lost_to if held else frozenset(),
            worked_here=step.table in self.worked,
        )

    def around(self, *, fresh: bool = False) -> Neighbours:
        """What else goes on; not asked again within a second."""
        now = time.monotonic()
        if not fresh and now - self._near_at < _AROUND_S:
            return self._near
        left = [self.ground.steps[n] for n in (*self._schedule.todo, *self._schedule.under_way)]
        oids = sorted({oid for step in left if (oid := self.table_oid(step)) is not None})
        watch_replicas = self.limits.max_replica_lag_s is not None
        self._near = Neighbours(
            blockers=self.watcher.fetch("blockers", Blocker, {"tables": oids, "own": self.own_pids}),
            replicas=self.watcher.fetch("replicas", Replica) if watch_replicas else (),
            free_bytes=self.ground.free_bytes(),
        )
        self._near_at = now
        return self._near

    def _load_of(self, step: Step) -> tuple[TableLoad, ...]:
        """What autovacuum has to do on the step's table; asked only where this run has built before."""
        oid = self.table_oid(step)
        if oid is None or step.table not in self.worked:
            return ()
        now = time.monotonic()
        if oid not in self._loads or now - self._loads_at >= _AROUND_S:
            left = {self.ground.steps[n].table for n in self._schedule.todo} & self.worked
            oids = sorted({found for name in left if name and (found := self.ground.tables.get(name)) is not None})
            loads = {load.oid: load for load in self.watcher.fetch("loads", TableLoad, {"tables": oids})}
            self._loads, self._loads_at = {each: loads.get(each) for each in oids}, now
        load = self._loads.get(oid)
        return (load,) if load else ()

    def _hold(self, number: int, obstacle: Obstacle) -> None:
        step = self.ground.steps[number]
        now = time.monotonic()
        held = self.held.get(number)
        if held is None:
            held = self.held[number] = Held(now, obstacle)
        held.obstacle = obstacle
        if held.wall is None and obstacle.blockers:
            held.wall = frozenset(each.identity for each in self._near.blockers)
        elapsed_s = now - held.since
        if obstacle.at_most_s is not None and elapsed_s > obstacle.at_most_s:
            self._waive(step)
            return
        self.end_blockers(number, obstacle.blockers, elapsed_s)
        held.not_before = now + _AROUND_S
        if obstacle.final or elapsed_s > self.limits.wait_budget_s:
            self._give_up(number, held)

    def _waive(self, step: Step) -> None:
        """Manners have their end: the step is sent although autovacuum did not come."""
        self.worked.discard(step.table)

    def _give_up(self, number: int, held: Held) -> None:
        step = self.ground.steps[number]
        hint = held.obstacle.hint or "end that transaction, or give more time with --wait-budget"
        self._failed(number, step, WaitedTooLong(f"not sent: {held.obstacle.why}", hint=hint))
        self._told_failed(number, held, f"not sent: {held.obstacle.why}")

    def _told_failed(self, number: int, held: Held, why: str) -> Outcome:
        """A step that was held for too long: all of that time but what it worked was spent waiting."""
        step = self.ground.steps[number]
        elapsed_s = time.monotonic() - held.since
        outcome = Outcome(step, "failed", why, held.worked_s, max(0.0, elapsed_s - held.worked_s))
        self.outcomes.append(outcome)
        self.tell("failed", step, number, elapsed_s=elapsed_s, detail=why)
        return outcome

    def end_blockers(self, number: int, blockers: Sequence[Blocker], waited_s: float) -> list[str]:
        """End the sessions in the way that the list allows; says whom."""
        if waited_s < self.limits.kill_after_s:
            return []
        ended = []
        for each in blockers:
            if not any(allowed.covers(each) for allowed in self.limits.kill):
                continue
            # Only the transaction that was seen: by now another one may run there.
            end = "pg_cancel_backend" if each.state == "active" else "pg_terminate_backend"
            if waited_s > 2 * self.limits.kill_after_s:
                end = "pg_terminate_backend"
            try:
                rows = self.watcher.values(
                    f"SELECT pg_catalog.{end}(a.pid) FROM pg_catalog.pg_stat_activity AS a"
                    " WHERE a.pid = %s AND a.xact_start = %s AND a.backend_type = 'client backend'",
                    (each.pid, each.started_at),
                )
            except Denied as denied:
                self._tell_denied(number, each, denied)
                continue
            if rows and rows[0][0]:
                ended.append(f"ended {each}")
        for words in ended:
            self.tell("ended", self.ground.steps[number], number, detail=words)
        return ended

    def _tell_denied(self, number: int, blocker: Blocker, denied: Denied) -> None:
        """Said once of each transaction: the next try, a second later, will be denied as well."""
        if blocker.identity in self.denied:
            return
        self.denied.add(blocker.identity)
        words = f"could not end {blocker}: {denied.message}"
        self.notes.append(words)
        self.tell("denied", self.ground.steps[number], number, detail=words)

    # what is under way

    def _look(self) -> None:
        """Ask the server what every lane's session does, in one question."""
        sending = [lane for lane in self.lanes if lane.is_sending]
        if not sending:
            return
        found = {
            each.pid: each
            for each in self.watcher.fetch("progress", Progress, {"pids": [lane.pg.pid for lane in sending]})
        }
        # Only what is not concurrent keeps anybody waiting.
        plain = [lane.pg.pid for lane in sending if lane.step and not lane.step.concurrent]
        held_up = self.watcher.fetch("held_up", HeldUp, {"pids": plain}) if plain else []
        now = time.monotonic()
        for lane in sending:
            lane.progress, lane.looked_at = found.get(lane.pg.pid), now
            lane.held_up = [each for each in held_up if each.by_pid == lane.pg.pid]

    def _advance(self, lane: Lane) -> None:
        assert lane.task is not None
        assert lane.step is not None
        step, number = lane.step, lane.number
        try:
            next(lane.task)
            return
        except StopIteration as end:
            outcome: Outcome = end.value
            self._schedule.end(number, well=True)
            self.outcomes.append(outcome)
            if outcome.result == "changed" and step.kind == "create_index":
                self.worked.add(step.table)
            self.tell("done", step, number, elapsed_s=outcome.build_s + outcome.wait_s, detail=outcome.detail)
        except Again as again:
            self._again(number, step, again)
        except LeaveNow:
            raise
        except (PerfctlError, KeyboardInterrupt) as error:
            if isinstance(error, StopRequested) and self.stopped_by is None:
                self.stopped_by = error.signum
            if not lane.told:
                self.tasks.failed(lane, error)
            self._failed(number, step, error)
        self.lanes.remove(lane)
        if not lane.pg.closed and not lane.is_sending:
            self.idle.append(lane)

    def _again(self, number: int, step: Step, again: Again) -> None:
        """Try it again later: at once is what the others do who wait for the same lock."""
        now = time.monotonic()
        held = self.held.setdefault(number, Held(lane_began(again, now), Obstacle(again.why)))
        held.obstacle = Obstacle(again.why, of_table=True, blockers=again.blockers)
        held.tries += 1
        held.builds_lost += again.lost_build
        held.worked_s += again.worked_s
        if again.lost_build:
            held.lost_to = frozenset(each.identity for each in again.blockers)
        if held.builds_lost > 1 or now - held.since > self.limits.wait_budget_s:
            self.tasks.close_line(number, self._told_failed(number, held, again.why))
            self._failed(number, step, again.error)
            return
        pause_s = min(30.0, 0.2 * 2**held.tries) * self.random.uniform(0.5, 1.5)
        held.not_before = now + pause_s
        self._schedule.put_back(number)
        self.end_blockers(number, again.blockers, now - held.since)
        self.tell("retry", step, number, elapsed_s=now - held.since, detail=again.why)

    def _failed(self, number: int, step: Step, error: BaseException) -> None:
        self._schedule.end(number, well=False)
        self.errors.append((step, error))
        for lost, cause in self._schedule.lost().items():
            before = self.ground.steps[cause]
            # Several steps may be about one name: dropping a leftover, building anew, the comment.
            detail = f'waits for {before.kind.replace("_", " ")} "{before.name}"'
            self.tell("unreached", self.ground.steps[lost], lost, detail=detail)
        if not self.limits.go_on:
            self._halted = True

    def tell(
        self,
        kind: str,
        step: Step,
        number: int,
        *,
        elapsed_s: float = 0.0,
        progress: Progress | None = None,
        detail: str = "",
    ) -> None:
        """Hand an event on; a listener that is gone is not waited for."""
        total = len(self.ground.steps)
        finished = len(self._schedule.done) + len(self._schedule.failed)
        try:
            self.on_event(Event(kind, step, number + 1, total, elapsed_s, progress, detail, finished))
        except OSError:
            # Whoever read the progress is gone; the build is not to suffer for it.
            self.on_event = _unheard


def lane_began(again: Again, now: float) -> float:
    """When the first try began."""
    return now - again.took_s


def _unheard(_: Event) -> None:
    """Nobody listens any more."""
