"""What a sample says of a cache's keys, with the application's counters beside them, as items of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfctl.cache import estimate, families
from perfctl.cache.counters import Counters, Reads, joined
from perfctl.cache.estimate import Kind
from perfctl.cache.items import name_of
from perfctl.cache.records import BigKey, Sample
from perfctl.cache.stats import rounded, said_reads, unread
from perfctl.figures import human_bytes, human_seconds
from perfctl.report import Item, Status

_NONE = Counters(Reads())

#: characters of a name that are shown: a key's name may have as many as its value
_SHOWN = 200

#: The memory of all keys by a sample and by the server are told to differ beyond this, and above so many bytes.
_APART = 2.0
_APART_BYTES = 1 << 20

#: of a size that is known of all keys but rounding
_ALL = 0.999_999

_TTL_WORDS = {
    "none": "none",
    "10s": "up to 10 s",
    "1m": "to 1 min",
    "5m": "to 5 min",
    "1h": "to 1 h",
    "1d": "to 1 day",
    "longer": "longer",
}


@dataclass(frozen=True, slots=True)
class View:
    """What of it is shown, and how names are read."""

    delimiter: bytes
    #: what the application's keys begin with
    prefix: bytes
    depth: int | None
    top: int


def depth_needed(view: View, app: Counters | None) -> int | None:
    """How many parts of a name are to be told apart: those that are shown, and those of the application's families."""
    if view.depth is None:
        return None
    before = view.prefix.count(view.delimiter)
    own = [before + name.encode().count(view.delimiter) + 1 for name in (app or _NONE).families]
    return max([view.depth, *own])


def items(sample: Sample, view: View, app: Counters | None = None, *, dataset_bytes: int | None = None) -> list[Item]:
    """All keys, each family, the application's families without a line of their own, the largest keys.

    ``dataset_bytes`` is what the servers themselves say that all their keys take, of every database.
    """
    told = [unread(each) for each in sample.unread]
    if not sample.keys:
        nothing = Item("cache", "keys", Status.OK, "no keys", data={"keys": 0, "read": 0, "complete": True})
        return [nothing, *_others(app, {}, set(), view), *told]
    names = families.names(estimate.amounts(sample), view.delimiter, prefix=view.prefix)
    shown = {family: families.cut(name, view.delimiter, view.depth) for family, name in names.items()}
    seen = estimate.renamed(sample, shown)
    amounts = estimate.amounts(seen)
    kinds = estimate.kinds(seen, list(amounts)[: view.top])
    listed: set[str] = set()
    out = [_whole(sample, dataset_bytes), *told]
    for name, kind in kinds.items():
        reads = None
        if app is not None and (own := joined(app.families, name, prefix=view.prefix, delimiter=view.delimiter)):
            listed.add(own)
            reads = own, app.families[own]
        out.append(_family(seen, name, kind, reads))
    out += _rest(sample, amounts, view)
    whole = estimate.amounts(estimate.renamed(sample, names)) if app and set(app.families) - listed else {}
    out += _others(app, whole, listed, view)
    return [*out, *map(_big, sample.biggest)]


def _whole(sample: Sample, dataset_bytes: int | None) -> Item:
    kind = estimate.whole(sample)
    lines = [f"{sample.keys:,} keys{_size(sample, kind)}", *_said(kind)]
    lines += _apart(kind.size_bytes, dataset_bytes)
    if not sample.complete:
        slots = [group for each in sample.strata for group in each.groups if group.name.startswith("slot ")]
        where = f" in {len(slots):,} hash slots" if slots else ""
        lines.append(f"from {sample.read:,} keys taken at random{where}, in brackets the 95 % interval")
    lines.append(
        f"looking at them counts on the server as {sample.counted_reads:,} hits, which the hit ratio leaves out"
    )
    data = {
        "keys": sample.keys,
        "read": sample.read,
        "counted_reads": sample.counted_reads,
        "complete": sample.complete,
        "look_s": round(sample.seconds, 3),
        "servers": dict(sample.servers),
        "dataset_bytes": dataset_bytes,
        **_facts(kind),
    }
    more = None if sample.complete or not sample.biggest else "--exact finds the largest keys of all"
    return Item("cache", "keys", Status.OK, "\n".join(lines), more, data)


