"""The application's own counters of its cache, read from the text of its metrics."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
    'cache_hits_total and cache_misses_total or cache_requests_total{result="hit|miss"}'
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
            read = {str(family): _reads(each) for family, each in given.items() if isinstance(each, dict)}
            return {family: each for family, each in read.items() if each is not None}
    return {}


def _reads(place: Mapping[str, Any]) -> Reads | None:
    hits, misses = _count(place, _HITS), _count(place, _MISSES)
    extras = {name: count for name in _EXTRAS if (count := _count(place, (name,))) is not None}
    if hits is not None and misses is not None:
        return Reads(hits, misses, extras=extras)
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
    """One sample of a Prometheus text that is about a cache."""

    cache: str
    #: 0 for counters that have the result in their name, 1 for those that have it in a label
    manner: int
    result: str
    family: str
    value: float


def _from_prometheus(text: str) -> Counters:
    # Loaded only when there is such a text.
    from prometheus_client.openmetrics import parser as openmetrics
    from prometheus_client.parser import text_string_to_metric_families

    parse = openmetrics.text_string_to_metric_families if text.rstrip().endswith("# EOF") else None
    try:
        samples = [each for metric in (parse or text_string_to_metric_families)(text) for each in metric.samples]
    except (ValueError, KeyError, IndexError, TypeError):
        # What its parser raises for a web page, for instance.
        raise _not_understood("the answer is neither JSON nor Prometheus' text") from None
    found = [each for sample in samples if (each := _counted(sample.name, sample.labels, sample.value)) is not None]
    caches = sorted({each.cache for each in found})
    own = [cache for cache in caches if cache.startswith(_OWN)]
    if len(caches) > 1 and len(own) != 1:
        raise _not_understood(f"the answer tells of several caches: {', '.join(name or 'cache' for name in caches)}")
    chosen = [each for each in found if each.cache == (own or caches)[0]] if caches else []
    manner = min((each.manner for each in chosen), default=0)
    return _summed([each for each in chosen if each.manner == manner or each.result in _EXTRAS])


def _counted(name: str, labels: Mapping[str, str], value: float) -> _Counted | None:
    if not math.isfinite(value) or value < 0:
        return None
    family = next((labels[label] for label in _FAMILY_LABELS if label in labels), "")
    for result in ("hits", "misses", *_EXTRAS):
        suffix = f"cache_{result}_total"
        if name == suffix or name.endswith(f"_{suffix}"):
            return _Counted(name.removesuffix(suffix), 0, result, family, value)
    for suffix in _OPERATIONS:
        if name == suffix or name.endswith(f"_{suffix}"):
            told = next((labels[label].lower() for label in _RESULTS if label in labels), "")
            result = {"hit": "hits", "miss": "misses", "error": "errors"}.get(told, told)
            if result in ("hits", "misses", *_EXTRAS):
                return _Counted(name.removesuffix(suffix), 1, result, family, value)
    return None


def _summed(found: Iterable[_Counted]) -> Counters:
    """Counters summed over every label but that of the family."""
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for each in found:
        sums[each.family][each.result] += each.value
        if each.family:
            sums[""][each.result] += each.value
    if "hits" not in sums[""] and "misses" not in sums[""]:
        raise _not_understood("the answer is Prometheus' text without counters of a cache")
    made = {
        # A counter with labels has no sample before it first counts.
        name: Reads(
            int(each["hits"]), int(each["misses"]), extras={key: int(each[key]) for key in _EXTRAS if key in each}
        )
        for name, each in sums.items()
    }
    return Counters(made.pop(""), made)


def _not_understood(why: str) -> ConfigError:
    return ConfigError(f"the application's cache metrics cannot be read: {why}", hint=_LOOKED_FOR)
