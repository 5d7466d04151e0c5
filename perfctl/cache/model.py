"""What was seen of a cache's keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ttl:
    """Between what a key's time to live has to be, both ends included; ``none`` is for keys that do not expire."""

    least_ms: int = 0
    most_ms: int | None = None
    none: bool = False

    def has(self, ttl_ms: int | None) -> bool:
        """Whether a time to live is one of these; None is that of a key that does not expire."""
        if ttl_ms is None or self.none:
            return self.none and ttl_ms is None
        return self.least_ms <= ttl_ms and (self.most_ms is None or ttl_ms <= self.most_ms)


@dataclass(frozen=True, slots=True)
class Question:
    """Which keys are asked about."""

    pattern: bytes
    type: str | None = None
    exclude: tuple[bytes, ...] = ()
    delimiter: bytes = b":"
    #: what the whole key has to be, where a pattern alone would take in more
    shape: re.Pattern[bytes] | None = None
    ttl: Ttl | None = None
    #: not touched for so long
    idle_s: float | None = None
    larger_bytes: int | None = None
    #: larger keys are left
    smaller_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Traits:
    """Of one key, what a question needs to know of it beside its name; None where it was not asked."""

    #: -1 for a key that does not expire
    pttl_ms: int | None = None
    idle_s: int | None = None
    size_bytes: int | None = None

    @property
    def ttl_ms(self) -> int | None:
        """None for a key that does not expire."""
        return None if self.pttl_ms == -1 else self.pttl_ms


@dataclass(frozen=True, slots=True)
class Manner:
    """How keys are taken away."""

    count: int = 500
    #: COUNT stays as it is
    fixed: bool = False
    passes: int = 2
    #: keys a second, on all servers together
    rate: float | None = None
    #: how much longer than before others may wait for an answer
    max_latency_s: float | None = 0.002
    #: keys get so long to live, each a random part of it, instead of being deleted
    soft_s: float | None = None
    #: PEXPIRE knows LT, which never makes a life longer; servers before 7.0 do not
    shorten: bool = True


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key of the sample."""

    key: bytes
    type: str
    #: None for a key that does not expire
    ttl_ms: int | None
    #: None where the server does not tell
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """What one server holds of the keys asked about."""

    server: str
    #: all keys of the database, matching or not
    keys: int
    #: as SCAN gave them: a key may come twice while the server's table grows or shrinks
    matched: int
    families: Mapping[bytes, int]
    #: names longer than the one that the pattern was cut off in, with their keys; see glob.cut_off
    longer: Mapping[bytes, int]
    #: keys taken at random from those that match
    sample: tuple[KeyFacts, ...]
    walk_s: float
    #: keys that match and are too large, see Question.smaller_bytes
    too_large: int = 0
    #: what the server itself spent on the walk; None where it does not tell
    server_s: float | None = None
    #: keys of the database, matching or not, that do not expire; None where the server does not tell
    lasting: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What all servers of a deployment hold of the keys asked about."""

    parts: tuple[Found, ...]
    #: why sizes are not known
    no_sizes: str = ""

    @property
    def families(self) -> Counter[bytes]:
        """The matching keys by family."""
        return sum((Counter(each.families) for each in self.parts), Counter())

    @property
    def longer(self) -> Counter[bytes]:
        """The names that the pattern takes in beyond the one that it was cut off in."""
        return sum((Counter(each.longer) for each in self.parts), Counter())

    @property
    def keys(self) -> int:
        """All keys, matching or not."""
        return sum(each.keys for each in self.parts)

    @property
    def matched(self) -> int:
        """The keys that match."""
        return sum(each.matched for each in self.parts)

    @property
    def too_large(self) -> int:
        """The keys that match and are left for their size."""
        return sum(each.too_large for each in self.parts)

    @property
    def may_have_lasting(self) -> bool:
        """Whether some of the matching keys may be without TTL although the sample shows none."""
        return self.sampled < self.matched and any(each.matched and each.lasting != 0 for each in self.parts)

    @property
    def sampled(self) -> int:
        """How many of them were looked at one by one."""
        return sum(len(each.sample) for each in self.parts)
