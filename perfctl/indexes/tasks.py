"""What each kind of step does, one stretch at a time: look, take the lock, write down, send, watch, look again.

Every task is a generator that hands back the turn while the server works, so one thread tends them all.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace

from perfctl.errors import ConnectionLost, Denied, PerfctlError, StatementFailed
from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.duplicates import Keys, keys_of, repeated_keys
from perfctl.indexes.lane import Lane, Task
from perfctl.indexes.ledger import DatabaseJournal
from perfctl.indexes.model import Step, full
from perfctl.indexes.running import Live, Outcome, Progress, Timing, WaitedTooLong, waited
from perfctl.indexes.statements import CANCEL_AGAIN_S, NO_LOCK, Again, Statements, milliseconds
from perfctl.migrations.model import Name
from perfctl.servers.postgres import Postgres

#: SQLSTATEs: other objects depend on it; a deadlock; a repeated key
_STILL_NEEDED, _DEADLOCK, _REPEATED = "2BP01", "40P01", "23505"

#: After a signal, for whoever sends one sends SIGKILL soon.
_STOPPED_CLEANUP_S = 5.0

#: of a step whose server did not come back
_UNSEEN = "what became of it could not be seen; the next run looks, and clears away what is broken"


class Tasks(Statements):
    """The tasks of one run."""

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
            case "settle":
                return self._write_down(lane, step)
            case _:
                return self._simple(lane, step)

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

    def _write_down(self, lane: Lane, step: Step) -> Task:
        self._line(lane, None)
        return self._done(lane, Outcome(step, "changed", step.why))
        yield  # a task is a generator even when it waits for nothing

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
            made = yield from self._seen_after_loss(lane, pid, lost)
            if made is not None and made.is_good and _is_wanted(step, made):
                return self._adopt(lane, made, "the connection was lost, the server went on and finished it")
            yield from self._clean_up(lane, lost)
            raise
        except (PerfctlError, KeyboardInterrupt) as error:
            yield from self._lost_build(lane, error)
            raise
        made = self.look(step.name)
        # PostgreSQL reports an invalid index as an error; a session that lost its answer does not.
        if made is None:
            raise StatementFailed("the index is gone after its build: somebody dropped it meanwhile")
        if not (made.is_good or made.relkind == "I"):
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
        if state == NO_LOCK and self.look(lane.step.name) is None:
            raise self._locked(lane, lane.step, lane.began) from error
        oid = self.run.table_oid(lane.step)
        rival = [b for b in self.run.around(fresh=True).blockers if b.table_oid == oid] if state == _DEADLOCK else []
        left = yield from self._clean_up(lane, error, note=state != _DEADLOCK)
        if state == _DEADLOCK and not left and isinstance(error, PerfctlError):
            # Another build on the table: it ends first, then this one is built once more and no oftener.
            took_s = time.monotonic() - lane.began
            worked_s = max(0.0, took_s - lane.waited_s)
            raise Again(error, rival, took_s=took_s, worked_s=worked_s, lost_build=True) from error

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
            # Somebody else's work is this step's wait.
            lane.waited_s += now - looked
            looked = now
            if waited_s > self.limits.wait_budget_s:
                who = (rows[0].blocking,) if rows[0].blocking else ()
                raise waited(waited_s, f"pid {there.builder_pid} is building it; {rows[0].wait_phase}", who)
            detail = f"pid {there.builder_pid} is building it"
            self._tell("waiting", lane, elapsed_s=now - lane.began, progress=rows[0] if rows else None, detail=detail)
            yield
            self._heed_stop(lane)
        return builder, there

    def _seen_after_loss(self, lane: Lane, pid: int, lost: ConnectionLost) -> Generator[None, None, Live | None]:
        """As ``_after_loss``; where the server does not come back, the run says what that leaves open."""
        assert lane.step is not None
        try:
            return (yield from self._after_loss(lane, pid, lost))
        except (PerfctlError, KeyboardInterrupt):
            self.run.leftovers[lane.step.actual] = _UNSEEN
            raise

    def _after_loss(self, lane: Lane, pid: int, lost: ConnectionLost) -> Generator[None, None, Live | None]:
        """What became of a statement whose connection was lost: a fresh session asks, and waits for the old one."""
        assert lane.step is not None
        lane.pg.close()
        application = f"perfctl/{self.journal.run_id}/"
        waited_s, looked, asked = 0.0, time.monotonic(), 0.0
        while True:
            rows = self.watcher.fetch("progress", Progress, {"pids": [pid]})
            there = next((each for each in rows if (each.application or "").startswith(application)), None)
            if there is None or there.state != "active":
                break
            now = time.monotonic()
            waited_s, looked = (waited_s + now - looked if there.is_waiting else 0.0), now
            given_up = self.run.stopped_by is not None or waited_s > self.limits.wait_budget_s
            if given_up and now - asked > CANCEL_AGAIN_S:
                asked = now
                self.watcher.values("SELECT pg_catalog.pg_cancel_backend(%s)", (pid,))
            detail = f"{lost.message}; pid {pid} goes on"
            self._tell("waiting", lane, elapsed_s=now - lane.began, progress=there, detail=detail)
            yield
        with suppress(Denied):
            # It is done, and nobody is there any more to tell it to go.
            self.watcher.values(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                " WHERE pid = %s AND starts_with(application_name, %s) AND state = 'idle'",
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
            elif left is None and getattr(error, "sqlstate", None) == _REPEATED:
                keys = yield from self._await(lane, lambda: keys_of(lane.pg, step))
                yield from self._name_keys(lane, error, keys)
        except PerfctlError as second:
            stays = _UNSEEN if left is None else f"its invalid leftover stays ({second.message}) until the next run"
            more, left_behind = f"; {stays}", True
        if left_behind:
            self.run.leftovers[step.name] = more.removeprefix("; ")
        if note:
            self.failed(lane, error, more, left=left if left_behind else None)
        return left_behind

    def _drop_leftover(self, lane: Lane, left: Live, error: BaseException) -> Generator[None, None, str]:
        assert lane.step is not None
        step = lane.step
        asked = self.run.stopped_by is not None or isinstance(error, KeyboardInterrupt)
        lane.doing = f"dropping what the build left{'; a second Ctrl-C leaves it' if asked else ''}"
        self._tell("cleanup", lane, detail=lane.doing)
        if lane.pg.closed:
            lane.renew(self.run.ground.connect())
        repeated = getattr(error, "sqlstate", None) == _REPEATED
        # What it holds apart has to be asked while it is there; the keys themselves once it rejects no writes any more.
        keys = self.watcher.fetch("keys", Keys, {"oid": left.oid}) if repeated else []
        patience_s = _STOPPED_CLEANUP_S if isinstance(error, KeyboardInterrupt) else self.limits.cleanup_budget_s
        if left.rejects_writes and not isinstance(error, KeyboardInterrupt):
            # Applications' writes fail until it is gone: nothing else is worth more of the run's time.
            patience_s = self.limits.wait_budget_s
        lane.dropping = True
        sql = f"DROP INDEX CONCURRENTLY {full(step.name)}"
        try:
            yield from self.send(lane, sql, budget_s=min(patience_s, self.limits.wait_budget_s), drop=True)
        except WaitedTooLong as late:
            if not left.rejects_writes:
                raise
            return (yield from self._leave_drop(lane, sql, late))
        yield from self._name_keys(lane, error, keys[0] if keys else None)
        return ""

    def _name_keys(self, lane: Lane, error: BaseException, keys: Keys | None) -> Generator[None, None, None]:
        """Let the error name all keys that repeat: PostgreSQL names the first that it met."""
        if keys is None or not isinstance(error, StatementFailed):
            return
        words = yield from self._await(lane, lambda: repeated_keys(lane.pg, keys))
        if words:
            error.detail = f"{(error.detail or '').rstrip('.')}; keys that repeat: {words}"

    def _leave_drop(self, lane: Lane, sql: str, late: WaitedTooLong) -> Generator[None, None, str]:
        """Leave the server dropping a unique leftover by itself: until then it rejects the application's writes."""

        def drop() -> int:
            if lane.pg.major >= 14:
                # With its client gone it would be ended, and the leftover would stay.
                lane.pg.setting("client_connection_check_interval", "0")
            return lane.pg.execute(sql)

        sender = lane.send(drop)
        pid = lane.pg.pid
        until = time.monotonic() + CANCEL_AGAIN_S
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
        yield from self._seen_after_loss(lane, pid, lost)
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
        self.run.leftovers[step.actual] = "it is half dropped and no query uses it"
        # Of a replacement the one that bears the name is good: it is the other that is half dropped.
        what = f'"{step.actual}"' if step.called else "it"
        return f"; {what} is half dropped and no query uses it: run the command again to finish the drop"

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
        timeout = f"SET LOCAL lock_timeout = '{milliseconds(self._lock_timeout_s(step))}'"
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

    def unfinished_trees(self) -> dict[Name, str]:
        """The partitioned indexes that the run leaves without some of their parts, and which those are."""
        settled = {id(outcome.step) for outcome in self.run.outcomes if outcome.result != "failed"}
        missing: dict[Name, list[Name]] = {}
        for step in self.run.ground.steps:
            if step.kind == "attach_index" and step.parent and id(step) not in settled:
                missing.setdefault(step.parent, []).append(step.name)
        found: dict[Name, str] = {}
        for whole, parts in missing.items():
            names = ", ".join(f'"{part}"' for part in parts)
            rest = f"without {names}; the next apply builds and attaches what is missing"
            try:
                there = self.look(whole)
            except (PerfctlError, KeyboardInterrupt):
                found[whole] = f"left {rest}"
                continue
            if there is not None and not there.is_valid:
                found[whole] = f"it is not valid and no query uses it, {rest}"
        return found

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
