"""The stages of `cache flush`, put in order. Loaded only when the command runs."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from perfctl.cache import act, decide, items, outcome, walk
from perfctl.cache.backup import Backup
from perfctl.cache.journal import Journal, usual_path
from perfctl.cache.lock import FlushLock
from perfctl.cache.model import Look, Ttl
from perfctl.cache.route import Router
from perfctl.cli.cache_progress import Progress
from perfctl.cli.cache_wish import Wish
from perfctl.cli.cache_work import columns, elsewhere, look, server
from perfctl.cli.session import Session
from perfctl.errors import Interrupted, PerfctlError, Refused
from perfctl.figures import human_seconds
from perfctl.report import Item, Report, Status
from perfctl.servers.deployment import Deployment

#: A look that is older when its question is answered is taken again.
_STALE_S = 30.0


def flush(session: Session, wished: Wish) -> Report:
    """Look, ask, delete, and tell."""
    deployment = session.cache()
    if primary := deployment.primary_of_a_replica:
        raise Refused(f"{deployment.node.address} is a replica; nothing was changed", hint=f"its primary is {primary}")
    seen = look(session, deployment, wished.asked)
    notes = [server(deployment), *elsewhere(deployment, wished.asked)]
    found = _shown(session, deployment, seen, wished)
    if session.options.dry_run:
        return session.report([_planned(each) for each in found], notes=notes, dry_run=True)
    if not seen.matched:
        return session.report(found, notes=notes)
    for note in notes:
        session.say(note)
    seen = _ask(session, deployment, seen, wished)
    if not wished.everything:
        wished = _permitted(deployment, seen, _cautious(seen, wished))
    router = Router(deployment, deployment.primaries()[0].address)
    session.closed_at_the_end(router.close)
    journal = Journal(Path(wished.journal) if wished.journal else usual_path(os.environ))
    facts = _facts(session, deployment, wished)
    lock = FlushLock(router)
    lock.take(force=wished.force)
    try:
        journal.write("flush", **facts, matched=seen.matched, of=seen.keys)
        if wished.everything:
            done, item = _empty(session, deployment, seen)
        else:
            done, item = _delete(session, deployment, wished, seen, lock)
    except BaseException as error:
        message = error.message if isinstance(error, PerfctlError) else type(error).__name__
        for note in journal.noted("flush failed", **facts, error=message):
            session.say(note)
        raise
    finally:
        act.released(lock)
    notes += journal.noted("flush ended", **{**facts, **item.data})
    if done.stopped is None:
        return session.report([item], notes=notes)
    text = f"stopped by a signal after {done.deleted:,} keys; the rest is as it was"
    again = Interrupted(done.stopped, text, hint=done.goes_on or None)
    return session.report([item], notes=notes, error=again)


def _cautious(seen: Look, wished: Wish) -> Wish:
    """What a sample cannot rule out and nobody has agreed to is left, key by key: those that never expire."""
    shown = any(each.kind == "lasting" for each in decide.guards(seen))
    if wished.persistent or shown or wished.asked.ttl is not None or not seen.may_have_lasting:
        return wished
    return replace(wished, asked=replace(wished.asked, ttl=Ttl()))


def _permitted(deployment: Deployment, seen: Look, wished: Wish) -> Wish:
    """The wish, fit for the servers. Raises Denied when a right is missing on any, before the first key goes."""
    samples = {part.server: [each.key for each in part.sample] for part in seen.parts}
    manner = wished.manner
    for primary in deployment.primaries():
        # A connection that was opened before the question may have been closed for saying nothing.
        node = deployment.open(primary.address)
        try:
            keys = samples.get(str(primary.address), [])
            manner = walk.check_rights(node, keys, manner, backup=wished.backup is not None) if keys else manner
        finally:
            node.close()
    return replace(wished, manner=manner)


def _shown(session: Session, deployment: Deployment, seen: Look, wished: Wish) -> list[Item]:
    """What a flush would hit, with its plan and what it will take."""
    first, *rest = items.keys(seen, wished.asked, depth=None, top=20)
    if not seen.matched:
        return [first, *rest]
    plan = _plan(session, deployment, seen, wished)
    lines, data = [first.detail], {**first.data, "plan": plan.id}
    plain = wished.backup is None and wished.manner.soft_s is None and not wished.everything
    if plain and (cost := decide.estimate(seen, wished.manner)) is not None:
        lines.append(f"takes about {human_seconds(cost.seconds)}, of the servers' time {human_seconds(cost.server_s)}")
        data |= {"estimate_s": round(cost.seconds, 3), "estimate_server_s": round(cost.server_s, 3)}
    if session.options.dry_run:
        lines.append(f"--plan {plan.id} does this, or asks again where it has become something else")
    name = "all keys" if wished.everything else first.name
    whole = seen.matched == seen.keys and plain
    remedy = "--all empties the database in one step, with FLUSHDB ASYNC" if whole else None
    return [Item(first.kind, name, first.status, "\n".join(lines), remedy, data), *rest]


def _plan(session: Session, deployment: Deployment, seen: Look, wished: Wish) -> decide.Plan:
    return _plan_of(session, deployment, seen, wished, seen.matched)


def _plan_of(session: Session, deployment: Deployment, seen: Look, wished: Wish, keys: int) -> decide.Plan:
    servers = sorted(part.server for part in seen.parts)
    place = (deployment.seeds.login.db, *servers, wished.everything, wished.manner.soft_s)
    return decide.plan(wished.asked, session.target.name, place, keys)


def _ask(session: Session, deployment: Deployment, seen: Look, wished: Wish) -> Look:
    """Show what would go, and have it confirmed; the look that this was about. Raises Refused, NotConfirmed."""
    before = wished.plan
    if before is not None and before != _plan_of(session, deployment, seen, wished, before.matched):
        raise Refused(
            f"{before.id} is the plan of another flush; nothing was changed",
            hint="pattern, filters, target and database have to be those of its --dry-run",
        )
    while True:
        _ask_about(session, deployment, seen, wished, before)
        asked_at = time.monotonic()
        text = _question(session, seen, wished)
        reasons = _reasons(seen, wished, before)
        session.confirm(text, large="; ".join(reasons))
        if time.monotonic() - asked_at < _STALE_S:
            return seen
        before = _plan(session, deployment, seen, wished)
        answered = {each.kind for each in decide.guards(seen)}
        seen = look(session, deployment, wished.asked)
        more = {each.kind for each in decide.guards(seen)} - answered
        if not before.moved(seen.matched) and not more and seen.matched <= (wished.max_keys or seen.matched):
            return seen


def _ask_about(session: Session, deployment: Deployment, seen: Look, wished: Wish, before: decide.Plan | None) -> None:
    """Say what a person is about to be asked; refuse what nobody can be asked about."""
    if wished.max_keys is not None and seen.matched > wished.max_keys:
        raise Refused(f"{seen.matched:,} keys match, more than --max-keys {wished.max_keys:,}; nothing was changed")
    unasked = session.options.yes or session.options.confirm is not None or not session.may_ask
    if before is not None and before.moved(seen.matched) and unasked:
        raise Refused(
            f"{_moved(before, seen)}; nothing was changed", hint="look again with --dry-run, which gives a new plan"
        )
    lasting = [each.text for each in decide.guards(seen) if each.opened_by == "--include-persistent"]
    if lasting and not wished.persistent and (session.options.confirm is not None or not session.may_ask):
        raise Refused(
            f"{'; '.join(lasting)}; nothing was changed",
            hint="--include-persistent takes them too; --type, --ttl and --exclude leave keys out",
        )
    session.say(columns(_shown(session, deployment, seen, wished)))


def _reasons(seen: Look, wished: Wish, before: decide.Plan | None) -> list[str]:
    """Why the target's name has to be typed."""
    if wished.everything:
        return [f"that is the whole database, {seen.keys:,} keys"]
    found = [each for each in decide.guards(seen) if not (wished.persistent and each.opened_by != "--confirm")]
    moved = [_moved(before, seen)] if before is not None and before.moved(seen.matched) else []
    return [each.text for each in found] + moved


