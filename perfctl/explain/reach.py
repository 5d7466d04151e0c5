"""What a query may call that is volatile, by name or through what names no function; told by words, never too little.

An operator, a cast, an aggregate, a domain's check, ``t.f`` for ``f(t)``, a view, a row policy and the text of another
function call functions too. Instead of resolving names as the server does, every word of the query and of its plan
is taken for a name of whatever is called so: that may refuse a run that was harmless, and lets none pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from perfctl.servers.postgres import Postgres

_GAP = r"(?:\s|/\*.*?\*/|--[^\n]*)*"
_NAME = r'(?:"(?:[^"]|"")*"|[\w$]+)'
_CALL = re.compile(rf"({_NAME}){_GAP}(?=\()", re.DOTALL)
_CAST = re.compile(rf"(?:::|\bas\b){_GAP}(?:{_NAME}{_GAP}\.{_GAP})*({_NAME})", re.DOTALL | re.IGNORECASE)
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?]+")
_LONGEST_NAME = 63

#: what IN, BETWEEN, LIKE, USING, DISTINCT, NULLIF and their like mean, and what no word tells of
_UNSAID = frozenset({"", "=", "<>", "<", "<=", ">", ">=", "~", "~~", "!~~", "~~*", "!~~*"})


@dataclass(frozen=True, slots=True)
class Reach:
    """What is called by a word: a volatile function, or what has a text whose words call further."""

    word: str
    #: what it is, where it is no function
    what: str | None
    #: schema and name of a volatile one
    function: str | None
    text: str | None


def words(text: str) -> frozenset[str]:
    """Whatever may be a name in it: ``f``, ``f(`` where it is called, ``::t`` where it is cast to, operators."""
    found = set(re.findall(r"[\w$]+", text))
    # Between any two quotes: which of them begin a name is for a parser to say.
    found.update(piece.replace("\0", '"') for piece in text.replace('""', "\0").split('"'))
    found.update(f"{_bare(name)}(" for name in _CALL.findall(text))
    found.update(f"::{_bare(name)}" for name in _CAST.findall(text))
    for run in set(_OPERATOR.findall(text)):
        found.update(run[a:b] for a in range(len(run)) for b in range(a + 1, min(len(run), a + _LONGEST_NAME) + 1))
    # What stands unquoted means its name in lower case.
    return frozenset(found | {each.lower() for each in found})


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def volatile(pg: Postgres, texts: Sequence[str]) -> list[str | None]:
    """For each text why running it may change what no transaction takes back; None where nothing that it calls may.

    Raises what the server says: ConnectionLost, NoAnswer, StatementFailed.
    """
    each = [words(text) | _UNSAID for text in texts]
    reached: dict[str, list[tuple[Reach, frozenset[str]]]] = {}
    new = set().union(*each)
    while new:
        reached |= {word: [] for word in new}
        rows = pg.fetch("plan_reach", Reach, {"words": sorted(word for word in new if "\0" not in word)})
        for row in rows:
            reached[row.word].append((row, words(row.text or "")))
        new = {word for row in rows for word in words(row.text or "")} - reached.keys()
    return [_why(text, said, reached) for text, said in zip(texts, each, strict=True)]


def _why(text: str, said: Iterable[str], reached: Mapping[str, Sequence[tuple[Reach, frozenset[str]]]]) -> str | None:
    if re.search(r'\bU&"', text, re.IGNORECASE):
        return 'it writes names with escapes (U&"…"), and what they call is not looked up'
    for row, way in _walk(said, reached):
        if row.function is not None:
            through = f" through {way}" if way else ""
            return f"it calls {row.function}{through}, which is volatile and may change something"
    return None


def _walk(
    said: Iterable[str], reached: Mapping[str, Sequence[tuple[Reach, frozenset[str]]]]
) -> Iterator[tuple[Reach, str]]:
    """All that the words lead to, the nearest first, each with what it is reached through."""
    seen = set(said)
    left = [(word, "") for word in sorted(seen)]
    for word, way in left:
        for row, further in reached.get(word, ()):
            yield row, way
            via = way or row.what or f"function {row.word.rstrip('(')}"
            left += [(each, via) for each in sorted(further - seen)]
            seen |= further
