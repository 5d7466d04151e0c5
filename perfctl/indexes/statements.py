"""Sends one statement of a step and watches it: its table's lock first, its phases, its end however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perfctl.errors import Cancelled, Denied, LeaveNow, NoAnswer, PerfctlError, Refused, StatementFailed, StopRequested
from perfctl.figures import human_seconds
from perfctl.indexes.lane import Lane, Sender
from perfctl.indexes.model import Blocker, Step, full
from perfctl.indexes.running import Live, Outcome, Progress, Timing, WaitedTooLong, waited
from perfctl.migrations.model import Name
from perfctl.servers.postgres import settings_sql

if TYPE_CHECKING:
    from perfctl.indexes.run import Run

#: SQLSTATE: the lock was not got in time
NO_LOCK = "55P03"
#: LOCK TABLE takes no materialized view
_WRONG_OBJECT = "42809"

#: A statement that makes writers queue up behind it gives up its place sooner than this.
BRIEF_LOCK_S = 1.0

#: How long a build that is not concurrent lets somebody wait for it.
OFFLINE_PATIENCE_S = 2.0

#: The server says that a session has nothing to do, and its answer has not come for so long: it got lost.
_ANSWER_LOST_S = 5.0

CANCEL_AGAIN_S = 1.0
_CANCEL_GIVEN_UP_S = 15.0

Waiting = Generator[None, None, Timing]


class Again(Exception):
    """Not now: the step is to be tried later."""

    def __init__(
        self,
        error: PerfctlError,
        blockers: Sequence[Blocker],
        *,
        took_s: float = 0.0,
        worked_s: float = 0.0,
        lost_build: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.why = error.message
        self.blockers = tuple(blockers)
        self.took_s = took_s
        #: what of that was work: a try that did not get its lock has done none
        self.worked_s = worked_s
        self.lost_build = lost_build


class Statements:
    """How the tasks of a run look, write down and send."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.watcher = run.watcher
        self.journal = run.journal
        self.limits = run.limits
        #: the journal's lines of steps that were begun, by number
        self.lines: dict[int, int] = {}

    def look(self, name: Name) -> Live | None:
        """The index of that name as it is now."""
        rows = self.watcher.fetch("index", Live, {"schema": name.schema, "name": name.name})
        return rows[0] if rows else None

    def _tell(self, kind: str, lane: Lane, **facts: Any) -> None:
        assert lane.step is not None
        self.run.tell(kind, lane.step, lane.number, **facts)

    def _line(self, lane: Lane, oid: int | None) -> int:
        """The journal's line of the step; a later try goes on with the first one's."""
        assert lane.step is not None
        if lane.number not in self.lines:
            self.lines[lane.number] = self.journal.start(lane.step, oid)
        return self.lines[lane.number]

    def _done(self, lane: Lane, outcome: Outcome) -> Outcome:
        try:
            self.journal.finish(self._line(lane, outcome.oid), outcome)
        except PerfctlError:
            # What was done stays done: the run must not say that it changed nothing.
            self.run.leftovers[outcome.step.name] = "it is done on the server, and the journal does not say so"
            raise
        return outcome

    def failed(self, lane: Lane, error: BaseException, more: str = "", *, left: Live | None = None) -> None:
        """Write down, and tell, that the lane's step failed; ``left`` is what stays behind of it."""
        assert lane.step is not None
        message = error.message if isinstance(error, PerfctlError) else "stopped"
        detail = getattr(error, "detail", None)
        elapsed_s = time.monotonic() - lane.began
        words = message + (f" ({detail})" if detail else "") + more
        worked_s = max(0.0, elapsed_s - lane.waited_s)
        outcome = Outcome(lane.step, "failed", words, worked_s, lane.waited_s, oid=left.oid if left else None)
        self.run.outcomes.append(outcome)
        lane.told = True
        self._tell("failed", lane, elapsed_s=elapsed_s, detail=outcome.detail)
        self.close_line(lane.number, outcome)

    def close_line(self, number: int, outcome: Outcome) -> None:
        """Finish a step's line, if it has one; a journal that is out of reach must not hide why the step failed."""
        if number in self.lines:
            with suppress(PerfctlError, StopRequested):
                self.journal.finish(self.lines[number], outcome)

    def _heed_stop(self, lane: Lane) -> None:
        if self.run.stopped_by is not None and not lane.cleaning:
            raise StopRequested(self.run.stopped_by)

    def _await(self, lane: Lane, act: Callable[[], Any]) -> Generator[None, None, Any]:
        """Something short in the lane's thread, bounded by the server itself."""
        sender = lane.send(act)
        while not sender.done.is_set():
            yield
        return sender.take()

    def _settle(self, lane: Lane, step: Step) -> Generator[None, None, None]:
        """Give the session its name and settings, and see that the table's lock can be had.

        The lock is taken and let go at once, under ``lock_timeout``: the statement itself runs without one, for
        lock_timeout also counts the waits for other transactions, hours into a build.
        Raises Again when somebody holds the lock.
        """
        # Said either way: RESET would bring the role's own back, and a build's last wait would be cut by it.
        timeout = "0" if step.concurrent else milliseconds(self._lock_timeout_s(step))
        name = f"perfctl/{self.journal.run_id}/{step.name.name}".encode()[:63].decode(errors="ignore")
        before = lane.settings
        changes = lane.wanted((("application_name", name), *step.settings, ("lock_timeout", timeout)))
        settings = [settings_sql(changes)] if changes else []
        if not (step.concurrent and step.lockable and step.table):
            for text in settings:
                yield from self._await(lane, lambda text=text: lane.pg.execute(text))  # type: ignore[misc]
            return
        probe = (
            f"SET LOCAL lock_timeout = '{milliseconds(self._lock_timeout_s(step))}'",
            f"LOCK TABLE ONLY {full(step.table)} IN SHARE UPDATE EXCLUSIVE MODE",
        )
        started = time.monotonic()
        try:
            yield from self._await(lane, lambda: lane.pg.rolled_back(probe, settings))
        except StatementFailed as error:
            lane.settings = before
            if error.sqlstate == NO_LOCK:
                raise self._locked(lane, step, started) from error
            if error.sqlstate != _WRONG_OBJECT:
                raise
            yield from self._settle(lane, replace(step, lockable=False))
        except Denied:
            # Who may build may still not be allowed LOCK TABLE; the watcher keeps the time instead.
            lane.settings = before
            yield from self._settle(lane, replace(step, lockable=False))
        self._heed_stop(lane)

    def _lock_timeout_s(self, step: Step) -> float:
        timeout_s = self.limits.lock_timeout(self.run.ground.deadlock_timeout_s)
        # Writers queue up behind a lock that they conflict with; an autovacuum yields to one that it blocks alone.
        return timeout_s if step.concurrent else min(timeout_s, BRIEF_LOCK_S)

    def _locked(self, lane: Lane, step: Step, started: float) -> Again:
        """The lock was not got: who has it."""
        oid = self.run.table_oid(step)
        near = self.run.around(fresh=True)
        holders = [each for each in near.blockers if each.table_oid == oid]
        seen = lane.progress.blocking if lane.progress else None
        if seen is not None and seen.identity not in {each.identity for each in holders}:
            # A reader keeps off what takes the table for itself alone, and it may hold another table of the tree.
            holders.insert(0, seen)
        names = "; ".join(each.named() for each in holders) or "somebody who let it go meanwhile"
        took_s = time.monotonic() - started
        error = WaitedTooLong(
            f"the table's lock was not got in {human_seconds(took_s)}; it is held by {names}",
            hint="end that transaction, or give more time with --wait-budget",
        )
        return Again(error, holders, took_s=took_s)

    def _lock_again(self, lane: Lane, error: BaseException) -> None:
        """Raise Again for a statement that did not get its lock: nothing of it is left."""
        assert lane.step is not None
        if getattr(error, "sqlstate", None) == NO_LOCK:
            raise self._locked(lane, lane.step, lane.began) from error

    def send(self, lane: Lane, sql: str, *, budget_s: float, line: int | None = None, drop: bool = False) -> Waiting:
        """Send a statement and watch it until it ends, however it ends.

        It may wait ``budget_s`` for others in each of its phases; then it is cancelled and WaitedTooLong names them.
        The OID of what it makes goes into the journal's ``line`` as soon as it shows.
        """
        sender = lane.send(lambda: lane.pg.execute(sql))
        timing = Timing()
        looked = lane.looked_at
        phase, phase_s = "", 0.0
        try:
            while not sender.done.is_set():
                yield
                self._heed_stop(lane)
                progress, passed_s = lane.progress, lane.looked_at - looked
                if passed_s <= 0:
                    continue
                looked = lane.looked_at
                if _answer_is_lost(progress, lane):
                    lane.pg.hang_up()
                    continue
                if progress is None:
                    continue
                if progress.is_waiting:
                    timing.wait_s += passed_s
                    lane.waited_s += passed_s
                    # Another job of this run takes the time that its work takes.
                    counted_s = 0.0 if progress.blocker_pid in self.run.own_pids else passed_s
                    phase, phase_s = progress.wait_phase, counted_s + (phase_s if progress.wait_phase == phase else 0.0)
                else:
                    phase_s = 0.0
                if line is not None and progress.index_oid is not None:
                    self.journal.note_oid(line, progress.index_oid)
                    line = None
                self._tell("progress", lane, elapsed_s=looked - sender.started, progress=progress, detail=lane.doing)
                self._yield_to_writers(lane)
                self._insist(lane, progress, phase_s, budget_s, timing, drop=drop)
        except (LeaveNow, GeneratorExit):
            raise
        except (PerfctlError, KeyboardInterrupt):
            yield from self._cancel(lane, sender)
            if sender.error is not None:
                raise
            # It ended well before the cancel reached it.
        timing.total_s = time.monotonic() - sender.started
        try:
            sender.take()
        except NoAnswer as cancelled:
            # No limit is set here, and what perfctl itself cancels ends with the reason for which it did.
            raise Cancelled(f"somebody cancelled it on the server: {cancelled.message}") from cancelled
        return timing

    def _yield_to_writers(self, lane: Lane) -> None:
        """Give up a build that makes somebody wait: offline is for when nobody writes."""
        assert lane.step is not None
        if lane.step.kind != "create_index" or lane.step.concurrent:
            return
        waiting = [each for each in lane.held_up if (each.waits_s or 0.0) > OFFLINE_PATIENCE_S]
        if waiting:
            raise Refused(
                f"--offline: somebody writes here and had to wait: {'; '.join(map(str, waiting))}",
                hint="stop them, or leave --offline out: concurrent builds let writers go on",
            )

    def _insist(
        self, lane: Lane, progress: Progress, phase_s: float, budget_s: float, timing: Timing, *, drop: bool
    ) -> None:
        """End whom the list allows to be ended; give up when the budget of the phase is spent."""
        assert lane.step is not None
        step = lane.step
        if progress.blocker_pid in self.run.own_pids:
            return
        blocking = (progress.blocking,) if progress.blocking else ()
        timing.killed += tuple(self.run.end_blockers(lane.number, blocking, phase_s))
        if progress.waits_for_table and not drop and phase_s > self._lock_timeout_s(step):
            raise StatementFailed("the table's lock was not got in time", sqlstate=NO_LOCK)
        if phase_s <= budget_s:
            return
        oid = self.run.table_oid(step)
        near = self.run.around(fresh=True).blockers
        others = [b for b in near if b.reason == "snapshot" or b.table_oid == oid] if progress.phase else []
        first = [b for b in blocking if b.identity not in {other.identity for other in others}]
        raise waited(phase_s, progress.wait_phase, [*first, *others])

    def _cancel(self, lane: Lane, sender: Sender) -> Generator[None, None, None]:
        """Cancel on the server, and wait until the session is idle again or gone."""
        began = asked = 0.0
        cleaning, lane.cleaning = lane.cleaning, True
        while not sender.done.is_set():
            now = time.monotonic()
            began = began or now
            if now - asked >= CANCEL_AGAIN_S:
                asked = now
                with suppress(PerfctlError):
                    self.watcher.values("SELECT pg_catalog.pg_cancel_backend(%s)", (lane.pg.pid,))
            if now - began > _CANCEL_GIVEN_UP_S:
                lane.pg.hang_up()
            yield
        lane.cleaning = cleaning


def milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _answer_is_lost(progress: Progress | None, lane: Lane) -> bool:
    """The server has no such session, or has long done what it was sent, and no answer has come."""
    if progress is None:
        return lane.sender is not None and time.monotonic() - lane.sender.started > _ANSWER_LOST_S
    return progress.state == "idle" and (progress.idle_s or 0.0) > _ANSWER_LOST_S
