"""A random sample of a stream whose length nobody knows before its end."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, floor, log
from random import Random


class Reservoir:
    """So many of the keys offered, each with the same probability, in a time that hardly depends on their number.

    Source: Kim-Hung Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", ACM TOMS 20 (1994),
    algorithm L: how many keys are passed over until the next one is taken is drawn, not each key by itself.
    """

    def __init__(self, size: int, random: Random) -> None:
        self._size = size
        self._random = random
        self._weight = 1.0
        #: which key of all, counted from 0, was the last to be taken; then the next one
        self._next = size - 1
        self.chosen: list[bytes] = []
        self.seen = 0

    def offer(self, keys: Sequence[bytes]) -> None:
        """Let some of these in."""
        first, self.seen = self.seen, self.seen + len(keys)
        if first < self._size:
            self.chosen += keys[: self._size - first]
            if self.seen < self._size:
                return
            self._skip()
        while self._next < self.seen:
            self.chosen[self._random.randrange(self._size)] = keys[self._next - first]
            self._skip()

    def _skip(self) -> None:
        # 1 - random() is never 0, whose logarithm nobody knows.
        self._weight *= exp(log(1 - self._random.random()) / self._size)
        self._next += floor(log(1 - self._random.random()) / log(1 - self._weight)) + 1
