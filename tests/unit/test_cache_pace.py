"""Page sizes, pauses and rates, by plain numbers."""

from __future__ import annotations

import pytest

from perfctl.cache.decide import guards
from perfctl.cache.model import Found, KeyFacts, Look
from perfctl.cache.pace import CEILING, FLOOR, Bucket, PageSize, excess_s, next_pause_s


def run(size: PageSize, took_s: float, seconds: float) -> int:
    now = 0.0
    while now <= seconds:
        size.took(took_s, now)
        now += 0.01
    return size.count


def test_pages_that_take_too_long_become_smaller_and_not_too_small() -> None:
    assert run(PageSize(500), 0.004, 1.1) == 333
    assert run(PageSize(500), 0.004, 30) == FLOOR


def test_pages_that_take_no_time_become_larger_and_not_too_large() -> None:
    assert run(PageSize(500), 0.0002, 30) == CEILING


def test_one_slow_page_changes_nothing() -> None:
    size = PageSize(500)
    for number in range(300):
        size.took(0.5 if number == 50 else 0.001, number / 100)
    assert size.count == 500


def test_a_fixed_size_stays() -> None:
    assert run(PageSize(5000, fixed=True), 0.1, 30) == 5000


def test_a_pause_grows_while_others_wait_and_goes_when_they_do_not() -> None:
    pause = 0.0
    for _ in range(20):
        pause = next_pause_s(pause, 0.005, 0.002)
    assert pause == 0.2
    for _ in range(10):
        pause = next_pause_s(pause, 0.001, 0.002)
    assert pause == 0


def test_what_others_wait_longer_is_measured_against_before() -> None:
    assert excess_s([0.001] * 40, [0.001] * 44 + [0.01] * 6) == pytest.approx(0.009)
    assert excess_s([0.001] * 40, [0.001] * 49 + [0.9]) == 0
    assert excess_s([], []) == 0


def test_a_rate_is_kept_by_sleeps_that_are_long_enough() -> None:
    bucket = Bucket(1000)
    assert bucket.wait_s(2, 0.0) == 0
    assert bucket.wait_s(98, 0.0) == pytest.approx(0.1)
    assert Bucket(None).wait_s(10**9, 0.0) == 0


def look(matched: int, keys: int, *sample: KeyFacts) -> Look:
    return Look((Found("s", keys, matched, {}, {}, sample, 0.0),))


EXPIRING = KeyFacts(b"a", "string", 1000, 10)


@pytest.mark.parametrize(
    ("seen", "opened_by"),
    [
        (look(1, 10, EXPIRING), []),
        (look(5, 10, *[EXPIRING] * 5), []),
        (look(6, 10, *[EXPIRING] * 6), ["--confirm"]),
        (look(2, 10, EXPIRING, KeyFacts(b"b", "string", None, 10)), ["--include-persistent"]),
        (look(1, 10, KeyFacts(b"b", "stream", 5, 10)), ["--include-persistent"]),
        (look(0, 10), []),
    ],
)
def test_guards_follow_from_the_consequence(seen: Look, opened_by: list[str]) -> None:
    assert [each.opened_by for each in guards(seen)] == opened_by
