"""``:name``, ``:'name'`` and ``%(name)s`` in a statement, as the server wants them: numbered and typed. Pure.

What only looks like a placeholder is left alone: casts, array slices, strings, quoted names, comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: PostgreSQL's comments nest (https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-COMMENTS);
#: a regular expression takes as many levels as it is written for.
_FLAT = r"/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/"
_NESTED = rf"/\*(?:[^*/]|\*(?!/)|/(?!\*)|{_FLAT})*\*/"
_COMMENT = rf"--[^\n]*|/\*(?:[^*/]|\*(?!/)|/(?!\*)|{_NESTED})*\*/"

#: What can hold a colon, a percent sign or a semicolon without meaning one.
_QUOTED = rf"""
      (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$
    | (?P<comment>{_COMMENT})
"""
#: what may hold a line that looks like a head; an apostrophe in a line of psql's own begins no string
_SPAN = re.compile(rf"^[ \t]*\\[a-z!?][^\n]* | {_QUOTED}", re.VERBOSE | re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(
    rf"""
      (?<![\w\]):]):'(?P<quoted>[A-Za-z_]\w*)'
    | {_QUOTED}
    | :: | :=
    | (?<![\w\])'"]):(?P<colon>[A-Za-z_]\w*)
    | %\((?P<percent>[^()]+)\)[sbt](?!\w)
    | (?<![\w$])\$(?P<number>[1-9]\d*)
    | (?P<double>%%)
    | (?P<open>\[) | (?P<close>\])
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)

#: In brackets ``a[low :high]`` is a slice: there a colon behind a value parts two bounds.
_AFTER_VALUE = re.compile(r"(?:([A-Za-z_]\w*)|[\w\])'\"])\s*\Z")
_NO_VALUE = {"when", "then", "else", "and", "or", "not", "in", "like", "ilike", "between", "select", "limit", "offset"}

_FIELDS = "year|month|day|hour|minute|second"
#: Types whose name may stand before a constant, where the server takes no parameter: ``date $1`` is no SQL.
_CONSTANT = re.compile(
    rf"""
      {_QUOTED}
    | (?<![\w.])(?P<type>
        (?:timestamp|time)(?:\s*\(\d+\))?\s+with(?:out)?\s+time\s+zone | double\s+precision | character\s+varying
      | date | timestamptz | timestamp | timetz | time | interval | numeric | decimal | inet | cidr | macaddr | uuid
      | jsonb | json | xml | text | varchar | bpchar | bytea | boolean | bool | bigint | integer | smallint | int | int2
      | int4 | int8 | real | float4 | float8 | money | regclass | regtype | point | tstzrange | tsrange | daterange
      | int4range | int8range | numrange | tsvector | tsquery
      )\s+(?P<value>\$\d+)(?!\w)(?:\s+(?P<fields>(?:{_FIELDS})(?:\s+to\s+(?:{_FIELDS}))?)\b)?
    | (?<![\w.])extract\s*\(\s*(?P<field>\$\d+)\s+from\s+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A statement with ``$1`` … and the names that they stand for, in that order."""

    sql: str
    names: tuple[str, ...]


class BadText(ValueError):
    """Why a text is no statement of ours, in which of its lines, counted from 1, and what would mend it."""

    def __init__(self, message: str, line: int, hint: str | None = None) -> None:
        self.line = line
        self.hint = hint
        super().__init__(message)


def number(text: str, types: Mapping[str, str | None]) -> Numbered:
    """The one statement in ``text`` without its semicolon; a parameter becomes ``$1``, cast to its type where known.

    Text that has ``$1`` already, as pg_stat_statements keeps it, has parameters of those numbers. Raises BadText
    for more than one statement, for none, and for two notations in one text.
    """
    if "$" in text and any(token["number"] for token in _TOKEN.finditer(text)):
        text = as_sql(text)
    pieces: list[str] = []
    names: dict[str, int] = {}
    notation: str | None = None
    by_percent = "%(" in text and any(token["percent"] for token in _TOKEN.finditer(text))
    done, end, depth = 0, len(text), 0
    for token in _TOKEN.finditer(text):
        line = text.count("\n", 0, token.start()) + 1
        pieces.append(text[done : token.start()])
        done = token.end()
        if token["end"]:
            if _says_something(text[done:]):
                raise BadText("a second statement", line, 'each query begins with its own "-- name:"')
            end = token.start()
            break
        depth += bool(token["open"]) - bool(token["close"])
        found = _parameter(token)
        if found is None or (depth > 0 and found[0] == "colon" and _ends_in_value(text[: token.start()])):
            # The driver's own notation wants every percent sign twice, in strings too.
            pieces.append(token[0].replace("%%", "%") if by_percent else token[0])
            continue
        kind, name = found
        if notation not in (None, kind):
            raise BadText("parameters in two notations", line, "write all as :name, or all as %(name)s")
        notation = kind
        place = int(name) if kind == "number" else names.setdefault(name, len(names) + 1)
        names[name] = place
        type_name = types.get(name)
        pieces.append(f"CAST(${place} AS {type_name})" if type_name else f"${place}")
    pieces.append(text[done:end])
    sql = "".join(pieces).strip()
    if not _says_something(sql):
        raise BadText("no statement", max(1, text.count("\n")))
    by_place = {place: name for name, place in names.items()}
    ordered = tuple(by_place.get(place, str(place)) for place in range(1, max(by_place, default=0) + 1))
    return Numbered(sql, ordered)


def _parameter(token: re.Match[str]) -> tuple[str, str] | None:
    """Its notation and its name, where it is one; ``:'x'`` is psql's form of ``:x``."""
    if token["quoted"]:
        return "colon", token["quoted"]
    return next(((kind, token[kind]) for kind in ("colon", "percent", "number") if token[kind]), None)


def _ends_in_value(text: str) -> bool:
    found = _AFTER_VALUE.search(text)
    return found is not None and (found[1] or "").lower() not in _NO_VALUE


def as_sql(normalised: str) -> str:
    """Text as pg_stat_statements keeps it, made SQL again where a constant became a parameter that may not stand there.

    ``date $1`` becomes ``CAST($1 AS date)``, ``EXTRACT($1 FROM x)`` becomes ``date_part($1, x)``.
    """

    def mended(found: re.Match[str]) -> str:
        if found["type"]:
            return f"CAST({found['value']} AS {' '.join(filter(None, (found['type'], found['fields'])))})"
        if found["field"]:
            return f"pg_catalog.date_part(CAST({found['field']} AS text), "
        return found[0]

    return _CONSTANT.sub(mended, normalised)


def comments(text: str) -> Iterator[tuple[int, str]]:
    """The ``--`` comments of a statement, each with its line, counted from 1."""
    for token in _TOKEN.finditer(text) if "--" in text else ():
        if token["comment"] and token[0].startswith("--"):
            yield text.count("\n", 0, token.start()) + 1, token[0]


def inside(text: str) -> frozenset[int]:
    """The lines, counted from 0, that begin within a string, a quoted name or a comment of several lines."""
    found: set[int] = set()
    line, done = 0, 0
    for token in _SPAN.finditer(text):
        line += text.count("\n", done, token.start())
        below = token[0].count("\n")
        found.update(range(line + 1, line + below + 1))
        line, done = line + below, token.end()
    return frozenset(found)


def _says_something(text: str) -> bool:
    """True when there is more than space, comments and semicolons."""
    return bool(re.sub(rf"{_COMMENT}|[\s;]", "", text, flags=re.DOTALL))
