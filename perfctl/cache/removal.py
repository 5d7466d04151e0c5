"""What takes keys away: the commands for a page of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Protocol

from perfctl.cache.model import Manner, Traits
from perfctl.cache.selection import Command
from perfctl.servers.redis import slot_of


class Removal(Protocol):
    """One way to take keys away."""

    #: whether it has to know how long each key has to live
    asks_ttl: bool

    def commands(self, keys: Sequence[bytes], traits: Sequence[Traits | None]) -> list[Command]:
        """What to send for these keys; the reply to each is the number of keys taken away."""
        ...


class Unlink:
    """Gone at once; the server frees the memory beside its work. In a cluster a command is for the keys of one slot."""

    asks_ttl = False

    def __init__(self, *, by_slot: bool) -> None:
        self._by_slot = by_slot

    def commands(self, keys: Sequence[bytes], traits: Sequence[Traits | None]) -> list[Command]:  # noqa: ARG002
        """One command, or one a slot."""
        if not self._by_slot:
            return [("UNLINK", *keys)] if keys else []
        slots: defaultdict[int, list[bytes]] = defaultdict(list)
        for key in keys:
            slots[slot_of(key)].append(key)
        return [("UNLINK", *group) for group in slots.values()]


class Expire:
    """Gone one after the other within a span of time, so that what is read from their source instead comes in waves."""

    def __init__(self, manner: Manner, random: Random) -> None:
        self._within_ms = round((manner.soft_s or 0.0) * 1000)
        self._shorten = manner.shorten
        self._random = random
        self.asks_ttl = not manner.shorten

    def commands(self, keys: Sequence[bytes], traits: Sequence[Traits | None]) -> list[Command]:
        """One command a key, none for a key that has less time already."""
        lives = [self._random.randint(1, self._within_ms) for _ in keys]
        if self._shorten:
            return [("PEXPIRE", key, life, "LT") for key, life in zip(keys, lives, strict=True)]
        return [
            ("PEXPIRE", key, life)
            for key, life, known in zip(keys, lives, traits, strict=True)
            if known is not None and (known.ttl_ms is None or known.ttl_ms > life)
        ]


def number_of_keys(command: Command) -> int:
    """How many keys one of these commands is for."""
    return len(command) - 1 if command[0] == "UNLINK" else 1


def keys_of(command: Command) -> tuple[bytes, ...]:
    """The keys that one of these commands is for."""
    keys = command[1:] if command[0] == "UNLINK" else command[1:2]
    return tuple(key for key in keys if isinstance(key, bytes))
