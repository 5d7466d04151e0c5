"""The stages of the cache commands, put in order. Loaded only when a command runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perfctl.cache import act, decide, items, observe
from perfctl.cache.journal import Journal, usual_path
from perfctl.cache.lock import FlushLock
from perfctl.cache.model import Look, Question
from perfctl.cache.route import Router
from perfctl.cli.session import Session, duration_s
from perfctl.errors import CommandFailed, Interrupted, PerfctlError, Refused, UsageError
from perfctl.report import Item, Report, Status
from perfctl.servers.deployment import Deployment

#: how often a walk tells how far it is, where its lines are kept
_EVERY_S = 10.0


def question(pattern: str, *, kind: str | None, exclude: Sequence[str], delimiter: str) -> Question:
    """What the command line asks for; its bytes as the shell gave them. Raises Refused, UsageError."""
    if not pattern:
        raise Refused("the pattern is empty: it names no key", hint="'*' means all keys")
    if not delimiter:
        raise UsageError("--delimiter is empty")
    without = tuple(os.fsencode(each) for each in exclude)
    return Question(os.fsencode(pattern), kind, without, os.fsencode(delimiter))


def keys(session: Session, asked: Question, *, depth: int | None, top: int) -> Report:
    """Look at every matching key, and tell."""
    deployment = session.cache()
    notes = [_server(deployment)]
    if primary := deployment.primary_of_a_replica:
        notes.append(f"a replica, which may be behind; its primary is {primary}")
    prefix = session.target.cache.prefix if session.target.cache else ""
    if prefix and not asked.pattern.startswith(os.fsencode(prefix)):
        notes.append(f'the pattern reaches beyond the application\'s own keys, which begin with "{prefix}"')
    look = _look(session, deployment, asked)
    return session.report(items.keys(look, asked, depth=depth, top=top), notes=notes)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a flush may do, and how."""

    manner: act.Manner
    persistent: bool
    max_keys: int | None
    journal: str | None
    force: bool


def manner(*, count: int | None, passes: int, rate: int | None, max_latency: str) -> act.Manner:
    """How keys are deleted. Raises UsageError."""
    budget = duration_s("--max-latency", max_latency)
    return act.Manner(count or observe.COUNT, count is not None, passes, rate, budget or None)


def flush(session: Session, asked: Question, wish: Wish) -> Report:
    """Look, ask, delete, and tell."""
    deployment = session.cache()
    if primary := deployment.primary_of_a_replica:
        raise Refused(f"{deployment.node.address} is a replica; nothing was changed", hint=f"its primary is {primary}")
    look = _look(session, deployment, asked)
    notes = [_server(deployment)]
    found = items.keys(look, asked, depth=None, top=20)
    if session.options.dry_run:
        return session.report([_planned(each) for each in found], notes=notes, dry_run=True)
    if not look.matched:
        return session.report(found, notes=notes)
    session.say(_server(deployment))
    _ask(session, look, asked, wish, found)
    router = Router(deployment, deployment.node.address)
    session.closed_at_the_end(router.close)
    if some := next((part.sample for part in look.parts if part.sample), ()):
        act.check_rights(router, some[0].key)
    journal = Journal(Path(wish.journal) if wish.journal else usual_path(os.environ))
    journal.write("flush", **_facts(session, deployment, asked), matched=look.matched, of=look.keys)
    lock = FlushLock(router)
    lock.take(force=wish.force)
    try:
        done = _delete(session, deployment, asked, wish, lock)
    except PerfctlError as error:
        journal.write("flush failed", **_facts(session, deployment, asked), error=error.message)
        raise
    finally:
        act.released(lock)
    item = _done(asked, done, look)
    journal.write("flush ended", **_facts(session, deployment, asked), **item.data)
    if done.stopped is None:
        return session.report([item], notes=notes)
    text = f"stopped by a signal after {done.deleted:,} keys; the rest is as it was"
    again = Interrupted(done.stopped, text, hint="the same command goes on: what is deleted no longer matches")
    return session.report([item], notes=notes, error=again)