def _family(sample: Sample, name: bytes, kind: Kind, reads: tuple[str, Reads] | None) -> Item:
    size = _size(sample, kind)
    share = estimate.family_share(sample, name)
    lines = [f"{_about(sample)}{kind.keys:,.0f} {'key' if round(kind.keys) == 1 else 'keys'}, {share}{size}"]
    data: dict[str, object] = {"keys": round(kind.keys), "share": share.data, **_facts(kind)}
    if reads is not None:
        own, counted = reads
        lines.append(f"hit ratio {said_reads(counted)}" if counted.ratio is not None else said_reads(counted))
        data["application"] = {"family": own, **_counts(counted)}
    return Item("family", _shown(name), Status.OK, "\n".join([*lines, *_said(kind)]), data=data)


def _rest(sample: Sample, amounts: Mapping[bytes, float], view: View) -> list[Item]:
    left = list(amounts.values())[view.top :]
    if not left:
        return []
    keys = sum(left)
    text = f"{_about(sample)}{keys:,.0f} keys in {len(left):,} families more"
    return [Item("family", "…", Status.OK, text, "--top shows more of them", {"keys": round(keys)})]


def _others(app: Counters | None, keys: Mapping[bytes, float], listed: set[str], view: View) -> list[Item]:
    """The application's families that stand at no line above."""
    if app is None:
        return []
    out = []
    for name in sorted(set(app.families) - listed):
        reads = app.families[name]
        own = sum(
            count
            for family, count in keys.items()
            if joined([name], family, prefix=view.prefix, delimiter=view.delimiter) is not None
        )
        where = f"about {own:,.0f} keys" if own else "no keys seen"
        ratio = f"hit ratio {said_reads(reads)}" if reads.ratio is not None else said_reads(reads)
        data = {"keys": round(own), "application": {"family": name, **_counts(reads)}}
        out.append(Item("family", _shown(name.encode()), Status.OK, f"{where}\n{ratio}", data=data))
    return out


def _big(key: BigKey) -> Item:
    ttl = "TTL unknown" if key.ttl_ms is None else f"TTL {human_seconds(key.ttl_ms / 1000)}"
    ttl = "no TTL" if key.ttl_ms == -1 else ttl
    data = {"size_bytes": key.size_bytes, "type": key.type, "ttl_ms": key.ttl_ms if key.ttl_ms != -1 else None}
    text = f"{human_bytes(key.size_bytes)}, {key.type or 'type unknown'}, {ttl}"
    return Item("key", _shown(key.key), Status.OK, text, data=data)


def _size(sample: Sample, kind: Kind) -> str:
    if kind.size_bytes is None:
        return ""
    if kind.sized >= _ALL:
        return f", {_about(sample)}{human_bytes(kind.size_bytes)}"
    # The keys that a user may not look into may be the large ones.
    return f", {human_bytes(kind.size_bytes)} if all are as the {kind.sized:.1%} whose size is known"


def _apart(looked: float | None, told: int | None) -> list[str]:
    """Sizes have no interval: a few large keys that a sample misses may be most of the memory."""
    if not looked or not told or max(looked, told) <= _APART_BYTES or 1 / _APART <= looked / told <= _APART:
        return []
    if told > looked:
        why = "a few large keys that were not looked at, or another database, hold the rest"
    else:
        why = "the size of a few large keys is a guess from a few of their elements, or they stand for too many"
    return [f"the servers count {human_bytes(told)} for keys and values of all databases: {why}"]


def _shown(name: bytes) -> str:
    text = name_of(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(name):,} bytes)"


def _about(sample: Sample) -> str:
    return "" if sample.complete else "about "


def _said(kind: Kind) -> list[str]:
    lines = []
    if kind.ttls:
        lines.append(
            "TTL: " + ", ".join(f"{_TTL_WORDS[name]} {_percent(part)}" for name, part in kind.ttls.items() if part)
        )
    if kind.types:
        lines.append("types: " + ", ".join(f"{name} {_percent(part)}" for name, part in kind.types.items()))
    return lines


def _percent(part: float) -> str:
    return f"{part:.0%}" if part == 1 or part >= 0.1 else f"{part:.1%}"


def _facts(kind: Kind) -> dict[str, object]:
    return {
        "size_bytes": None if kind.size_bytes is None else round(kind.size_bytes),
        "sized": round(kind.sized, 4) if kind.size_bytes is not None else 0.0,
        "ttl": {name: round(part, 4) for name, part in kind.ttls.items()},
        "types": {name: round(part, 4) for name, part in kind.types.items()},
    }


def _counts(reads: Reads) -> dict[str, object]:
    return {"hit_ratio": rounded(reads.ratio), "hits": reads.hits, "misses": reads.misses, **reads.extras}
