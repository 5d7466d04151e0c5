"""What was seen of a cache's keys, as items of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perfctl.cache import families
from perfctl.cache.model import KeyFacts, Look, Question
from perfctl.cache.share import interval
from perfctl.figures import human_bytes
from perfctl.report import Item, Status

#: keys that are shown as they are
_SHOWN = 10

#: A name that is longer is cut.
_LONG_BYTES = 500

#: A key that takes more memory is shown as a large one, so many of them.
LARGE_BYTES = 1024**2
_LARGE_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the matching keys that the sample shows, and between what the truth lies."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.0%}"
        if self.value == 0:
            return f"none in the sample (under {max(self.high, 0.001):.1%})"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def name_of(key: bytes) -> str:
    """A key as people can read it and type it again: what is not text stands as `\\xff`."""
    if len(key) > _LONG_BYTES:
        return f"{name_of(key[:_LONG_BYTES])}… ({len(key):,} bytes)"
    return key.decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")


def title(question: Question) -> str:
    """What is asked about, in a word: of a family the keys that go on behind a delimiter too."""
    if question.shape is None:
        return name_of(question.pattern)
    return name_of(question.pattern.removesuffix(b"*")) + f"({name_of(question.delimiter)}…)"


def keys(look: Look, question: Question, *, depth: int | None, top: int) -> list[Item]:
    """What a flush of these keys would hit: the whole, each family, what the pattern also takes in, ten of the keys."""
    if not look.matched:
        text = f"no key of {look.keys:,} matches"
        if look.too_large:
            text = f"{look.too_large:,} keys match, and each takes more than {human_bytes(question.smaller_bytes or 0)}"
        status = Status.SKIPPED if look.too_large else Status.OK
        return [Item("cache", title(question), status, text, data=_whole(look))]
    items = [Item("cache", title(question), Status.OK, _said(look), data=_whole(look))]
    found = families.to_depth(families.gathered(look.families, question.delimiter), question.delimiter, depth)
    for family, count in found.most_common(top):
        share = count / look.matched
        data = {"keys": count, "share": round(share, 4)}
        said = f"{count:,} {'key' if count == 1 else 'keys'}, {share:.1%}"
        items.append(Item("family", name_of(family), Status.OK, said, data=data))
    if len(found) > top:
        left = sum(count for _, count in found.most_common()[top:])
        text = f"{left:,} keys in {len(found) - top:,} families more"
        items.append(Item("family", "…", Status.OK, text, "--top shows more of them", {"keys": left}))
    if longer := look.longer:
        items.append(_near(longer, question))
    large = sorted(_large(look), key=lambda key: key.size_bytes or 0, reverse=True)
    items += [_key(key, "large key") for key in large[:_LARGE_SHOWN]]
    items += [_key(key, "key") for key in _some(look) if key not in large[:_LARGE_SHOWN]]
    return items


def _large(look: Look) -> list[KeyFacts]:
    return [key for part in look.parts for key in part.sample if (key.size_bytes or 0) > LARGE_BYTES]


def _key(key: KeyFacts, kind: str) -> Item:
    ttl = "no TTL" if key.ttl_ms is None else f"TTL {key.ttl_ms / 1000:.0f} s"
    size = "" if key.size_bytes is None else f", {human_bytes(key.size_bytes)}"
    facts = {"type": key.type, "ttl_ms": key.ttl_ms, "size_bytes": key.size_bytes}
    large = " (large)" if kind == "large key" else ""
    return Item(kind, name_of(key.key), Status.OK, f"{key.type}, {ttl}{size}{large}", data=facts)


def without_ttl(look: Look) -> Share:
    """The share of matching keys that never expire."""
    return _share(look, [key.ttl_ms is None for part in look.parts for key in part.sample])


def types(look: Look) -> list[tuple[str, Share]]:
    """The types of the matching keys, the most frequent first."""
    found = Counter(key.type for part in look.parts for key in part.sample)
    return [
        (name, _share(look, [key.type == name for part in look.parts for key in part.sample]))
        for name, _ in found.most_common()
    ]


def size_bytes(look: Look) -> int | None:
    """About how much memory the matching keys take: each server's mean size times its keys. None where unknown."""
    total = 0.0
    for part in look.parts:
        sizes = [key.size_bytes for key in part.sample if key.size_bytes is not None]
        if part.matched and not sizes:
            return None
        total += part.matched * sum(sizes) / len(sizes) if sizes else 0
    return round(total)


def _share(look: Look, hits: Sequence[bool]) -> Share:
    """Each server's part of the sample weighs as much as that server has keys."""
    value, at = 0.0, 0
    for part in look.parts:
        some = hits[at : at + len(part.sample)]
        at += len(some)
        value += part.matched / look.matched * (sum(some) / len(some)) if some else 0.0
    if look.sampled == look.matched:
        return Share(value, value, value)
    low, high = interval(round(value * len(hits)), len(hits))
    return Share(value, min(low, value), max(high, value))


def _said(look: Look) -> str:
    size = size_bytes(look)
    about = "" if look.sampled == look.matched else "about "
    lines = [
        f"{look.matched:,} of {look.keys:,} keys ({look.matched / max(look.keys, look.matched):.1%})"
        + (f", {about}{human_bytes(size)}" if size is not None else ""),
        "types: " + ", ".join(f"{name} {share}" for name, share in types(look)),
        f"without TTL: {without_ttl(look)}",
    ]
    if look.too_large:
        lines.append(f"{look.too_large:,} more are left, for they are too large")
    if look.no_sizes:
        lines.append(f"sizes unknown: {look.no_sizes}")
    if look.sampled < look.matched:
        lines.append(f"types, TTL and size from {look.sampled:,} keys taken at random, in brackets the 95 % interval")
    return "\n".join(lines)


def _whole(look: Look) -> dict[str, object]:
    if not look.matched:
        return {"keys": look.keys, "matched": 0, **({"too_large": look.too_large} if look.too_large else {})}
    ttl = without_ttl(look)
    return {
        "keys": look.keys,
        "matched": look.matched,
        "sampled": look.sampled,
        "size_bytes": size_bytes(look),
        "types": {name: round(share.value, 4) for name, share in types(look)},
        "without_ttl": {"share": round(ttl.value, 4), "low": round(ttl.low, 4), "high": round(ttl.high, 4)},
        "servers": {part.server: part.matched for part in look.parts},
    }


def _near(longer: Counter[bytes], question: Question) -> Item:
    """Names that go on where the pattern ends: they are likely not meant."""
    hit = sum(longer.values())
    some = ", ".join(name_of(name) for name, _ in longer.most_common(3))
    more = f" and {len(longer) - 3:,} names more" if len(longer) > 3 else ""
    only = name_of(question.pattern[:-1] + question.delimiter + b"*")
    return Item(
        "near miss",
        name_of(question.pattern),
        Status.OK,
        f"also hits {some}{more}: {hit:,} keys",
        f"{only} leaves them out",
        {"keys": hit, "names": len(longer)},
    )


def _some(look: Look) -> list[KeyFacts]:
    """A few of the sample, from every server."""
    found: list[KeyFacts] = []
    for number in range(_SHOWN):
        found += [part.sample[number] for part in look.parts if number < len(part.sample)]
    return found[:_SHOWN]
