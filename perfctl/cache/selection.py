"""Which keys of a page are meant: by their names, and where a question asks for it by what the server knows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

from perfctl.cache import glob
from perfctl.cache.model import Question, Traits
from perfctl.errors import CommandFailed, PerfctlError, UsageError

#: MEMORY USAGE looks at so many elements of a key; 0 would be all, and stall the server on a large one.
ELEMENTS = 5

Command = tuple[bytes | str | int, ...]

#: Sends commands, each for one key, together; a refused one comes back as the error.
Ask = Callable[[Sequence[Command]], Sequence[object]]

#: of a cluster's node that does not have the key, or not all of it, now
ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN", "CROSSSLOT")

_GONE = -2


class Selection:
    """A question, put to pages of keys. For one thread."""

    def __init__(self, question: Question, *, ttl: bool = False) -> None:
        self._question = question
        self._without = [glob.compiled(each) for each in question.exclude]
        self._ttl = ttl or question.ttl is not None
        self._idle = question.idle_s is not None
        self._size = question.larger_bytes is not None or question.smaller_bytes is not None
        #: keys that would be meant and are larger than the question allows, or do not expire though it wants that
        self.too_large = 0
        self.lasting = 0

    @property
    def by_traits(self) -> bool:
        """Whether names are not enough."""
        return self._ttl or self._idle or self._size

    def by_name(self, keys: list[bytes]) -> list[bytes]:
        """Those that are meant, as far as their names tell."""
        if (shape := self._question.shape) is not None:
            keys = [key for key in keys if shape.fullmatch(key)]
        if self._without:
            keys = [key for key in keys if not any(each.fullmatch(key) for each in self._without)]
        return keys

    def traits(self, keys: Sequence[bytes], ask: Ask) -> list[Traits | None]:
        """What is known of each key; None for one that is gone, or that another node has. Raises Denied, UsageError."""
        asked: list[Command] = []
        for key in keys:
            if self._ttl:
                asked.append(("PTTL", key))
            if self._idle:
                asked.append(("OBJECT", "IDLETIME", key))
            if self._size:
                asked.append(("MEMORY", "USAGE", key, "SAMPLES", ELEMENTS))
        replies = [_checked(reply) for reply in ask(asked)]
        each = self._ttl + self._idle + self._size
        return [self._read(replies[at : at + each]) for at in range(0, len(replies), each)]

    def _read(self, replies: Sequence[int | None]) -> Traits | None:
        if None in replies or (self._ttl and replies[0] == _GONE):
            return None
        rest = iter(replies)
        return Traits(
            next(rest) if self._ttl else None,
            next(rest) if self._idle else None,
            next(rest) if self._size else None,
        )

    def has(self, traits: Traits | None) -> bool:
        """Whether a key with these traits is meant."""
        question = self._question
        if traits is None:
            return False
        if question.ttl is not None and not question.ttl.has(traits.ttl_ms):
            self.lasting += traits.ttl_ms is None
            return False
        if question.idle_s is not None and (traits.idle_s or 0) < question.idle_s:
            return False
        if question.larger_bytes is not None and (traits.size_bytes or 0) <= question.larger_bytes:
            return False
        if question.smaller_bytes is not None and (traits.size_bytes or 0) > question.smaller_bytes:
            self.too_large += 1
            return False
        return True

    def meant(self, keys: list[bytes], ask: Ask) -> list[bytes]:
        """Those of a page that are meant, by name and by all that is asked."""
        keys = self.by_name(keys)
        if not keys or not self.by_traits:
            return keys
        return list(compress(keys, map(self.has, self.traits(keys, ask))))


def _checked(reply: object) -> int | None:
    """A number, or None for a key that is gone or elsewhere."""
    if isinstance(reply, CommandFailed):
        if reply.code in ELSEWHERE or "no such key" in reply.message:
            return None
        if "LFU" in reply.message:
            raise UsageError(
                "--idle: this server keeps how often a key is used instead of since when it is not",
                hint="its maxmemory-policy is one of LFU, under which OBJECT IDLETIME is refused",
            )
    if isinstance(reply, PerfctlError):
        raise reply
    return reply if isinstance(reply, int) else None
