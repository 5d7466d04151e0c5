"""What the servers of a cache told of themselves, as items of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from perfctl.cache.counters import Counters, Reads
from perfctl.cache.items import name_of
from perfctl.cache.records import Seen, Unread, Vitals
from perfctl.figures import human_bytes, human_seconds
from perfctl.report import Item, Status

#: Below this much memory, and above this ratio by this many bytes: the servers' own MEMORY DOCTOR judges by these
#: (getMemoryDoctorReport in object.c).
_EMPTY_BYTES = 5 << 20
_HIGH_RATIO = 1.4
_HIGH_BYTES = 10 << 20

_DAY_S = 86_400


def server(seen: Seen) -> list[Item]:
    """One item each for what the servers tell; of several the sums, with each server's own figures in ``data``."""
    parts = seen.vitals
    made = (_hit_ratio, _memory, _fragmentation, _policy, _evicted, _expired, _clients)
    items = [each(parts) for each in made]
    if seen.slow:
        items.append(_slow(seen))
    return [*items, *map(unread, seen.unread)]


def unread(each: Unread) -> Item:
    """What could not be read, which is never the same as nothing."""
    data = {"exit_code": each.exit_code, "class": each.error_class}
    return Item("cache", each.what, Status.UNKNOWN, each.message, each.hint, data)


def application(found: Counters) -> Item:
    """The application's own counters of its cache."""
    reads = found.whole
    data = {"hit_ratio": rounded(reads.ratio), "hits": reads.hits, "misses": reads.misses, **reads.extras}
    return Item("cache", "application's hit ratio", Status.OK, f"{said_reads(reads)}, since its start", data=data)


def said_reads(reads: Reads) -> str:
    """The hit ratio with what it is made of."""
    extras = "".join(f", {count:,} {name}" for name, count in reads.extras.items())
    if reads.ratio is None:
        return f"no reads yet{extras}"
    if reads.hits is None or reads.misses is None:
        return f"{reads.ratio:.1%}, as it is told{extras}"
    return f"{reads.ratio:.1%}: {reads.hits:,} hits, {reads.misses:,} misses{extras}"


def hit_ratio(parts: Sequence[Vitals]) -> float | None:
    """The share of reads that hit, from the sums over all servers; None without reads, or where one does not tell."""
    hits, misses = total(parts, lambda each: each.hits), total(parts, lambda each: each.misses)
    return None if hits is None or misses is None or not hits + misses else hits / (hits + misses)


def since(parts: Sequence[Vitals]) -> str:
    """From when on the servers have counted, as far as they tell."""
    starts = [each.uptime_s for each in parts if each.uptime_s is not None]
    whose = "server's" if len(parts) == 1 else "servers'"
    ago = f" {span(min(starts))} ago" if len(set(map(span, starts))) == 1 else ""
    if starts and not ago:
        ago = f" {span(min(starts))} to {span(max(starts))} ago"
    if any(each.was_reset for each in parts):
        # The server tells that it was called, and not when.
        return f"since CONFIG RESETSTAT, some time after the {whose} start{ago}"
    return f"since the {whose} start{ago}"


def span(seconds: float) -> str:
    """A span of time that may be days."""
    return human_seconds(seconds) if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} days"


def total(parts: Sequence[Vitals], figure: Callable[[Vitals], int | None]) -> int | None:
    """The sum over all servers; None where one does not tell."""
    found = [figure(each) for each in parts]
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def rounded(value: float | None) -> float | None:
    """A ratio as it stands in ``data``."""
    return None if value is None else round(value, 4)


def _item(name: str, detail: str, parts: Sequence[Vitals], facts: dict[str, object], *each: str) -> Item:
    """An item with each server's own figures, where there are several."""
    if len(parts) > 1:
        facts["nodes"] = {part.server: {field: getattr(part, field) for field in each} for part in parts}
    return Item("cache", name, Status.OK, detail, data=facts)


