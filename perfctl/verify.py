"""Every feature's look and judgement folded into one list of items; the only place where features meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perfctl.config import Loaded, Target
from perfctl.errors import ConfigError, PerfctlError, exit_code_of
from perfctl.report import Item, Status
from perfctl.servers.deployment import Deployment
from perfctl.servers.postgres import Postgres


@dataclass(frozen=True, slots=True)
class Sources:
    """What there is to look at."""

    loaded: Loaded
    target: Target
    postgres: Callable[[], Postgres]
    cache: Callable[[], Deployment]
    #: how long the application's metrics are waited for
    metrics_timeout_s: float


def verify(sources: Sources) -> tuple[list[Item], list[str]]:
    """The items of every part, and the notes above them.

    A part that cannot be read is one item ``unknown`` with its reason; the others still run.
    """
    items: list[Item] = []
    notes: list[str] = []
    for name, part in (("indexes", _indexes), ("queries", _queries), ("cache", _cache)):
        try:
            found, said = part(sources)
            items += found
            notes += said
        except PerfctlError as error:
            items.append(
                Item(
                    name,
                    sources.target.name,
                    Status.UNKNOWN,
                    error.message,
                    error.hint,
                    {"exit_code": exit_code_of(error), "class": type(error).__name__},
                )
            )
    return items, notes


def _indexes(sources: Sources) -> tuple[list[Item], list[str]]:
    from perfctl.indexes import judge, observe
    from perfctl.migrations.files import load

    folder = sources.loaded.settings.indexes.migrations
    if not folder.exists() and "indexes.migrations" not in sources.loaded.origins:
        # Nobody named it, and where it would be by default there is nothing.
        return [], []
    migrations = load([folder])
    scope = sources.target.database.schemas if sources.target.database else ()
    seen = observe.snapshot(sources.postgres(), migrations, scope=scope)
    return judge.verify(migrations, observe.wanted(migrations, seen), seen), []


def _queries(sources: Sources) -> tuple[list[Item], list[str]]:
    from perfctl.explain import check

    hot = check.hot(sources.loaded)
    if not hot.subjects and not hot.problems:
        return [], []
    return check.check(sources.postgres(), hot, check.manner(sources.loaded), sources.loaded.settings.queries.baselines)


def _cache(sources: Sources) -> tuple[list[Item], list[str]]:
    asked = sources.loaded.settings.criteria.cache
    if asked is None or asked.hit_ratio_min is None:
        return [], []
    from perfctl.cache import criterion
    from perfctl.cache.records import Unread

    try:
        return [_hit_ratio(sources, asked.hit_ratio_min)], []
    except PerfctlError as error:
        return [criterion.unread(Unread.of(criterion.NAME, error))], []


def _hit_ratio(sources: Sources, least: float) -> Item:
    from perfctl.cache import counters, criterion, vitals
    from perfctl.servers import http

    target = sources.target
    if target.app is not None and target.app.cache_metrics is not None:
        text = http.get(target.app.cache_metrics.get_secret_value(), sources.metrics_timeout_s)
        return criterion.by_application(least, counters.read(text))
    if target.cache is None:
        raise ConfigError(
            f'target "{target.name}" has no cache, and no metrics of its application',
            hint="add cache: {url: …} or app: {cache_metrics: …} to it",
        )
    deployment = sources.cache()
    return criterion.by_servers(least, vitals.look(vitals.nodes(deployment), deployment.seeds.login.db).vitals)
