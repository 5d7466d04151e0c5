"""What speaks against a flush, by its consequence and not by how its pattern is written; and what it will take."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from perfctl.cache.items import types, without_ttl
from perfctl.cache.model import Look, Manner, Question

#: More of a database than this is hardly a part of it.
LARGE_SHARE = 0.5

#: Data structures that hold work or state rather than copies.
NO_CACHE = ("stream", "list", "zset")

#: A plan whose keys have become so many more, or fewer, is not what was looked at.
DRIFT = 0.1

#: What deleting a key costs beside walking past one, and the part of the time that a server is kept busy (measured on
#: Redis 7.0: UNLINK 1.15 to 1.4 µs, SCAN 0.92 to 0.97 µs).
_UNLINK_OVER_SCAN = 1.35
_BUSY = 0.8


@dataclass(frozen=True, slots=True)
class Guard:
    """One reason to ask again, and what opens it where nobody can be asked."""

    #: share, lasting, or the type
    kind: str
    text: str
    opened_by: Literal["--confirm", "--include-persistent"]


def guards(look: Look) -> list[Guard]:
    """What a person has to know before these keys go."""
    if not look.matched:
        return []
    found = []
    share = look.matched / max(look.keys, look.matched)
    if share > LARGE_SHARE:
        found.append(Guard("share", f"it is {share:.0%} of all keys", "--confirm"))
    forever = without_ttl(look)
    if forever.value:
        text = f"keys without TTL, which nothing brings back by itself: {forever}"
        found.append(Guard("lasting", text, "--include-persistent"))
    for name, part in types(look):
        if name in NO_CACHE:
            text = f"keys of type {name}, which is no cache's: {part}"
            found.append(Guard(name, text, "--include-persistent"))
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What was looked at: which keys of what are meant, and how many there were."""

    what: str
    matched: int

    @property
    def id(self) -> str:
        """The plan in a word, which ``read_plan`` reads."""
        return f"{self.what}-{self.matched}"

    @property
    def drift(self) -> float:
        """How many keys more or fewer are another plan."""
        return self.matched * DRIFT

    def moved(self, now: int) -> bool:
        """Whether so many keys are no longer what was planned."""
        return abs(now - self.matched) > self.drift


def plan(question: Question, target: str, place: Sequence[object], matched: int) -> Plan:
    """The plan of a flush of so many of these keys on this target, whose servers are at ``place``."""
    shape = question.shape.pattern if question.shape else None
    what = (
        *(question.pattern, question.type, sorted(question.exclude), shape, question.ttl, question.idle_s),
        *(question.larger_bytes, question.smaller_bytes, target, *place, matched),
    )
    return Plan(hashlib.sha256(repr(what).encode()).hexdigest()[:10], matched)


def read_plan(text: str) -> Plan | None:
    """The plan that an id stands for; None for what is no such id."""
    what, _, matched = text.partition("-")
    return Plan(what, int(matched)) if len(what) == 10 and matched.isascii() and matched.isdigit() else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a flush will take, about."""

    seconds: float
    #: of all servers together
    server_s: float


def estimate(look: Look, manner: Manner) -> Estimate | None:
    """By what the look took of the servers' time; None where they did not tell."""
    costs = []
    for part in look.parts:
        if part.server_s is None:
            return None
        a_key_s = part.server_s / max(1, part.keys)
        costs.append(part.server_s * manner.passes + part.matched * a_key_s * _UNLINK_OVER_SCAN)
    seconds = max(costs, default=0.0) / _BUSY
    if manner.rate:
        seconds = max(seconds, look.matched / manner.rate)
    return Estimate(seconds, sum(costs))