def _moved(before: decide.Plan, seen: Look) -> str:
    return f"the plan was made for {before.matched:,} keys, and now {seen.matched:,} match"


def _question(session: Session, seen: Look, wished: Wish) -> str:
    where = f"on {session.target.name}"
    if wished.everything:
        return f"Empty the database of all {seen.keys:,} keys, with FLUSHDB ASYNC, {where}?"
    name = items.title(wished.asked)
    if wished.manner.soft_s is not None:
        return (
            f"Let {seen.matched:,} keys that match {name} expire within {human_seconds(wished.manner.soft_s)} {where}?"
        )
    return f"Delete {seen.matched:,} keys that match {name} {where}?"


def _delete(
    session: Session, deployment: Deployment, wished: Wish, seen: Look, lock: FlushLock
) -> tuple[outcome.Flushed, Item]:
    backup = None
    if wished.backup is not None:
        backup = Backup(wished.backup, _facts(session, deployment, wished))
    ended = False
    try:
        with session.gentle_stop() as stop, Progress(session, of=seen.matched) as progress:
            stop.may_leave = True
            verb = "deleted" if wished.manner.soft_s is None else "expiring"
            run = act.Flush(
                deployment,
                wished.asked,
                wished.manner,
                stop=stop,
                watch=lambda tally: progress.deleting(tally.matched, tally.deleted, verb),
                say=session.say,
                lock=lock,
                backup=backup,
            )
            done = run.run()
            ended = done.stopped is None
            stop.may_leave = False
    finally:
        if backup is not None:
            backup.close(whole=ended)
            if backup.problem is not None:
                session.say(f"warning: {backup.problem}; what it has can be restored all the same")
            session.say(
                f"{backup.keys:,} keys with their values are in {backup.path}: perfctl cache restore brings them back"
            )
    kept = outcome.Kept(backup.keys, backup.size_bytes, str(backup.path)) if backup is not None else None
    return done, outcome.of_flush(wished.asked, wished.manner, done, kept, max(part.walk_s for part in seen.parts))


