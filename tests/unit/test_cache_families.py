"""What of a key is a name and what tells it from the next; shares with their error."""

from __future__ import annotations

import pytest

from perfctl.cache.families import folder, gathered, to_depth
from perfctl.cache.share import interval


@pytest.mark.parametrize(
    ("key", "family"),
    [
        (b"user:42", b"user:*"),
        (b"user:42:page:7", b"user:*:page:*"),
        (b"cache:user_analyses:usr_b3ad30e05373275959b2:1", b"cache:user_analyses:*:*"),
        (b"s:6ba7b810-9dad-11d1-80b4-00c04fd430c8", b"s:*"),
        (b"cache:{42}:x", b"cache:{*}:x"),
        (b"day:2026-11-25", b"day:*"),
        (b"mail:ann@example.org", b"mail:*"),
        (b"token:dGhpcyBpcyBhIHRva2Vu1", b"token:*"),
        (b"v1:config", b"v1:config"),
        (b"deadbeef:facade", b"deadbeef:facade"),
        (b"settings", b"settings"),
        (b"a b:\xff:1", b"a b:\xff:*"),
        (b"", b""),
    ],
)
def test_identifiers_are_folded(key: bytes, family: bytes) -> None:
    assert folder(b":")(key) == family


def test_another_delimiter() -> None:
    assert folder(b"/")(b"user/42/a:1") == b"user/*/a:1"


def test_many_names_at_one_place_are_identifiers() -> None:
    seen = {b"user:" + bytes([97 + n // 26, 97 + n % 26]) + b":cart": 2 for n in range(60)} | {b"user": 1, b"job:a": 3}
    assert gathered(seen, b":") == {b"user:*:cart": 120, b"user": 1, b"job:a": 3}
    assert gathered(seen, b":", many=100) == seen


def test_families_are_cut_at_a_depth() -> None:
    seen = {b"a:b:c": 1, b"a:b:d": 2, b"a:b": 4}
    assert to_depth(seen, b":", 2) == {"a:b:…".encode(): 3, b"a:b": 4}
    assert to_depth(seen, b":", None) == seen


def test_intervals() -> None:
    low, high = interval(50, 100)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert interval(0, 2000)[0] == 0
    assert interval(0, 2000)[1] < 0.002
    assert interval(0, 0) == (0, 1)


def test_names_that_differ_in_a_digit_are_told_apart_whatever_came_before() -> None:
    family = folder(b":")
    keys = [b"v1:5", b"v2:7", b"user:17:x", b"user:23:x", b"user:23:x2", b"user:9:x3"]
    assert [family(key) for key in keys] == [b"v1:*", b"v2:*", b"user:*:x", b"user:*:x", b"user:*:x2", b"user:*:x3"]