def _untold(name: str) -> Item:
    # What a server hides is no fault of whoever asks, and no figure either.
    return Item("cache", name, Status.UNKNOWN, "the server does not tell", data={"exit_code": 1})


def _hit_ratio(parts: Sequence[Vitals]) -> Item:
    hits, misses = total(parts, lambda each: each.hits), total(parts, lambda each: each.misses)
    if hits is None or misses is None:
        return _untold("hit ratio")
    ratio, when = hit_ratio(parts), since(parts)
    facts: dict[str, object] = {"hit_ratio": rounded(ratio), "hits": hits, "misses": misses, "since": when}
    facts["uptime_s"] = min((each.uptime_s for each in parts if each.uptime_s is not None), default=None)
    if ratio is None:
        return _item("hit ratio", f"no reads {when}", parts, facts, "hits", "misses", "uptime_s")
    text = f"{ratio:.1%}: {hits:,} hits, {misses:,} misses, {when}"
    own = sorted((each, part.server) for part in parts if (each := hit_ratio([part])) is not None)
    if len(own) > 1:
        low, high = own[0], own[-1]
        text += f"\n{len(parts)} primaries: {low[0]:.1%} ({low[1]}) to {high[0]:.1%} ({high[1]})"
    return _item("hit ratio", text, parts, facts, "hits", "misses", "uptime_s")


def _memory(parts: Sequence[Vitals]) -> Item:
    used = total(parts, lambda each: each.used_bytes)
    if used is None:
        return _untold("memory")
    peak = total(parts, lambda each: each.peak_bytes)
    limit = total(parts, lambda each: each.limit_bytes)
    unlimited = any(each.limit_bytes == 0 for each in parts)
    overhead, dataset = total(parts, lambda each: each.overhead_bytes), total(parts, lambda each: each.dataset_bytes)
    share = used / limit if limit and not unlimited else None
    text = human_bytes(used) + (f", at most {human_bytes(peak)}" if peak is not None else "")
    if share is not None and limit is not None:
        text += f", {share:.1%} of the limit of {human_bytes(limit)}"
    elif unlimited:
        text += ", no limit" if len(parts) == 1 else ", not every server has a limit"
    if overhead is not None and dataset is not None:
        text += f"\n{human_bytes(dataset)} keys and values, {human_bytes(overhead)} overhead"
    full = sorted(((p.used_bytes or 0) / p.limit_bytes, p.server) for p in parts if p.limit_bytes)
    if len(parts) > 1 and full:
        text += f"\nthe fullest: {full[-1][1]}, {full[-1][0]:.1%} of its limit"
    facts: dict[str, object] = {
        "used_bytes": used,
        "peak_bytes": peak,
        "limit_bytes": None if unlimited else limit,
        "limit_share": rounded(share),
        "overhead_bytes": overhead,
        "dataset_bytes": dataset,
    }
    return _item("memory", text, parts, facts, "used_bytes", "peak_bytes", "limit_bytes")


def _fragmentation(parts: Sequence[Vitals]) -> Item:
    """Of several servers the worst: memory that one wastes is no use to another."""
    told = [each for each in parts if each.fragmentation is not None]
    if not told:
        return _untold("fragmentation")
    large = [each for each in told if (each.used_bytes or 0) >= _EMPTY_BYTES]
    worst = max(large or told, key=lambda each: each.fragmentation or 0)
    where = f" on {worst.server}" if len(parts) > 1 else ""
    waste, own = worst.fragmentation_bytes, worst.allocator_fragmentation
    high = bool(large) and (worst.fragmentation or 0) > _HIGH_RATIO and (waste or 0) > _HIGH_BYTES
    facts: dict[str, object] = {
        "fragmentation_ratio": worst.fragmentation,
        "allocator_ratio": own,
        "fragmentation_bytes": waste,
        "meaningful": bool(large),
        "high": high,
    }
    if not large:
        text = f"says nothing with less than {human_bytes(_EMPTY_BYTES)} in use (ratio {worst.fragmentation:g})"
    else:
        text = f"ratio {worst.fragmentation:g}{where}"
        text += f", {human_bytes(waste)}" if waste is not None and waste > 0 else ""
        text += f"; within the allocator {own:g}" if own is not None else ""
        if (worst.fragmentation or 0) < 1:
            text += "\nbelow 1 a part of the memory is likely swapped out"
        elif high:
            text += "\nhigh: activedefrag, or a restart, gives it back"
    return _item("fragmentation", text, parts, facts, "fragmentation", "allocator_fragmentation")


