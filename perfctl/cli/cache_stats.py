"""The stages of ``perfctl cache stats``, put in order. Loaded only when the command runs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from perfctl.cache import breakdown, counters, families, sampling, stats, vitals
from perfctl.cache.counters import Counters
from perfctl.cache.records import Sample, Unread
from perfctl.cli import walk_bar
from perfctl.cli.cache_watch import Watch
from perfctl.cli.cache_work import server
from perfctl.cli.session import Session, duration_s
from perfctl.errors import PerfctlError, UsageError
from perfctl.report import Report
from perfctl.servers import http
from perfctl.servers.deployment import Deployment

#: keys that are looked at where nobody says how many
_SAMPLE = 10_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be told."""

    depth: int | None
    delimiter: bytes
    top: int
    #: keys that are looked at; None for all
    sample: int | None
    watch_s: float | None
    times: int | None


def wish(
    *,
    depth: int | None,
    delimiter: str,
    top: int,
    sample: int | None,
    exact: bool,
    watch: str | None,
    times: int | None,
) -> Wish:
    """What the command line asks for. Raises UsageError."""
    if not delimiter:
        raise UsageError("--delimiter is empty")
    watch_s = duration_s("--watch", watch)
    if watch_s is not None and watch_s <= 0:
        raise UsageError("--watch 0s is no interval", hint="--watch 2s tells every two seconds")
    if times is not None and watch_s is None:
        raise UsageError("--times goes with --watch")
    if exact and watch_s is not None:
        raise UsageError("--exact and --watch exclude each other: a watch looks at no keys")
    if exact and sample is not None:
        raise UsageError("--exact and --sample exclude each other", hint="--exact looks at all keys")
    for name, given in (("--sample", sample), ("--depth", depth)):
        if given is not None and watch_s is not None:
            raise UsageError(f"{name} and --watch exclude each other: a watch looks at no keys")
    keys = None if exact else _SAMPLE if sample is None else sample
    return Wish(depth, delimiter.encode("utf-8", "surrogateescape"), top, keys, watch_s, times)


def run(session: Session, asked: Wish) -> Report:
    """Read, and tell."""
    deployment = session.cache()
    notes = _notes(deployment)
    nodes = vitals.nodes(deployment)
    # Before the keys are looked at: that counts as reads.
    seen = vitals.look(nodes, deployment.seeds.login.db, families.folder(asked.delimiter))
    items = stats.server(seen)
    found = application(session)
    if found is not None:
        items.append(stats.unread(found) if isinstance(found, Unread) else stats.application(found))
    told = found if isinstance(found, Counters) else None
    if asked.watch_s is not None:
        # A slow application must not hold up the lines for long.
        within_s = min(session.timeout_s or http.TIMEOUT_S, max(1.0, asked.watch_s))
        watch = Watch(session, deployment, nodes, lambda: _counters(session, within_s))
        return watch.run(items, asked.watch_s, asked.times, notes)
    prefix = os.fsencode(session.target.cache.prefix) if session.target.cache else b""
    view = breakdown.View(asked.delimiter, prefix, asked.depth, asked.top)
    try:
        sample = _sampled(session, deployment, asked, breakdown.depth_needed(view, told))
    except PerfctlError as error:
        return session.report([*items, stats.unread(Unread.of("keys", error))], notes=notes)
    dataset_bytes = stats.total(seen.vitals, lambda each: each.dataset_bytes)
    return session.report([*items, *breakdown.items(sample, view, told, dataset_bytes=dataset_bytes)], notes=notes)


def _sampled(session: Session, deployment: Deployment, asked: Wish, depth: int | None) -> Sample:
    with walk_bar.shown(session) as watch:
        return sampling.look(deployment, sampling.Manner(asked.sample, asked.top, asked.delimiter, depth), watch)


def _counters(session: Session, within_s: float) -> Counters | None:
    found = application(session, within_s)
    return found if isinstance(found, Counters) else None


def application(session: Session, within_s: float | None = None) -> Counters | Unread | None:
    """The application's own counters, why they could not be read, or None when no address is configured."""
    url = session.target.app.cache_metrics if session.target.app else None
    if url is None:
        return None
    try:
        return counters.read(http.get(url.get_secret_value(), within_s or session.timeout_s or http.TIMEOUT_S))
    except PerfctlError as error:
        return Unread.of("application's hit ratio", error)


def _notes(deployment: Deployment) -> list[str]:
    notes = [server(deployment)]
    if primary := deployment.primary_of_a_replica:
        notes.append(f"a replica, which may be behind and has counters of its own; its primary is {primary}")
    return notes
