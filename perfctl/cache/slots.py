"""Which hash slots of a cluster are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

#: Slots that are always looked at, slots that are chosen at random at least, and the share of the keys for the former.
_FULLEST = 100
_RANDOM = 1000
_FOR_THE_FULLEST = 0.3

_Item = TypeVar("_Item")


class Chance(Protocol):
    """What chooses; ``random.Random`` is one."""

    def sample(self, population: list[_Item], k: int, /) -> list[_Item]:
        """So many of them, each at most once."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Slots that are looked at, and how many keys of each."""

    fullest: Mapping[int, int]
    random: Mapping[int, int]
    #: slots with keys that none of these is, and their keys
    left_out: int
    keys_left_out: int
    #: every key is looked at
    complete: bool


def choose(sizes: Mapping[int, int], limit: int, random: Chance) -> Choice:
    """Which slots to look at for about ``limit`` keys; ``sizes`` are the keys of each."""
    filled = sorted((slot for slot, size in sizes.items() if size), key=lambda slot: (-sizes[slot], slot))
    if sum(sizes.values()) <= limit:
        return Choice({slot: sizes[slot] for slot in filled}, {}, 0, 0, True)
    fullest = filled[: max(1, min(_FULLEST, limit // 100))]
    each = max(1, int(limit * _FOR_THE_FULLEST) // len(fullest))
    first = {slot: min(each, sizes[slot]) for slot in fullest}
    rest = filled[len(fullest) :]
    keys = max(0, limit - sum(first.values()))
    mean = sum(sizes[slot] for slot in rest) / max(1, len(rest))
    each = max(2, round((limit * (1 - _FOR_THE_FULLEST)) / _RANDOM))
    chosen = sorted(random.sample(rest, min(len(rest), max(1, int(keys / max(1.0, min(each, mean)))))))
    left = set(rest) - set(chosen)
    return Choice(
        first,
        {slot: min(each, sizes[slot]) for slot in chosen},
        len(left),
        sum(sizes[slot] for slot in left),
        False,
    )
