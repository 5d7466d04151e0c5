"""What of a key is a name and what tells it from the next; shares with their error."""

from __future__ import annotations

import time

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


def test_a_key_of_very_many_parts() -> None:
    key = b"a:" * 1_000_000
    name = folder(b":")(key)
    assert name == b"a:" * 32 + "…".encode()
    assert folder(b":")(b":".join([b"a"] * 32)) == b":".join([b"a"] * 32)
    assert gathered({name: 1, b"a:b": 2}, b":") == {name: 1, b"a:b": 2}


def test_many_long_families_are_folded_soon() -> None:
    seen = {b":".join([b"p%d" % (number * place % 7919) for place in range(32)]): 1 for number in range(20_000)}
    began = time.monotonic()
    gathered(seen, b":")
    assert time.monotonic() - began < 10


def junk(number: int) -> bytes:
    return bytes([97 + number // 26, 97 + number % 26])


def test_junk_beside_large_families_leaves_them_their_names() -> None:
    seen = {junk(number): 1 for number in range(60)}
    seen |= {b"user:*": 9000, b"page:*": 700, b"small:*": 3, b"app:x": 1, b"app:y": 2}
    assert gathered(seen, b":", prefix=b"app:") == {
        b"*": 60, b"user:*": 9000, b"page:*": 700, b"*:*": 3, b"app:x": 1, b"app:y": 2
    }  # fmt: skip


def test_the_prefix_stays_and_what_is_behind_it_is_folded() -> None:
    seen = {b"app:" + junk(number) + b":cart": 2 for number in range(60)} | {junk(number): 90 for number in range(60)}
    assert gathered(seen, b":", prefix=b"app:") == {b"app:*:cart": 120, b"*": 5400}
