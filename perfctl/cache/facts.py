"""Reads type, time to live and size of many keys, a page on its way while the last one is summed up."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfctl.cache.gather import Gatherer
from perfctl.errors import CommandFailed, Denied, PerfctlError
from perfctl.servers.redis import Node, Refusal, Reply, refusal


@dataclass(slots=True)
class Gaps:
    """What a user may not ask of single keys, or a server does not know."""

    errors: dict[str, PerfctlError] = field(default_factory=dict)
    #: commands that are not sent any more: each denial is a line in the server's ACL LOG
    given_up: set[str] = field(default_factory=set)
    #: reads that the servers counted as hits: TYPE and PTTL of keys that are there and in reach
    counted: int = 0


class Facts:
    """Type, time to live and size of pages of keys: sent, received, and taken up while the next page is on its way.

    MEMORY USAGE looks at five elements of a key: SAMPLES 0 would be all, and stall the server on a large one.
    """

    _ASKED: tuple[tuple[str, bytes, bytes], ...] = (
        ("types", b"*2\r\n$4\r\nTYPE\r\n", b""),
        ("TTLs", b"*2\r\n$4\r\nPTTL\r\n", b""),
        ("sizes", b"*5\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n", b"$7\r\nSAMPLES\r\n$1\r\n5\r\n"),
    )
    _WORDS: Mapping[str, tuple[str, ...]] = {"types": ("TYPE",), "TTLs": ("PTTL",), "sizes": ("MEMORY", "USAGE")}

    def __init__(self, node: Node, gaps: Gaps) -> None:
        self._node = node
        self._gaps = gaps
        self._sent: deque[tuple[Sequence[bytes], tuple[str, ...]]] = deque()
        self._got: tuple[Sequence[bytes], dict[str, list[Reply]]] | None = None
        self._kinds: dict[bytes, str] = {}

    def send(self, keys: Sequence[bytes], behind: bytes = b"") -> None:
        """Ask about keys; ``behind`` is another command that goes with it."""
        asked = [each for each in self._ASKED if each[0] not in self._gaps.given_up]
        out: list[bytes] = []
        for key in keys:
            word = b"$%d\r\n%b\r\n" % (len(key), key)
            for _, head, tail in asked:
                out += (head, word, tail)
        self._sent.append((keys, tuple(name for name, _, _ in asked)))
        self._node.send(b"".join(out) + behind)

    def receive(self) -> None:
        """The replies to what was sent first of what has no reply yet."""
        keys, names = self._sent.popleft()
        replies = self._node.receive_many(len(keys) * len(names))
        self._got = (keys, {name: replies[place :: len(names)] for place, name in enumerate(names)})

    def take_up(self, gatherer: Gatherer) -> None:
        """Sum up what was received. Raises for a refusal that is neither one of rights nor of a key that moved."""
        if self._got is None:
            return
        keys, columns = self._got
        self._got = None
        kinds, ttls, sizes = (self._column(columns, name, len(keys)) for name, _, _ in self._ASKED)
        known = self._kinds
        for key, kind, ttl, size in zip(keys, kinds, ttls, sizes, strict=True):
            # -2, or no type: it is gone since the walk came by.
            if ttl == -2 or kind == b"none":
                continue
            if kind is not None and kind not in known:
                known[kind] = kind.decode("utf-8", "replace")
            self._gaps.counted += (kind is not None) + (ttl is not None)
            gatherer.add(key, None if kind is None else known[kind], ttl, size)

    def _column(self, columns: Mapping[str, list[Reply]], name: str, length: int) -> list[Reply]:
        replies = columns.get(name)
        if replies is None:
            return [None] * length
        if Refusal not in set(map(type, replies)):
            return replies
        for each in replies:
            if isinstance(each, Refusal):
                self._hear(name, each)
        return [None if isinstance(each, Refusal) else each for each in replies]

    def _hear(self, name: str, reply: Refusal) -> None:
        error = refusal(reply, self._WORDS[name])
        unknown = isinstance(error, CommandFailed) and "unknown" in error.message
        if isinstance(error, Denied) or unknown:
            self._gaps.errors.setdefault(name, error)
            # Not so when it is only this key that is out of reach.
            if unknown or "permissions to run" in error.message:
                self._gaps.given_up.add(name)
        elif not isinstance(error, CommandFailed) or error.code not in ("MOVED", "ASK", "TRYAGAIN"):
            raise error
