"""Redis's patterns as regular expressions, and what is noticed in them."""

from __future__ import annotations

import pytest

from perfctl.cache.glob import compiled, cut_off, escape

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