def _ask(session: Session, look: Look, asked: Question, wish: Wish, found: Sequence[Item]) -> None:
    """Show what would go, and have it confirmed. Raises Refused, NotConfirmed."""
    if wish.max_keys is not None and look.matched > wish.max_keys:
        raise Refused(f"{look.matched:,} keys match, more than --max-keys {wish.max_keys:,}; nothing was changed")
    reasons = [each for each in decide.guards(look) if not (wish.persistent and each.opened_by != "--confirm")]
    lasting = [each.text for each in reasons if each.opened_by == "--include-persistent"]
    if lasting and (session.options.confirm is not None or not session.may_ask):
        raise Refused(
            f"{'; '.join(lasting)}; nothing was changed",
            hint="--include-persistent takes them too; --type and --exclude leave keys out",
        )
    for item in found:
        session.say(f"{item.name}: {item.detail}")
    question = f"Delete {look.matched:,} keys that match {items.name_of(asked.pattern)} on {session.target.name}?"
    session.confirm(question, large="; ".join(each.text for each in reasons))


def _delete(session: Session, deployment: Deployment, asked: Question, wish: Wish, lock: FlushLock) -> act.Flushed:
    with session.gentle_stop() as stop, _Walk(session) as watch:
        stop.may_leave = True
        run = act.Flush(
            deployment,
            asked,
            wish.manner,
            stop=stop,
            watch=watch.deleting,
            say=session.say,
            lock=lock,
        )
        done = run.run()
        stop.may_leave = False
    return done


def _facts(session: Session, deployment: Deployment, asked: Question) -> dict[str, object]:
    return {
        "target": session.target.name,
        "server": str(deployment.node.address),
        "database": deployment.seeds.login.db,
        "pattern": items.name_of(asked.pattern),
        "type": asked.type,
        "exclude": [items.name_of(each) for each in asked.exclude],
    }


def _planned(item: Item) -> Item:
    """What a flush would hit."""
    if item.kind != "cache" or not item.data.get("matched"):
        return item
    return Item(item.kind, item.name, Status.PLANNED, item.detail, item.remedy, item.data)


def _done(asked: Question, done: act.Flushed, look: Look) -> Item:
    """What a flush came to, in three numbers."""
    first, *more = done.passes
    again = sum(each.matched for each in more)
    lines = [f"{first.matched:,} matched, {first.deleted:,} deleted, {first.gone:,} already gone"]
    if again:
        lines.append(f"re-created meanwhile: {again:,}, of which {sum(each.deleted for each in more):,} deleted")
    if more and more[-1].matched:
        lines.append("the last pass still found keys: somebody goes on writing them")
    if restarts := sum(each.restarts for each in done.passes):
        lines.append(f"walks that began anew for another server had the keys: {restarts}")
    if done.moving:
        lines.append(f"slots still on their way, whose keys may be left: {', '.join(map(str, sorted(done.moving)))}")
    data = {
        "matched": first.matched,
        "deleted": first.deleted,
        "gone": first.gone,
        "recreated": again,
        "passes": len(done.passes),
        "restarts": restarts,
        "look_s": round(max(part.walk_s for part in look.parts), 3),
        "flush_s": round(done.seconds, 3),
    }
    status = Status.FAILED if done.moving else Status.CHANGED
    return Item("cache", items.name_of(asked.pattern), status, "\n".join(lines), data=data)


def _look(session: Session, deployment: Deployment, asked: Question) -> Look:
    try:
        with _Walk(session) as watch:
            return observe.look(deployment, asked, watch)
    except CommandFailed as error:
        if asked.type and "unknown type" in error.message:
            raise UsageError(f'the server knows no type "{asked.type}"') from error
        raise


def _server(deployment: Deployment) -> str:
    kind = "" if deployment.kind == "standalone" else f", {deployment.kind}"
    return f"{deployment.version}, {deployment.node.address}, database {deployment.seeds.login.db}{kind}"


class _Walk:
    """How far a walk is: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._on = not session.options.quiet and not session.streams_events
        self._live = self._on and sys.stderr.isatty()
        self._every_s = 1.0 if session.streams_events else _EVERY_S
        # Of a stream the first page is told at once: whoever reads it knows that it goes.
        self._last = 0.0 if session.streams_events else time.monotonic()

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, walked: int, matched: int) -> None:
        text = f"walked past {walked:,} keys, {matched:,} match"
        self._tell(text, event="looking", walked=walked, matched=matched)

    def deleting(self, tally: act.Tally) -> None:
        """Told after each page of a flush."""
        text = f"{tally.matched:,} keys found, {tally.deleted:,} deleted"
        self._tell(text, event="deleting", matched=tally.matched, deleted=tally.deleted)

    def _tell(self, text: str, **facts: object) -> None:
        """Tell it, unless something was told just now."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._live else self._every_s):
            return
        self._last = now
        if self._session.streams_events:
            self._session.event(**facts)
        if not self._on:
            return
        sys.stderr.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        sys.stderr.flush()
