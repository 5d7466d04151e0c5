"""Carries a plan out: one statement at a time, each looked at before and after, each in the journal.

Two sessions: one sends the statements, in a thread, for a build holds its session for as long as it takes; the
other keeps the lock and the journal and watches. The watching session is in autocommit and never has a
transaction open while a build runs, so perfctl cannot be what its own build waits for.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from perfctl.errors import Busy, Incomplete, Interrupted, PerfctlError, Refused, StatementFailed, StopRequested
from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.figures import human_seconds
from perfctl.indexes.ledger import Ledger
from perfctl.indexes.model import Event, Limits, Live, Outcome, Progress, Step, full
from perfctl.migrations.model import Name
from perfctl.servers.postgres import Postgres

#: ``pg_try_advisory_lock(classid, objid)``: "perf" in ASCII, and the database is part of every such lock.
LOCK_KEY = (0x70657266, 1)

#: Limits that a role or database may set and that would end a long build; those a server lacks are passed over.
_LIFTED = {
    "statement_timeout": 0,
    "lock_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 14,
    "transaction_timeout": 17,
}

_FIRST_LOOK_S = 0.05
_LOOK_S = 0.5

#: SQLSTATE: other objects depend on it
_STILL_NEEDED = "2BP01"

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did; ``error`` is why it stopped before its end."""

    run_id: int | None
    outcomes: tuple[Outcome, ...]
    error: PerfctlError | None = None


@dataclass(slots=True)
class Timing:
    """Seconds that a statement took, and how many of them it waited for other transactions."""

    total_s: float = 0.0
    wait_s: float = 0.0

    @property
    def build_s(self) -> float:
        """Seconds of work."""
        return max(0.0, self.total_s - self.wait_s)


class WaitedTooLong(PerfctlError):
    """another transaction did not end in time"""

    exit_code = 6


def apply(
    watcher: Postgres,
    worker: Postgres,
    steps: Sequence[Step],
    limits: Limits,
    on_event: OnEvent,
    *,
    command: str,
    target: str | None,
    journal_exists: bool,
) -> Result:
    """Send the steps in order; the first failure stops the run, and what is done stays.

    Raises Busy when another perfctl is at work and Refused or Denied before anything was touched; whatever goes
    wrong later is the Result's error, beside what was done.
    """
    with _only_runner(watcher, limits):
        watcher.setting("default_transaction_read_only", "off")
        ledger = Ledger(watcher)
        run_id = ledger.open(command, target, exists=journal_exists)
        _prepare(worker)
        run = _Run(watcher, worker, ledger, limits, on_event, len(steps), verb=command.rpartition(" ")[2])
        error = run.all(steps)
        # A connection that is gone must not hide why: what the journal lacks, the next run reads off the catalogue.
        with suppress(PerfctlError):
            ledger.close("done" if error is None else error.message)
        return Result(run_id, tuple(run.outcomes), error)


class _only_runner:
    """One perfctl at a time on a database. Polled: a session that blocks in pg_advisory_lock holds a snapshot,
    and a concurrent build would wait for that snapshot for ever."""

    def __init__(self, pg: Postgres, limits: Limits) -> None:
        self.pg = pg
        self.limits = limits

    def __enter__(self) -> None:
        deadline = time.monotonic() + self.limits.runner_wait_s
        while True:
            ((got,),) = self.pg.values("SELECT pg_catalog.pg_try_advisory_lock(%s, %s)", LOCK_KEY)
            if got:
                return
            if time.monotonic() > deadline:
                raise Busy(
                    f"another perfctl is at work on this database: {self._holder()}",
                    hint="wait for it to end, then run the command again",
                )
            time.sleep(0.2)

    def _holder(self) -> str:
        rows = self.pg.values(
            "SELECT a.pid, a.usename, a.application_name, a.client_addr::text FROM pg_catalog.pg_locks AS l"
            " JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid"
            " WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.granted"
            " AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())",
            LOCK_KEY,
        )
        return "; ".join(f"pid {p} ({u}, {a}, from {c or 'this machine'})" for p, u, a, c in rows) or "it just ended"

    def __exit__(self, *_: object) -> None:
        # The lock ends with its session in any case.
        with suppress(PerfctlError):
            self.pg.values("SELECT pg_catalog.pg_advisory_unlock(%s, %s)", LOCK_KEY)


