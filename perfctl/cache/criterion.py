"""Whether a cache's hit ratio is what it is meant to be."""

from __future__ import annotations

from collections.abc import Sequence

from perfctl.cache.counters import Counters
from perfctl.cache.records import Unread, Vitals
from perfctl.cache.stats import hit_ratio, rounded, said_reads, since, total
from perfctl.report import Item, Status

NAME = "cache.hit_ratio_min"


def by_application(least: float, found: Counters) -> Item:
    """By the application's own counters, which know nothing of what others read."""
    reads = found.whole
    window = "the application's own counters since its start"
    return _judged(least, reads.ratio, said_reads(reads), window, reads.hits, reads.misses)


def by_servers(least: float, parts: Sequence[Vitals]) -> Item:
    """By the servers' counters, in which all clients and databases are."""
    hits, misses = total(parts, lambda each: each.hits), total(parts, lambda each: each.misses)
    window = f"the {'server' if len(parts) == 1 else 'servers'}'s own counters {since(parts)}"
    if len(parts) > 1:
        window = f"the counters of {len(parts)} servers {since(parts)}"
    if hits is None or misses is None:
        return _unknown("the server does not tell its hits and misses", {"exit_code": 1})
    ratio = hit_ratio(parts)
    said = "no reads yet" if ratio is None else f"{ratio:.1%}: {hits:,} hits, {misses:,} misses"
    return _judged(least, ratio, said, window, hits, misses)


def unread(each: Unread) -> Item:
    """What could not be looked at holds nothing."""
    data = {"exit_code": each.exit_code, "class": each.error_class}
    return Item("criterion", NAME, Status.UNKNOWN, each.message, each.hint, data)


def _judged(least: float, ratio: float | None, said: str, window: str, hits: int | None, misses: int | None) -> Item:
    data: dict[str, object] = {
        "hit_ratio": rounded(ratio), "hit_ratio_min": least, "hits": hits, "misses": misses, "window": window
    }  # fmt: skip
    if ratio is None:
        return _unknown(f"no reads yet, by {window}", {**data, "exit_code": 1})
    ratio_said, least_said = _apart(ratio, least)
    said = said.replace(f"{ratio:.1%}", ratio_said, 1)
    status, more = Status.OK, None
    if ratio < least:
        status, more = Status.FINDING, "perfctl cache stats shows families, evictions and times to live"
    return Item("criterion", NAME, status, f"{said}; at least {least_said} is asked for\nby {window}", more, data)


def _apart(ratio: float, least: float) -> tuple[str, str]:
    """Both as percentages, with as many digits as it takes to see which one is less."""
    for digits in range(1, 12):
        said = f"{ratio:.{digits}%}", f"{least:.{digits}%}"
        if said[0] != said[1] or ratio == least:
            return said
    return f"{ratio:%}", f"{least:%}"


def _unknown(text: str, data: dict[str, object]) -> Item:
    return Item("criterion", NAME, Status.UNKNOWN, text, data=data)
