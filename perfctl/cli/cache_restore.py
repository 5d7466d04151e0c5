"""The stages of `cache restore`, put in order. Loaded only when the command runs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from perfctl.cache import act, families, items
from perfctl.cache.backup import Saved
from perfctl.cache.journal import Journal, usual_path
from perfctl.cache.lock import FlushLock
from perfctl.cache.restore import Restore, Restored
from perfctl.cache.route import Router
from perfctl.cli.cache_progress import Progress
from perfctl.cli.cache_work import columns, server
from perfctl.cli.session import Session
from perfctl.errors import Interrupted, PerfctlError, Refused
from perfctl.report import Item, Report, Status

_SHOWN = 20


def restore(session: Session, file: str, *, overwrite: bool, journal: str | None, force: bool) -> Report:
    """Read the backup, ask, bring back, and tell."""
    saved = Saved(Path(file))
    content = _content(saved)
    keys = content.total()
    deployment = session.cache()
    if primary := deployment.primary_of_a_replica:
        raise Refused(f"{deployment.node.address} is a replica; nothing was changed", hint=f"its primary is {primary}")
    notes = [server(deployment), *_origin(saved)]
    found = [
        Item("family", items.name_of(name), Status.PLANNED, f"{count:,} {'key' if count == 1 else 'keys'}")
        for name, count in families.gathered(content, b":").most_common(_SHOWN)
    ]
    if session.options.dry_run or not keys:
        whole = Item("cache", file, Status.PLANNED, f"{keys:,} keys", data={"keys": keys})
        return session.report([whole, *found], notes=notes, dry_run=session.options.dry_run)
    session.say("\n".join((*notes, columns(found))))
    again = " over those that are there again" if overwrite else ""
    session.confirm(f"Restore {keys:,} keys from {file}{again} on {session.target.name}?")
    router = Router(deployment, deployment.primaries()[0].address)
    session.closed_at_the_end(router.close)
    written = Journal(Path(journal) if journal else usual_path(os.environ))
    facts = {"target": session.target.name, "server": str(deployment.node.address), "backup": file}
    lock = FlushLock(router)
    lock.take(force=force)
    try:
        written.write("restore", **facts, keys=keys, replace=overwrite)
        with session.gentle_stop() as stop, Progress(session, of=keys) as progress:
            stop.may_leave = True
            run = Restore(
                deployment,
                overwrite=overwrite,
                lock=lock,
                soft=saved.facts.get("soft_s") is not None,
                stop=stop,
                watch=lambda done: progress.deleting(done.keys, done.restored, "restored"),
            )
            done = run.run(saved.records())
            stop.may_leave = False
    except BaseException as error:
        message = error.message if isinstance(error, PerfctlError) else type(error).__name__
        for note in written.noted("restore failed", **facts, error=message):
            session.say(note)
        raise
    finally:
        act.released(lock)
    item = _done(file, done)
    notes += written.noted("restore ended", **{**facts, **item.data})
    if done.stopped is None:
        return session.report([item], notes=notes)
    hint = "the same command goes on: what is there is left"
    stopped = Interrupted(done.stopped, f"stopped by a signal after {done.restored:,} keys", hint=hint)
    return session.report([item], notes=notes, error=stopped)


def _content(saved: Saved) -> Counter[bytes]:
    """Its keys by family. Read to its end before anything is changed: a file that is damaged is told of now."""
    family = families.folder(b":")
    return Counter(family(name) for name in saved.names())


def _origin(saved: Saved) -> list[str]:
    """Where the values are from."""
    facts = saved.facts
    lines = [f"the values are of {facts.get('server')}, database {facts.get('database')}, target {facts.get('target')}"]
    if not saved.whole:
        lines.append("the flush that wrote it did not come to its end, or the file lost its own: keys may be missing")
    return lines


def _done(file: str, done: Restored) -> Item:
    """What came of it."""
    lines = [f"{done.restored:,} restored, {done.exists:,} there again and left, {done.expired:,} expired since"]
    lines += [f"{count:,} refused: {why}" for why, count in done.failed.most_common()]
    data = {
        "restored": done.restored,
        "exists": done.exists,
        "expired": done.expired,
        "failed": done.failed.total(),
    }
    status = Status.FAILED if done.failed else Status.CHANGED if done.restored else Status.SKIPPED
    remedy = "--replace puts the old value in place of the new one" if done.exists else None
    return Item("cache", file, status, "\n".join(lines), remedy, data)
