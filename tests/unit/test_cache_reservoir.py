"""A sample of a stream: everybody has the same chance, wherever they stand and however they come."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from perfctl.cache.reservoir import Reservoir


@pytest.mark.parametrize("page", [1, 3, 7, 100])
def test_each_key_is_as_likely_as_any_other(page: int) -> None:
    keys = [b"%d" % number for number in range(60)]
    random = Random(7)
    found: Counter[bytes] = Counter()
    for _ in range(3000):
        reservoir = Reservoir(10, random)
        for start in range(0, len(keys), page):
            reservoir.offer(keys[start : start + page])
        assert (reservoir.seen, len(set(reservoir.chosen))) == (60, 10)
        found.update(reservoir.chosen)
    # 500 each is to be expected, with a standard deviation of 20.
    assert all(400 < found[key] < 600 for key in keys)


def test_of_fewer_keys_than_it_holds_it_has_all() -> None:
    reservoir = Reservoir(10, Random(1))
    reservoir.offer([b"a", b"b"])
    reservoir.offer([])
    reservoir.offer([b"c"])
    assert reservoir.chosen == [b"a", b"b", b"c"]


def test_one_that_is_just_full_has_all() -> None:
    reservoir = Reservoir(3, Random(1))
    reservoir.offer([b"a", b"b", b"c"])
    assert reservoir.chosen == [b"a", b"b", b"c"]
