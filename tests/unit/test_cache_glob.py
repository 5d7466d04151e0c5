"""Redis's patterns as regular expressions, and what is noticed in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perfctl.cache.glob import compiled, cut_off, escape, of_family

EVERY = bytes(range(256))


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        (b"user:*", b"user:", True),
        (b"user:*", b"user:a\nb:c", True),
        (b"user:*", b"users:1", False),
        (b"user:?", b"user:\xff", True),
        (b"user:?", b"user:", False),
        (b"h[ae]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[a-c]llo", b"hbllo", True),
        (b"h[c-a]llo", b"hbllo", True),
        (rb"h[\]]llo", b"h]llo", True),
        (rb"a\*b", b"a*b", True),
        (rb"a\*b", b"axb", False),
        (b"a.b", b"axb", False),
        (b"[abc", b"c", True),
        (b"a\\", b"a\\", True),
        (b"", b"", True),
    ],
)
def test_patterns(pattern: bytes, key: bytes, matches: bool) -> None:
    assert bool(compiled(pattern).fullmatch(key)) is matches


def test_an_escaped_text_matches_itself_and_nothing_else() -> None:
    assert compiled(escape(EVERY)).fullmatch(EVERY)
    assert not compiled(escape(b"a*")).fullmatch(b"ab")
    assert not compiled(escape(b"[ab]")).fullmatch(b"a")


@pytest.mark.parametrize(
    ("pattern", "head"),
    [
        (b"user:1*", b"user:1"),
        (b"user*", b"user"),
        (b"user:*", None),
        (b"user:1", None),
        (b"u?er*", None),
        (b"[u]ser*", None),
        (b"*", None),
        (rb"a\*b*", b"a*b"),
    ],
)
def test_a_pattern_that_ends_in_the_middle_of_a_name(pattern: bytes, head: bytes | None) -> None:
    assert cut_off(pattern) == head


def matches(family: bytes, ids: Sequence[bytes], key: bytes) -> bool:
    """What a flush of a family does with a key: SCAN's pattern first, then the shape of the whole key."""
    pattern, shape = of_family(family, ids, b":")
    return bool(compiled(pattern).fullmatch(key) and shape.fullmatch(key))


_PART = st.binary(min_size=1, max_size=4).filter(lambda part: b":" not in part and part != b"*")


@given(st.lists(_PART, min_size=1, max_size=3), _PART, st.lists(_PART, max_size=2))
def test_a_family_with_an_identifier_has_the_keys_that_begin_with_both(
    family: list[bytes], own: bytes, rest: list[bytes]
) -> None:
    assume(not any(b"{*}" in part for part in family))
    assert matches(b":".join(family), [own], b":".join([*family, own, *rest]))


@given(st.binary(min_size=1, max_size=5), st.binary(min_size=1, max_size=8))
def test_an_identifier_is_never_another_one(own: bytes, other: bytes) -> None:
    # Of keys that go on with the identifier, only those that go on behind a delimiter.
    assume(other != own and not other.startswith(own + b":"))
    assert not matches(b"user", [own], b"user:" + other)


@pytest.mark.parametrize(
    ("family", "ids", "key", "has"),
    [
        (b"user:*:page", [b"42"], b"user:42:page", True),
        (b"user:*:page", [b"42"], b"user:42:page:7", True),
        (b"user:*:page", [b"42"], b"user:43:page", False),
        (b"user:*:page", [], b"user:43:page", True),
        (b"user:*:page", [], b"user:4:3:page", False),
        (b"user:*:page:*", [b"42", b"7"], b"user:42:page:8", False),
        (b"user:{*}:page", [b"42"], b"user:{42}:page", True),
        (b"user:{*}:page", [b"42"], b"user:42:page", False),
        (b"user:*", [b"42", b"x"], b"user:42:x", True),
        ("user:…".encode(), [], b"user:42", True),
        (b"user", [], b"user", True),
        (b"user", [], b"users", False),
    ],
)
def test_the_places_of_a_family(family: bytes, ids: Sequence[bytes], key: bytes, has: bool) -> None:
    assert matches(family, ids, key) is has


def test_many_wildcards_take_no_time() -> None:
    pattern = compiled(b"*a" * 30 + b"*b")
    assert not pattern.fullmatch(b"a" * 5000)
    assert pattern.fullmatch(b"a" * 5000 + b"b")


_GLOB = st.text("ab*?", max_size=8).map(str.encode)


@given(_GLOB, st.text("ab", max_size=10).map(str.encode))
def test_wildcards_find_what_any_other_way_would(pattern: bytes, key: bytes) -> None:
    plain = re.escape(pattern).replace(rb"\*", b".*").replace(rb"\?", b".")
    assert bool(compiled(pattern).fullmatch(key)) == bool(re.fullmatch(plain, key, re.DOTALL))
