"""The application's own counters of its cache, read from the text of its metrics."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from perfctl.errors import ConfigError

_HITS = ("hits", "cache_hits", "hit_count", "total_hits", "hits_total", "cache_hits_total", "hit")
_MISSES = ("misses", "cache_misses", "miss_count", "total_misses", "misses_total", "cache_misses_total", "miss")
_RATIOS = (
    "hit_ratio",
    "hit_rate",
    "cache_hit_ratio",
    "cache_hit_rate",
    "hit_percent",
    "hit_percentage",
    "hit_rate_percent",
)
_READS = ("total_requests", "requests", "total_reads", "reads", "total_lookups", "lookups")
_EXTRAS = ("stale", "coalesced", "uncacheable", "errors")
_NESTED = ("cache", "stats", "data", "redis", "metrics")
_BY_FAMILY = ("families", "prefixes", "namespaces")

_RESULTS = ("result", "status", "outcome")
_OPERATIONS = ("cache_requests_total", "cache_operations_total", "cache_lookups_total", "cache_reads_total")
_FAMILY_LABELS = ("family", "prefix", "namespace", "cache_name")
#: what perfctl's own library is called among several caches
_OWN = "perfctl_"
#: beyond what anybody counts; false of NaN too
_NO_COUNT = 1e18

_LOOKED_FOR = (
    "looked for a JSON object with hits and misses or a hit_ratio, and for Prometheus counters "
    'cache_hits_total with cache_misses_total or cache_requests_total, or cache_requests_total{result="hit|miss"}'
)


@dataclass(frozen=True, slots=True)
class Reads:
    """What was read from the cache, since the application's start."""

    #: None where the application tells a ratio alone
    hits: int | None = None
    misses: int | None = None
    told_ratio: float | None = None
    #: stale, coalesced, uncacheable, errors, where they are counted
    extras: Mapping[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The share of reads that hit; None when nothing was read."""
        if self.hits is None or self.misses is None:
            return self.told_ratio
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None


@dataclass(frozen=True, slots=True)
class Counters:
    """What an application tells about its cache."""

    whole: Reads
    families: Mapping[str, Reads] = field(default_factory=dict)


def read(text: str) -> Counters:
    """The counters in an answer, JSON or Prometheus' text as it turns out to be. Raises ConfigError for any other."""
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(text)
    return _from_prometheus(text)


def joined(families: Iterable[str], name: bytes, *, prefix: bytes, delimiter: bytes) -> str | None:
    """The application's family that a family of keys belongs to, the longest of several; None without one.

    ``user_analyses`` is that of ``cache:user_analyses:*`` where ``cache:`` is what the application's keys begin with.
    """
    parts = name.removeprefix(prefix).split(delimiter)
    found = [each for each in families if _begins(parts, each.encode().removeprefix(prefix), delimiter)]
    return max(found, key=len, default=None)


def _begins(parts: list[bytes], name: bytes, delimiter: bytes) -> bool:
    own = name.removesuffix(b"*").removesuffix(delimiter).split(delimiter)
    return bool(own[0]) and parts[: len(own)] == own


def _from_json(text: str) -> Counters:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _not_understood("the answer begins as JSON and is none") from None
    for place in _places(found):
        families = _families(place)
        whole = _reads(place) or (_sum(families.values()) if families else None)
        if whole is not None:
            return Counters(whole, families)
    raise _not_understood("the answer is JSON without counters of a cache")


def _places(found: Any, depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """Where counters may stand: the object itself, then what it holds under the usual names."""
    if not isinstance(found, dict):
        return
    yield found
    for name in _NESTED if depth else ():
        yield from _places(found.get(name), depth - 1)


def _families(place: Mapping[str, Any]) -> dict[str, Reads]:
    for name in _BY_FAMILY:
        if isinstance(given := place.get(name), dict):
            read = {_text(family): _reads(each) for family, each in given.items() if isinstance(each, dict)}
            return {family: each for family, each in read.items() if each is not None}
    return {}


def _text(name: str) -> str:
    """A name that any encoding takes: JSON may hold half of a surrogate pair."""
    return name.encode("utf-8", "backslashreplace").decode()


def _reads(place: Mapping[str, Any]) -> Reads | None:
    hits, misses = _count(place, _HITS), _count(place, _MISSES)
    extras = {name: count for name in _EXTRAS if (count := _count(place, (name,))) is not None}
    if hits is not None and misses is not None:
        return Reads(hits, misses, extras=extras)
    # A ratio of nothing is none, and not 0.
    if hits is None and misses is None and _count(place, _READS) == 0:
        return Reads(0, 0, extras=extras)
    for name in _RATIOS:
        value = _number(place.get(name))
        if value is not None:
            share = value / 100 if value > 1 or "percent" in name else value
            if not 0 <= share <= 1:
                raise _not_understood(f"{name} is {value:g}, which is neither a share nor a percentage")
            return Reads(told_ratio=share, extras=extras)
    return None


def _count(place: Mapping[str, Any], names: Iterable[str]) -> int | None:
    for name in names:
        value = _number(place.get(name))
        if value is not None:
            if value < 0:
                raise _not_understood(f"{name} is {value:g}, which is no count")
            return int(value)
    return None


def _number(value: object) -> float | None:
    """A finite number; JSON's own have no bounds, and Python's reader takes NaN too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < _NO_COUNT else None


def _sum(reads: Iterable[Reads]) -> Reads | None:
    """All families together; without counts of each there is no whole."""
    every = list(reads)
    if any(each.hits is None or each.misses is None for each in every):
        return None
    extras: defaultdict[str, int] = defaultdict(int)
    for each in every:
        for name, count in each.extras.items():
            extras[name] += count
    return Reads(sum(each.hits or 0 for each in every), sum(each.misses or 0 for each in every), extras=dict(extras))


@dataclass(frozen=True, slots=True)
class _Counted:
    """A sample of Prometheus' text that is about a cache."""

    cache: str
    #: the metric with the result in a label; empty for those that have it in their name
    metric: str
    #: hits, misses, one of the extras, reads for both of the first two, or other
    result: str
    family: str
    value: float


def _from_prometheus(text: str) -> Counters:
    # Loaded only when there is such a text.
    from prometheus_client.openmetrics import parser as openmetrics
    from prometheus_client.parser import text_string_to_metric_families

    parse = openmetrics.text_string_to_metric_families if text.rstrip().endswith("# EOF") else None
    try:
        metrics = list((parse or text_string_to_metric_families)(text))
    except (ValueError, KeyError, IndexError, TypeError):
        # What its parser raises for a web page, for instance.
        raise _not_understood("the answer is neither JSON nor Prometheus' text") from None
    found = [
        counted
        for metric in metrics
        for each in metric.samples
        if (counted := _counted(each.name, each.labels, each.value)) is not None
    ]
    caches = sorted({each.cache for each in found if each.result in ("hits", "misses")})
    own = [cache for cache in caches if cache.startswith(_OWN)]
    if len(caches) > 1 and len(own) != 1:
        raise _not_understood(f"the answer tells of several caches: {', '.join(name or 'cache' for name in caches)}")
    if not caches:
        raise _not_understood("the answer is Prometheus' text without counters of a cache")
    cache = (own or caches)[0]
    # A counter with labels has no sample before it first counts, and is declared nevertheless.
    silent = {metric.name.removesuffix("_total") for metric in metrics if not metric.samples}
    declared = {result for result in ("hits", "misses") if f"{cache}cache_{result}" in silent}
    return _chosen([each for each in found if each.cache == cache], declared)


def _counted(name: str, labels: Mapping[str, str], value: float) -> _Counted | None:
    family = next((labels[label] for label in _FAMILY_LABELS if label in labels), "")
    for result in ("hits", "misses", *_EXTRAS):
        suffix = f"cache_{result}_total"
        if name == suffix or name.endswith(f"_{suffix}"):
            return _Counted(name.removesuffix(suffix), "", result, family, _sane(name, value))
    for suffix in _OPERATIONS:
        if name == suffix or name.endswith(f"_{suffix}"):
            told = next((labels[label].lower() for label in _RESULTS if label in labels), None)
            # Operations are writes too.
            both = "" if suffix == "cache_operations_total" else "reads"
            result = both if told is None else {"hit": "hits", "miss": "misses", "error": "errors"}.get(told, told)
            if told is not None and result not in ("hits", "misses", *_EXTRAS):
                result = "other"
            if result:
                return _Counted(name.removesuffix(suffix), suffix, result, family, _sane(name, value))
    return None


def _sane(name: str, value: float) -> float:
    if not 0 <= value < _NO_COUNT:
        raise _not_understood(f"{name} is {value:g}, which is no count")
    return value


def _chosen(found: Sequence[_Counted], declared: Set[str]) -> Counters:
    """The first manner of counting that tells hits and misses both; what is not there is 0 only where that is sure."""
    there = {(each.metric, each.result) for each in found}
    named = {result for metric, result in there if not metric} | declared
    by_label = [name for name in _OPERATIONS if {(name, "hits"), (name, "misses")} & there]
    whole = [name for name in by_label if {(name, "hits"), (name, "misses")} <= there]
    if {"hits", "misses"} <= named:
        counts = [each for each in found if not each.metric]
    elif by_label:
        metric = (whole or by_label)[0]
        # Misses may go by another name: MISS_EXPIRED, for instance.
        if not whole and (metric, "other") in there:
            raise _not_understood(f"{metric} has results that are neither hit nor miss, and not both of these")
        counts = [each for each in found if each.metric == metric and each.result not in ("reads", "other")]
    else:
        reads = next((name for name in _OPERATIONS if (name, "reads") in there), None)
        if reads is None:
            missing = "misses" if "hits" in named else "hits"
            raise _not_understood(f"the answer is Prometheus' text without the cache's {missing}")
        counts = [each for each in found if not each.metric or (each.metric, each.result) == (reads, "reads")]
    extras = {each.result for each in counts}
    counts += [each for each in found if each.result in _EXTRAS and each.result not in extras]
    return _summed(counts)


def _summed(found: Iterable[_Counted]) -> Counters:
    """Counters summed over every label but that of the family."""
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for each in found:
        sums[each.family][each.result] += each.value
        if each.family:
            sums[""][each.result] += each.value
    whole = sums.pop("")
    if "reads" not in whole:
        made = {name: _reads_of(each) for name, each in sums.items()}
        return Counters(_reads_of(whole), made)
    # Of a family that has one of the two counters alone nothing is told.
    rest = {name: each for name, each in sums.items() if "reads" in each}
    told = "hits" if "hits" in whole else "misses"
    return Counters(_reads_of(_completed(whole, told)), {n: _reads_of(_completed(e, told)) for n, e in rest.items()})


def _completed(sums: Mapping[str, float], told: str) -> Mapping[str, float]:
    other = sums["reads"] - sums.get(told, 0.0)
    if other < 0:
        raise _not_understood(f"it counts more {told} than reads")
    return {**sums, told: sums.get(told, 0.0), "misses" if told == "hits" else "hits": other}


def _reads_of(sums: Mapping[str, float]) -> Reads:
    extras = {name: int(sums[name]) for name in _EXTRAS if name in sums}
    return Reads(int(sums.get("hits", 0)), int(sums.get("misses", 0)), extras=extras)


def _not_understood(why: str) -> ConfigError:
    return ConfigError(f"the application's cache metrics cannot be read: {why}", hint=_LOOKED_FOR)
