"""Keys summed up as they come: by family, with the largest of them. Memory is bounded, however many keys come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappush, heapreplace

from perfctl.cache.records import TTL_BUCKETS, TTL_ENDS_MS, BigKey, FamilyTally

#: Different families that are told apart in one place; more are named by what they have in common anyway.
_FAMILIES = 50_000


@dataclass(slots=True)
class _Sums:
    keys: int = 0
    sized: int = 0
    size_bytes: int = 0
    ttls: list[int] = field(default_factory=lambda: [0] * len(TTL_BUCKETS))
    types: dict[str, int] = field(default_factory=dict)


class Gatherer:
    """Sums of the keys of one place."""

    def __init__(self, family: Callable[[bytes], bytes], biggest: Biggest) -> None:
        self._family = family
        self._sums: dict[bytes, _Sums] = {}
        self._biggest = biggest
        self.read = 0

    def add(self, key: bytes, kind: str | None, ttl_ms: int | None, size_bytes: int | None) -> None:
        """One key; what is not known of it is None, and -1 a TTL that it has not."""
        name = self._family(key)
        sums = self._sums.get(name)
        if sums is None:
            if len(self._sums) >= _FAMILIES:
                name = b"*"
            sums = self._sums.setdefault(name, _Sums())
        self.read += 1
        sums.keys += 1
        if kind is not None:
            sums.types[kind] = sums.types.get(kind, 0) + 1
        if ttl_ms is not None:
            sums.ttls[0 if ttl_ms < 0 else 1 + bisect_left(TTL_ENDS_MS, ttl_ms)] += 1
        if size_bytes is not None:
            sums.sized += 1
            sums.size_bytes += size_bytes
            if size_bytes > self._biggest.least:
                self._biggest.add(BigKey(key, size_bytes, kind, ttl_ms))

    def families(self) -> Mapping[bytes, FamilyTally]:
        """What came, by family."""
        return {
            name: FamilyTally(each.keys, each.sized, each.size_bytes, tuple(each.ttls), each.types)
            for name, each in self._sums.items()
        }


class Biggest:
    """The largest keys of all that came."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._heap: list[tuple[int, bytes, BigKey]] = []
        self._known: set[bytes] = set()
        #: a key that is not larger than this is not among them
        self.least = -1

    def add(self, facts: BigKey) -> None:
        """One key; SCAN may give it twice."""
        if facts.key in self._known or facts.size_bytes <= self.least:
            return
        self._known.add(facts.key)
        entry = (facts.size_bytes, facts.key, facts)
        if len(self._heap) < self._top:
            heappush(self._heap, entry)
        else:
            self._known.discard(heapreplace(self._heap, entry)[1])
        if len(self._heap) == self._top:
            self.least = self._heap[0][0]

    def largest(self) -> tuple[BigKey, ...]:
        """The largest, largest first."""
        return tuple(facts for *_, facts in sorted(self._heap, reverse=True))