def _empty(session: Session, deployment: Deployment, seen: Look) -> tuple[outcome.Flushed, Item]:
    """FLUSHDB ASYNC on every primary, as it was asked for by name."""
    began = time.monotonic()
    with session.gentle_stop() as stop:
        keys = act.flush_databases(deployment, stop, session.say)
    done = outcome.Flushed([outcome.Tally(keys, keys)], stop(), time.monotonic() - began)
    text = f"{keys:,} keys are gone, with FLUSHDB ASYNC"
    data = {"matched": seen.matched, "deleted": keys, "flush_s": round(done.seconds, 3)}
    return done, Item("cache", "all keys", Status.CHANGED, text, data=data)


def _facts(session: Session, deployment: Deployment, wished: Wish) -> dict[str, object]:
    """What a line of the journal, and the head of a backup, say of a flush."""
    asked = wished.asked
    facts: dict[str, object] = {
        "target": session.target.name,
        "server": str(deployment.node.address),
        "database": deployment.seeds.login.db,
        "pattern": items.name_of(asked.pattern),
        "type": asked.type,
        "exclude": [items.name_of(each) for each in asked.exclude],
    }
    if asked.shape is not None:
        facts["shape"] = items.name_of(asked.shape.pattern)
    if asked.ttl is not None:
        facts["ttl"] = "none" if asked.ttl.none else [asked.ttl.least_ms, asked.ttl.most_ms]
    more: dict[str, object] = {
        "idle_s": asked.idle_s,
        "larger_bytes": asked.larger_bytes,
        "smaller_bytes": asked.smaller_bytes,
        "soft_s": wished.manner.soft_s,
        "all": wished.everything or None,
        "backup": str(wished.backup.absolute()) if wished.backup else None,
    }
    return facts | {key: value for key, value in more.items() if value is not None}


def _planned(item: Item) -> Item:
    """What a flush would hit."""
    if item.kind != "cache" or not item.data.get("matched"):
        return item
    return Item(item.kind, item.name, Status.PLANNED, item.detail, item.remedy, item.data)
