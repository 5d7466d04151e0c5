"""What each kind of step does, one stretch at a time: look, take the lock, write down, send, watch, look again.

Every task is a generator that hands back the turn while the server works, so one thread tends them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perfctl.errors import ConnectionLost, Denied, LeaveNow, PerfctlError, Refused, StatementFailed, StopRequested
from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.duplicates import Keys, repeated_keys
from perfctl.indexes.figures import human_seconds
from perfctl.indexes.lane import Lane, Sender, Task
from perfctl.indexes.ledger import DatabaseJournal
from perfctl.indexes.model import Blocker, Step, full
from perfctl.indexes.running import Live, Outcome, Progress, Timing, WaitedTooLong, waited
from perfctl.migrations.model import Name
from perfctl.servers.postgres import Postgres, settings_sql

if TYPE_CHECKING:
    from perfctl.indexes.run import Run

#: SQLSTATEs: other objects depend on it; the lock was not got in time; a deadlock; a repeated key
_STILL_NEEDED, _NO_LOCK, _DEADLOCK, _REPEATED = "2BP01", "55P03", "40P01", "23505"
#: LOCK TABLE takes no materialized view
_WRONG_OBJECT = "42809"

#: A statement that makes writers queue up behind it gives up its place sooner than this.
BRIEF_LOCK_S = 1.0

#: How long a build that is not concurrent lets somebody wait for it.
OFFLINE_PATIENCE_S = 2.0

#: After a signal, for whoever sends one sends SIGKILL soon.
_STOPPED_CLEANUP_S = 5.0

#: The server says that a session has nothing to do, and its answer has not come for so long: it got lost.
_ANSWER_LOST_S = 5.0

_CANCEL_AGAIN_S = 1.0
_CANCEL_GIVEN_UP_S = 15.0

Waiting = Generator[None, None, Timing]


class Again(Exception):
    """Not now: the step is to be tried later."""

    def __init__(
        self, error: PerfctlError, blockers: Sequence[Blocker], *, took_s: float = 0.0, lost_build: bool = False
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.why = error.message
        self.blockers = tuple(blockers)
        self.took_s = took_s
        self.lost_build = lost_build


class Tasks:
    """The tasks of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.watcher = run.watcher
        self.journal = run.journal
        self.limits = run.limits
        #: the journal's lines of steps that were begun, by number
        self.lines: dict[int, int] = {}

    def of(self, lane: Lane, step: Step) -> Task:
        """The task that carries a step out in a lane."""
        match step.kind:
            case "create_index":
                return self._create(lane, step)
            case "drop_index" | "drop_leftover":
                return self._drop(lane, step)
            case "adopt_index":
                return self._adopt_finished(lane, step)
            case "attach_index":
                return self._attach(lane, step)
            case "swap_index":
                return self._swap(lane, step)
            case _:
                return self._simple(lane, step)

    # looking, and writing down

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
        outcome = Outcome(lane.step, "failed", words, elapsed_s, oid=left.oid if left else None)
        self.run.outcomes.append(outcome)
        lane.told = True
        self._tell("failed", lane, elapsed_s=elapsed_s, detail=outcome.detail)
        self.close_line(lane.number, outcome)

    def close_line(self, number: int, outcome: Outcome) -> None:
        """Finish a step's line, if it has one; a journal that is out of reach must not hide why the step failed."""
        if number in self.lines:
            with suppress(PerfctlError):
                self.journal.finish(self.lines[number], outcome)

    # sending

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
        timeout = "0" if step.concurrent else _ms(self._lock_timeout_s(step))
        name = f"perfctl/{self.journal.run_id}/{step.name.name}".encode()[:63].decode(errors="ignore")
        before = lane.settings
        changes = lane.wanted((("application_name", name), *step.settings, ("lock_timeout", timeout)))
        settings = [settings_sql(changes)] if changes else []
        if not (step.concurrent and step.lockable and step.table):
            for text in settings:
                yield from self._await(lane, lambda text=text: lane.pg.execute(text))  # type: ignore[misc]
            return
        probe = (
            f"SET LOCAL lock_timeout = '{_ms(self._lock_timeout_s(step))}'",
            f"LOCK TABLE ONLY {full(step.table)} IN SHARE UPDATE EXCLUSIVE MODE",
        )
        started = time.monotonic()
        try:
            yield from self._await(lane, lambda: lane.pg.rolled_back(probe, settings))
        except StatementFailed as error:
            lane.settings = before
            if error.sqlstate == _NO_LOCK:
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
        return timeout_s if step.concurrent else min(timeout_s, max(BRIEF_LOCK_S, 0.0))

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
                    # Another job of this run takes the time that its work takes.
                    counted_s = 0.0 if progress.blocker_pid in self.run.own_pids else passed_s
                    phase, phase_s = progress.wait_phase, counted_s + (phase_s if progress.wait_phase == phase else 0.0)
                else:
                    phase_s = 0.0
                if line is not None and progress.index_oid is not None:
                    self.journal.note_oid(line, progress.index_oid)
                    line = None
                self._tell("progress", lane, elapsed_s=looked - sender.started, progress=progress)
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
        sender.take()
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
            raise StatementFailed("the table's lock was not got in time", sqlstate=_NO_LOCK)
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
            if now - asked >= _CANCEL_AGAIN_S:
                asked = now
                with suppress(PerfctlError):
                    self.watcher.values("SELECT pg_catalog.pg_cancel_backend(%s)", (lane.pg.pid,))
            if now - began > _CANCEL_GIVEN_UP_S:
                lane.pg.hang_up()
            yield
        lane.cleaning = cleaning

    # statements that look after themselves

    def _simple(self, lane: Lane, step: Step) -> Task:
        yield from self._settle(lane, step)
        line = self._line(lane, None)
        self._tell("start", lane)
        try:
            timing = yield from self.send(lane, step.sql, budget_s=self.limits.wait_budget_s)
        except (PerfctlError, KeyboardInterrupt) as error:
            if step.kind == "undo_create_extension" and getattr(error, "sqlstate", None) == _STILL_NEEDED:
                outcome = Outcome(step, "skipped", "stays: other objects need it by now")
                self.journal.finish(line, outcome)
                return outcome
            self._lock_again(lane, error)
            self.failed(lane, error)
            raise
        return self._done(lane, Outcome(step, "changed", _killed(timing), timing.build_s, timing.wait_s))

    def _lock_again(self, lane: Lane, error: BaseException) -> None:
        """Raise Again for a statement that did not get its lock: nothing of it is left."""
        assert lane.step is not None
        if getattr(error, "sqlstate", None) == _NO_LOCK:
            raise self._locked(lane, lane.step, lane.began) from error

    # building

    def _create(self, lane: Lane, step: Step) -> Task:
        builder, there = yield from self._follow(lane, step)
        if there is not None and there.is_good and _is_wanted(step, there):
            if builder is None or not builder.startswith("perfctl/"):
                # Whoever built it owns it: a rollback of perfctl's leaves it.
                return Outcome(step, "skipped", "somebody else has built it meanwhile")
            return self._adopt(lane, there, "a build that was under way has finished")
        if there is not None and builder is not None and not there.is_good and there.relkind == "i":
            # Whoever was at it died over it: it is a leftover like any other.
            yield from self._settle(lane, step)
            sql = f"DROP INDEX CONCURRENTLY {full(step.name)}"
            yield from self.send(lane, sql, budget_s=self.limits.wait_budget_s, drop=True)
            there = self.look(step.name)
        if there is not None:
            raise StatementFailed(
                "something of that name appeared since the plan was made", hint="run the command again: it looks anew"
            )
        yield from self._settle(lane, step)
        line = self._line(lane, None)
        self._tell("start", lane)
        pid = lane.pg.pid
        try:
            timing = yield from self.send(lane, step.sql, budget_s=self.limits.wait_budget_s, line=line)
        except ConnectionLost as lost:
            made = yield from self._after_loss(lane, pid, lost)
            if made is not None and made.is_good and _is_wanted(step, made):
                return self._adopt(lane, made, "the connection was lost, the server went on and finished it")
            yield from self._clean_up(lane, lost)
            raise
        except (PerfctlError, KeyboardInterrupt) as error:
            yield from self._lost_build(lane, error)
            raise
        made = self.look(step.name)
        # PostgreSQL reports an invalid index as an error; a session that lost its answer does not.
        if made is None or not (made.is_good or made.relkind == "I"):
            invalid = StatementFailed("the index is not valid after its build")
            yield from self._clean_up(lane, invalid)
            raise invalid
        return self._done(
            lane, Outcome(step, "changed", _killed(timing), timing.build_s, timing.wait_s, made.size_bytes, made.oid)
        )

    def _lost_build(self, lane: Lane, error: BaseException) -> Generator[None, None, None]:
        """Clean up after a build that failed; raise Again where a second try is safe and may do better."""
        assert lane.step is not None
        state = getattr(error, "sqlstate", None)
        if state == _NO_LOCK and self.look(lane.step.name) is None:
            raise self._locked(lane, lane.step, lane.began) from error
        oid = self.run.table_oid(lane.step)
        rival = [b for b in self.run.around(fresh=True).blockers if b.table_oid == oid] if state == _DEADLOCK else []
        left = yield from self._clean_up(lane, error, note=state != _DEADLOCK)
        if state == _DEADLOCK and not left and isinstance(error, PerfctlError):
            # Another build on the table: it ends first, then this one is built once more and no oftener.
            raise Again(error, rival, took_s=time.monotonic() - lane.began, lost_build=True) from error

    def _adopt(self, lane: Lane, there: Live, why: str) -> Outcome:
        """A build of perfctl's own that outlived its client."""
        assert lane.step is not None
        return self._done(lane, Outcome(lane.step, "changed", why, 0, 0, there.size_bytes, there.oid))

    def _adopt_finished(self, lane: Lane, step: Step) -> Task:
        there = self.look(step.name)
        if there is None or not there.is_good or there.oid != step.oid or not _is_wanted(step, there):
            raise StatementFailed("it has changed since the plan was made", hint="run the command again")
        lane.step = replace(step, kind="create_index")
        outcome = self._adopt(lane, there, "a build that was under way has finished")
        return replace(outcome, step=step)
        yield  # a task is a generator even when it waits for nothing

    def _follow(self, lane: Lane, step: Step) -> Generator[None, None, tuple[str | None, Live | None]]:
        """Who was building the index, and the index once nobody does any more; None when it is not there.

        A build may take as long as it works; what it waits for others is bounded.
        """
        builder: str | None = None
        waited_s, looked = 0.0, time.monotonic()
        while (there := self.look(step.name)) is not None and there.builder_pid is not None:
            builder = there.builder_application
            rows = self.watcher.fetch("progress", Progress, {"pids": [there.builder_pid]})
            now = time.monotonic()
            waited_s = waited_s + now - looked if rows and rows[0].is_waiting else 0.0
            looked = now
            if waited_s > self.limits.wait_budget_s:
                who = (rows[0].blocking,) if rows[0].blocking else ()
                raise waited(waited_s, f"pid {there.builder_pid} is building it; {rows[0].wait_phase}", who)
            detail = f"pid {there.builder_pid} is building it"
            self._tell("waiting", lane, elapsed_s=now - lane.began, progress=rows[0] if rows else None, detail=detail)
            yield
            self._heed_stop(lane)
        return builder, there

    def _after_loss(self, lane: Lane, pid: int, lost: ConnectionLost) -> Generator[None, None, Live | None]:
        """What became of a statement whose connection was lost: a fresh session asks, and waits for the old one."""
        assert lane.step is not None
        lane.pg.close()
        application = f"perfctl/{self.journal.run_id}/%"
        while True:
            rows = self.watcher.values(
                "SELECT state FROM pg_catalog.pg_stat_activity WHERE pid = %s AND application_name LIKE %s",
                (pid, application),
            )
            if not rows or rows[0][0] != "active":
                break
            self._tell(
                "waiting", lane, elapsed_s=time.monotonic() - lane.began, detail=f"{lost.message}; pid {pid} goes on"
            )
            yield
            self._heed_stop(lane)
        with suppress(Denied):
            # It is done, and nobody is there any more to tell it to go.
            self.watcher.values(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                " WHERE pid = %s AND application_name LIKE %s AND state = 'idle'",
                (pid, application),
            )
        return self.look(lane.step.name)

    # cleaning up

    def _clean_up(self, lane: Lane, error: BaseException, *, note: bool = True) -> Generator[None, None, bool]:
        """Drop what a failed build left, unless it is good or somebody else's; the first error stays the cause.

        True when something had to be left behind.
        """
        assert lane.step is not None
        step = lane.step
        lane.cleaning = True
        more, left_behind, left = "", False, None
        try:
            left = self.look(step.name)
            if left is not None and not left.is_good and left.relkind == "i" and left.builder_pid is None:
                more = yield from self._drop_leftover(lane, left, error)
                left_behind = bool(more)
        except PerfctlError as second:
            more, left_behind = f"; its invalid leftover stays ({second.message}) until the next run", True
        if left_behind:
            self.run.leftovers[step.name] = more.removeprefix("; ")
        if note:
            self.failed(lane, error, more, left=left if left_behind else None)
        return left_behind

    def _drop_leftover(self, lane: Lane, left: Live, error: BaseException) -> Generator[None, None, str]:
        assert lane.step is not None
        step = lane.step
        self._tell("cleanup", lane, detail="dropping what the build left; a second Ctrl-C leaves it")
        if lane.pg.closed:
            lane.renew(self.run.ground.connect())
        repeated = getattr(error, "sqlstate", None) == _REPEATED
        # What it holds apart has to be asked while it is there; the keys themselves once it rejects no writes any more.
        keys = self.watcher.fetch("keys", Keys, {"oid": left.oid}) if repeated else []
        patience_s = _STOPPED_CLEANUP_S if isinstance(error, KeyboardInterrupt) else self.limits.cleanup_budget_s
        if left.rejects_writes and not isinstance(error, KeyboardInterrupt):
            # Applications' writes fail until it is gone: nothing else is worth more of the run's time.
            patience_s = self.limits.wait_budget_s
        sql = f"DROP INDEX CONCURRENTLY {full(step.name)}"
        try:
            yield from self.send(lane, sql, budget_s=min(patience_s, self.limits.wait_budget_s), drop=True)
        except WaitedTooLong as late:
            if not left.rejects_writes:
                raise
            return (yield from self._leave_drop(lane, sql, late))
        if keys and isinstance(error, StatementFailed):
            words = yield from self._await(lane, lambda: repeated_keys(lane.pg, keys[0]))
            if words:
                error.detail = f"{(error.detail or '').rstrip('.')}; keys that repeat: {words}"
        return ""

    def _leave_drop(self, lane: Lane, sql: str, late: WaitedTooLong) -> Generator[None, None, str]:
        """Leave the server dropping a unique leftover by itself: until then it rejects the application's writes."""

        def drop() -> int:
            if lane.pg.major >= 14:
                # With its client gone it would be ended, and the leftover would stay.
                lane.pg.setting("client_connection_check_interval", "0")
            return lane.pg.execute(sql)

        sender = lane.send(drop)
        pid = lane.pg.pid
        until = time.monotonic() + _CANCEL_AGAIN_S
        while not sender.done.is_set() and time.monotonic() < until:
            yield
        if sender.done.is_set():
            sender.take()
            lane.renew(lane.pg)
            return ""
        lane.pg.hang_up()
        return (
            f"; its invalid leftover rejects writes that repeat a key, and its DROP INDEX CONCURRENTLY goes on"
            f" on the server as pid {pid} ({late.message})"
        )

    # dropping

    def _drop(self, lane: Lane, step: Step) -> Task:
        there = self.look(step.actual)
        if there is None:
            outcome = Outcome(step, "skipped", "gone already")
            return self._done(lane, outcome) if step.line is not None else outcome
        if step.oid is not None and there.oid != step.oid:
            raise StatementFailed("another index has taken its name since the plan was made", hint="run it again")
        if step.kind == "drop_leftover" and (there.is_good or there.builder_pid):
            # The build that was given up for dead is alive, or finished: it must not be dropped.
            return Outcome(step, "skipped", "it is alive after all")
        yield from self._settle(lane, step)
        self._line(lane, there.oid)
        self._tell("start", lane)
        pid = lane.pg.pid
        timing = Timing()
        try:
            timing = yield from self.send(lane, step.sql, budget_s=self.limits.wait_budget_s)
        except ConnectionLost as lost:
            if (yield from self._after_loss_of(lane, step, pid, lost)) is not None:
                self.failed(lane, lost, self._half_dropped(step))
                raise
        except (PerfctlError, KeyboardInterrupt) as error:
            half = self._half_dropped(step)
            if not half:
                self._lock_again(lane, error)
            self.failed(lane, error, half)
            raise
        if self.look(step.actual) is not None:
            raise StatementFailed("the index is still there after DROP INDEX")
        return self._done(
            lane,
            Outcome(step, "changed", _killed(timing), timing.build_s, timing.wait_s, there.size_bytes, there.oid),
        )

    def _after_loss_of(
        self, lane: Lane, step: Step, pid: int, lost: ConnectionLost
    ) -> Generator[None, None, Live | None]:
        yield from self._after_loss(lane, pid, lost)
        lane.renew(self.run.ground.connect())
        return self.look(step.actual)

    def _half_dropped(self, step: Step) -> str:
        """What to say of an index whose drop was cut short: queries do not use it any more, writes still pay for it."""
        try:
            left = self.look(step.actual)
        except PerfctlError:
            left = None
        if left is None or left.is_good or left.relkind == "I":
            return ""
        self.run.leftovers[step.name] = "it is half dropped and no query uses it"
        return "; it is half dropped and no query uses it: run the command again to finish the drop"

    # parts of partitioned indexes

    def _attach(self, lane: Lane, step: Step) -> Task:
        assert step.parent is not None
        part, whole = self.look(step.name), self.look(step.parent)
        if part is None or whole is None:
            raise StatementFailed("an index of the tree is gone", hint="run the command again: it looks anew")
        if part.parent_oid == whole.oid:
            return Outcome(step, "skipped", "attached already")
        if not part.is_good:
            # PostgreSQL would attach it, and the whole would never become valid.
            raise StatementFailed(f'"{step.name}" is not valid, so it is not attached', hint="run the command again")
        yield from self._settle(lane, step)
        self._line(lane, part.oid)
        self._tell("start", lane)
        try:
            timing = yield from self.send(lane, step.sql, budget_s=self.limits.wait_budget_s)
        except (PerfctlError, KeyboardInterrupt) as error:
            self._lock_again(lane, error)
            self.failed(lane, error)
            raise
        part = self.look(step.name)
        if part is None or part.parent_oid != whole.oid:
            raise StatementFailed("it is not attached after ATTACH PARTITION")
        return self._done(
            lane, Outcome(step, "changed", _killed(timing), timing.build_s, timing.wait_s, None, part.oid)
        )

    # one index in another's place

    def _swap(self, lane: Lane, step: Step) -> Task:
        """Rename the old index away and the new one into its place, in one transaction with the journal's lines."""
        (_, away), (made_as, _) = step.renames
        new = self.look(made_as)
        old = self.look(step.name)
        if new is None or not new.is_good or not _is_wanted(step, new) or old is None or old.oid != step.oid:
            raise StatementFailed("one of the two indexes has changed since the plan was made", hint="run it again")
        drop_number, drop = next(
            (number, each)
            for number, each in enumerate(self.run.ground.steps)
            if each.kind == "drop_index" and each.called == away
        )
        self._tell("start", lane)
        # Here it is the watcher that sends it: the names and the journal have to change together.
        timeout = f"SET LOCAL lock_timeout = '{_ms(self._lock_timeout_s(step))}'"
        statements = [timeout, *step.sql.split("; ")]

        def both(pg: Postgres) -> int | None:
            for statement in statements:
                pg.execute(statement)
            journal = self.journal
            if isinstance(journal, DatabaseJournal):
                return journal.through(pg).renamed(step, made_as.name, new.oid, drop)
            return None

        started = time.monotonic()
        try:
            line = self.watcher.transaction(both)
        except StatementFailed as error:
            there = self.look(step.name)
            if there is None or there.oid != new.oid:
                self._lock_again(lane, error)
                self.failed(lane, error)
                raise
            # The answer was lost and the second try came too late: it had been done.
            line = None
        if line is None:
            line = self.journal.renamed(step, made_as.name, new.oid, drop)
        self.lines[drop_number] = line
        took_s = time.monotonic() - started
        return Outcome(step, "changed", f'"{made_as.name}" took its place', took_s, 0.0, new.size_bytes, new.oid)
        yield  # a task is a generator even when it waits for nothing

    def what_remains(self, lane: Lane) -> str:
        """What a run that leaves at once leaves behind of a step."""
        assert lane.step is not None
        try:
            left = self.look(lane.step.actual)
        except (PerfctlError, KeyboardInterrupt):
            return "left as it was; what became of it could not be seen"
        if left is None:
            return "nothing of it is there"
        if left.is_good:
            return "it is there and good"
        by = f", pid {left.builder_pid} is at it" if left.builder_pid else ""
        return f"an invalid index stays{by}, until the next run clears it away"


def _is_wanted(step: Step, there: Live) -> bool:
    return step.canonical is None or canonical_text(there.definition) == step.canonical


def _killed(timing: Timing) -> str:
    return "; ".join(dict.fromkeys(timing.killed))


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _answer_is_lost(progress: Progress | None, lane: Lane) -> bool:
    """The server has no such session, or has long done what it was sent, and no answer has come."""
    if progress is None:
        return lane.sender is not None and time.monotonic() - lane.sender.started > _ANSWER_LOST_S
    return progress.state == "idle" and (progress.idle_s or 0.0) > _ANSWER_LOST_S