def _prepare(worker: Postgres) -> None:
    """Lift what would end a long build, and read back that it is lifted."""
    worker.setting("default_transaction_read_only", "off")
    for name, since in _LIFTED.items():
        if worker.major >= since:
            worker.setting(name, "0")
            ((value,),) = worker.values("SELECT current_setting(%s)", (name,))
            if value not in ("0", "0ms"):
                raise PerfctlError(f"{name} is {value} after it was set to 0", hint="is there a pooler in between?")


class _Run:
    def __init__(
        self,
        watcher: Postgres,
        worker: Postgres,
        ledger: Ledger,
        limits: Limits,
        on_event: OnEvent,
        total: int,
        *,
        verb: str,
    ) -> None:
        self.watcher = watcher
        self.worker = worker
        self.ledger = ledger
        self.limits = limits
        self.on_event = on_event
        self.total = total
        self.verb = verb
        self.left_behind = False
        self.began = 0.0
        self.outcomes: list[Outcome] = []
        self.number = 0
        self.set: dict[str, str] = {}

    def all(self, steps: Sequence[Step]) -> PerfctlError | None:
        """Send every step; returns what stopped the run, None for nothing."""
        try:
            for self.number, step in enumerate(steps, 1):
                outcome = self._one(step)
                self.outcomes.append(outcome)
                self._tell("done", step, elapsed_s=outcome.build_s + outcome.wait_s, detail=outcome.detail)
        except (PerfctlError, KeyboardInterrupt) as error:
            return self._stopped(steps, error)
        return None

    def _stopped(self, steps: Sequence[Step], error: BaseException) -> PerfctlError:
        changed = [o for o in self.outcomes if o.result == "changed"]
        left = self.total - sum(1 for o in self.outcomes if o.result != "failed")
        name = steps[self.number - 1].name
        hint = f"perfctl indexes {self.verb} goes on from here"
        if self.verb == "apply":
            hint += "; perfctl indexes rollback takes off what was made"
        if isinstance(error, KeyboardInterrupt):
            signum = error.signum if isinstance(error, StopRequested) else signal.SIGINT
            return Interrupted(signum, f'stopped at "{name}": {len(changed)} done, {left} left', hint=hint)
        assert isinstance(error, PerfctlError)
        detail = f"; {error.detail.rstrip('.')}" if isinstance(error, StatementFailed) and error.detail else ""
        if not changed and not self.left_behind and isinstance(error, WaitedTooLong):
            return Busy(f'"{name}": {error.message}; nothing was changed', hint=error.hint)
        if not changed and not self.left_behind and isinstance(error, StatementFailed):
            return Refused(f'"{name}": {error.message}{detail}; nothing was changed', hint=error.hint)
        return Incomplete(
            f'"{name}": {error.message}{detail}\n{len(changed)} of {self.total} done, {left} left',
            hint="; ".join(part for part in (error.hint, hint) if part),
        )

    def _tell(
        self, kind: str, step: Step, *, elapsed_s: float = 0.0, progress: Progress | None = None, detail: str = ""
    ) -> None:
        try:
            self.on_event(Event(kind, step, self.number, self.total, elapsed_s, progress, detail))
        except OSError:
            # Whoever read the progress is gone; the build is not to suffer for it.
            self.on_event = _unheard

    def _look(self, name: Name) -> Live | None:
        rows = self.watcher.fetch("index", Live, {"schema": name.schema, "name": name.name})
        return rows[0] if rows else None

    def _one(self, step: Step) -> Outcome:
        self.began = time.monotonic()
        match step.kind:
            case "create_index":
                return self._create(step)
            case "drop_index" | "drop_leftover":
                return self._drop(step)
            case "adopt_index":
                return self._adopt_finished(step)
            case _:
                return self._simple(step)

    def _simple(self, step: Step) -> Outcome:
        line = self.ledger.start(step, None)
        self._tell("start", step)
        try:
            timing = self._send(step)
        except (PerfctlError, KeyboardInterrupt) as error:
            if step.kind == "undo_create_extension" and getattr(error, "sqlstate", None) == _STILL_NEEDED:
                outcome = Outcome(step, "skipped", "stays: other objects need it by now")
                self.ledger.finish(line, outcome)
                return outcome
            self._failed(line, step, error)
            raise
        outcome = Outcome(step, "changed", "", timing.build_s, timing.wait_s)
        self.ledger.finish(line, outcome)
        return outcome

    def _create(self, step: Step) -> Outcome:
        builder, there = self._wait_for_builder(step)
        if there is not None and there.is_good and self._is_wanted(step, there):
            if builder is None or not builder.startswith("perfctl/"):
                # Whoever built it owns it: a rollback of perfctl's leaves it.
                return Outcome(step, "skipped", "somebody else has built it meanwhile")
            return self._adopt(step, there)
        if there is not None:
            raise StatementFailed(
                "something of that name appeared since the plan was made", hint="run the command again: it looks anew"
            )
        line = self.ledger.start(step, None)
        self._tell("start", step)
        self._settings(step)
        try:
            timing = self._send(step, line)
        except (PerfctlError, KeyboardInterrupt) as error:
            self._clean_up(line, step, error)
            raise
        made = self._look(step.name)
        # PostgreSQL reports an invalid index as an error; a session that lost its answer does not.
        if made is None or not (made.is_good or made.relkind == "I"):
            self._clean_up(line, step, StatementFailed("the index is not valid after its build"))
            raise StatementFailed("the index is not valid after its build")
        outcome = Outcome(step, "changed", "", timing.build_s, timing.wait_s, made.size_bytes, made.oid)
        self.ledger.finish(line, outcome)
        return outcome

    def _is_wanted(self, step: Step, there: Live) -> bool:
        return step.canonical is None or canonical_text(there.definition) == step.canonical

    def _adopt(self, step: Step, there: Live) -> Outcome:
        """A build of perfctl's own that outlived its client."""
        line = self.ledger.start(step, there.oid)
        outcome = Outcome(step, "changed", "a build that was under way has finished", 0, 0, there.size_bytes, there.oid)
        self.ledger.finish(line, outcome)
        return outcome

    def _adopt_finished(self, step: Step) -> Outcome:
        there = self._look(step.name)
        if there is None or not there.is_good or there.oid != step.oid or not self._is_wanted(step, there):
            raise StatementFailed("it has changed since the plan was made", hint="run the command again")
        return replace(self._adopt(replace(step, kind="create_index"), there), step=step)

    def _wait_for_builder(self, step: Step) -> tuple[str | None, Live | None]:
        """Who was building the index, and the index once nobody does any more; None when it is not there."""
        started = time.monotonic()
        builder: str | None = None
        while (there := self._look(step.name)) is not None and there.builder_pid is not None:
            builder = there.builder_application
            elapsed = time.monotonic() - started
            if elapsed > self.limits.wait_budget_s:
                raise WaitedTooLong(f"pid {there.builder_pid} is still building it after {human_seconds(elapsed)}")
            self._tell("waiting", step, elapsed_s=elapsed, detail=f"pid {there.builder_pid} is building it")
            time.sleep(_LOOK_S)
        return builder, there

    def _drop(self, step: Step) -> Outcome:
        there = self._look(step.name)
        if there is None:
            return Outcome(step, "skipped", "gone already")
        if step.oid is not None and there.oid != step.oid:
            raise StatementFailed("another index has taken its name since the plan was made", hint="run it again")
        if step.kind == "drop_leftover" and (there.is_good or there.builder_pid):
            # The build that was given up for dead is alive, or finished: it must not be dropped.
            return Outcome(step, "skipped", "it is alive after all")
        line = self.ledger.start(step, there.oid)
        self._tell("start", step)
        try:
            timing = self._send(step)
        except (PerfctlError, KeyboardInterrupt) as error:
            self._failed(line, step, error, self._half_dropped(step))
            raise
        if self._look(step.name) is not None:
            raise StatementFailed("the index is still there after DROP INDEX")
        outcome = Outcome(step, "changed", "", timing.build_s, timing.wait_s, there.size_bytes, there.oid)
        self.ledger.finish(line, outcome)
        return outcome

    def _half_dropped(self, step: Step) -> str:
        """What to say of an index whose drop was cut short: queries do not use it any more, writes still pay for it."""
        try:
            left = self._look(step.name)
        except PerfctlError:
            left = None
        if left is None or left.is_good:
            return ""
        self.left_behind = True
        return f"; it is half dropped and no query uses it: perfctl indexes {self.verb} finishes the drop"

    def _settings(self, step: Step) -> None:
        wanted = dict(step.settings)
        for name in self.set.keys() - wanted.keys():
            self.worker.execute(f"RESET {name}")
        for name, value in wanted.items():
            if self.set.get(name) != value:
                self.worker.setting(name, value)
        self.set = wanted

    def _send(self, step: Step, line: int | None = None) -> Timing:
        self.worker.setting("application_name", f"perfctl/{self.ledger.run_id}/{step.name.name}"[:63])
        return self._watch(step, step.sql, self.limits.wait_budget_s, line)

    def _watch(self, step: Step, sql: str, budget_s: float, line: int | None = None) -> Timing:
        """Send a statement from a thread and watch it from here until it ends, however it ends.

        The OID of what it makes goes into the journal's ``line`` as soon as it shows.
        """
        sender = _Sender(self.worker, sql)
        timing = Timing()
        started = last = time.monotonic()
        stretch_s = 0.0
        progress: Progress | None = None
        sender.start()
        pause = _FIRST_LOOK_S
        try:
            while not sender.done.wait(pause):
                pause = min(_LOOK_S, pause * 2)
                progress = self._progress()
                now = time.monotonic()
                if progress is not None and progress.is_waiting:
                    timing.wait_s += now - last
                    stretch_s += now - last
                else:
                    stretch_s = 0.0
                last = now
                if line is not None and progress is not None and progress.index_oid is not None:
                    self.ledger.note_oid(line, progress.index_oid)
                    line = None
                self._tell("progress", step, elapsed_s=now - started, progress=progress)
                if stretch_s > budget_s:
                    who = progress.blocker if progress else None
                    raise WaitedTooLong(
                        f"waited {human_seconds(stretch_s)} for {who or 'another transaction'}",
                        hint="end that transaction, or give more time with --wait-budget",
                    )
        except BaseException:
            sender.stop()
            raise
        timing.total_s = time.monotonic() - started
        sender.result()
        return timing

    def _progress(self) -> Progress | None:
        rows = self.watcher.fetch("progress", Progress, {"pid": self.worker.pid})
        return rows[0] if rows else None

    def _clean_up(self, line: int, step: Step, error: BaseException) -> None:
        """Drop what a failed build left, unless it is good or somebody else's; the first error stays the cause."""
        try:
            left = self._look(step.name)
            if left is not None and not left.is_good and left.relkind == "i" and left.builder_pid is None:
                self._tell("cleanup", step, detail="dropping what the build left; a second Ctrl-C leaves it")
                drop = replace(step, kind="drop_leftover", sql=f"DROP INDEX CONCURRENTLY {full(step.name)}")
                self.left_behind = True
                # Who sends a signal sends SIGKILL soon: what cannot be dropped by then is said, not waited for.
                patience_s = 5.0 if isinstance(error, KeyboardInterrupt) else self.limits.cleanup_budget_s
                self._watch(drop, drop.sql, min(patience_s, self.limits.wait_budget_s))
                self.left_behind = False
        except (PerfctlError, KeyboardInterrupt) as second:
            why = second.message if isinstance(second, PerfctlError) else "stopped again"
            self._failed(line, step, error, f"; its invalid leftover stays ({why}) until the next apply")
            return
        self._failed(line, step, error)

    def _failed(self, line: int, step: Step, error: BaseException, more: str = "") -> None:
        message = error.message if isinstance(error, PerfctlError) else "stopped"
        detail = getattr(error, "detail", None)
        elapsed_s = time.monotonic() - self.began
        outcome = Outcome(step, "failed", message + (f" ({detail})" if detail else "") + more, elapsed_s)
        self.outcomes.append(outcome)
        self._tell("failed", step, elapsed_s=elapsed_s, detail=outcome.detail)
        with suppress(PerfctlError):
            self.ledger.finish(line, outcome)


def _unheard(_: Event) -> None:
    """Nobody listens any more."""


class _Sender(threading.Thread):
    """Sends one statement and keeps what came of it."""

    def __init__(self, pg: Postgres, sql: str) -> None:
        super().__init__(name="perfctl-worker", daemon=True)
        self.pg = pg
        self.sql = sql
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send it; never raises."""
        try:
            self.pg.execute(self.sql)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asks
            self.error = error
        finally:
            self.done.set()

    def stop(self) -> None:
        """Cancel on the server and wait until the session is idle again."""
        while not self.done.is_set():
            # An error here means that the session is gone; its thread will see that too.
            with suppress(PerfctlError):
                self.pg.cancel()
            self.done.wait(1.0)

    def result(self) -> None:
        """Raise what the statement raised."""
        if self.error is not None:
            raise self.error