def _policy(parts: Sequence[Vitals]) -> Item:
    found = Counter(each.policy for each in parts if each.policy is not None)
    if not found:
        return _untold("policy")
    text = ", ".join(name if len(found) == 1 else f"{name} ({count} servers)" for name, count in found.items())
    limited = [each for each in parts if each.limit_bytes]
    if limited and "noeviction" in found:
        text += "\nwrites fail when the limit is reached"
    elif not limited:
        text += ", without a limit never used"
    return _item("policy", text, parts, {"policies": sorted(found)}, "policy", "limit_bytes")


def _evicted(parts: Sequence[Vitals]) -> Item:
    count = total(parts, lambda each: each.evicted)
    if count is None:
        return _untold("evicted")
    return _item("evicted", f"{count:,} keys, {since(parts)}", parts, {"evicted": count}, "evicted")


def _expired(parts: Sequence[Vitals]) -> Item:
    count = total(parts, lambda each: each.expired)
    if count is None:
        return _untold("expired")
    stale = max((each.stale_share for each in parts if each.stale_share is not None), default=None)
    text = f"{count:,} keys, {since(parts)}"
    if stale is not None:
        text += f"\n{stale:.1%} of the keys with TTL have expired and still take memory"
        text += ", at most, by server" if len(parts) > 1 else ""
    return _item("expired", text, parts, {"expired": count, "stale_share": rounded(stale)}, "expired", "stale_share")


def _clients(parts: Sequence[Vitals]) -> Item:
    count = total(parts, lambda each: each.clients)
    if count is None:
        return _untold("clients")
    blocked, rejected = total(parts, lambda each: each.blocked), total(parts, lambda each: each.rejected)
    limit = total(parts, lambda each: each.max_clients)
    text = f"{count:,} connected" + (f" of at most {limit:,}" if limit is not None else "")
    text += f", {blocked:,} blocked" if blocked is not None else ""
    text += f", {rejected:,} turned away" if rejected is not None else ""
    facts: dict[str, object] = {"clients": count, "max_clients": limit, "blocked": blocked, "rejected": rejected}
    return _item("clients", text, parts, facts, "clients", "max_clients", "blocked", "rejected")


def _slow(seen: Seen) -> Item:
    length = sum(each.length for each in seen.slow)
    entries = sorted(
        ((entry, log.server) for log in seen.slow for entry in log.slowest), key=lambda each: -each[0].took_ms
    )[:5]
    newest = next((each.newest for each in seen.slow if each.newest is not None), None)
    where = "" if newest is None else f" of the newest {newest:,}" + (" of each server" if len(seen.slow) > 1 else "")
    lines = [f"{length:,} entries" + (f", the slowest{where}:" if entries else "")]
    for entry, where in entries:
        at = datetime.fromtimestamp(entry.at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        on = f" on {where}" if len(seen.slow) > 1 else ""
        of = "" if entry.family is None else f" {name_of(entry.family)}"
        lines.append(f"{entry.took_ms:,.1f} ms {entry.command}{of} at {at}{on}")
    slowest = [
        {
            "command": entry.command,
            "family": None if entry.family is None else name_of(entry.family),
            "took_ms": entry.took_ms,
            "at_s": entry.at_s,
            "server": where,
        }
        for entry, where in entries
    ]
    data = {"length": length, "slowest": slowest}
    return Item("cache", "slow log", Status.OK, "\n".join(lines), data=data)
