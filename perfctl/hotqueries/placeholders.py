"""``:name`` and ``%(name)s`` in a statement, as the server wants them: numbered and typed. Pure.

What only looks like a placeholder is left alone: casts, array slices, strings, quoted names, comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: What can hold a colon, a percent sign or a semicolon without meaning one comes first.
_TOKEN = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$
    | --[^\n]* | /\*.*?\*/
    | :: | :=
    | (?<![\w\])]):(?P<colon>[A-Za-z_]\w*)
    | %\((?P<percent>[^()]+)\)[sbt]
    | (?<!\w)\$(?P<number>[1-9]\d*)
    | (?P<double>%%)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)

#: Types whose name may stand before a constant, where the server takes no parameter: ``date $1`` is no SQL.
_PREFIX_TYPE = re.compile(
    r"\b(date|timestamptz|timestamp|timetz|time|interval|numeric|inet|uuid)\s+(\$\d+)(?!\w)", re.IGNORECASE
)
_EXTRACT = re.compile(r"\bextract\s*\(\s*(\$\d+)\s+from\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A statement with ``$1`` … and the names that they stand for, in that order."""

    sql: str
    names: tuple[str, ...]


class BadText(ValueError):
    """Why a text is no statement of ours, and in which of its lines, counted from 1."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(message)


def number(text: str, types: Mapping[str, str | None]) -> Numbered:
    """The one statement in ``text`` without its semicolon; a parameter becomes ``$1``, cast to its type where known.

    Text that has ``$1`` already, as pg_stat_statements keeps it, has parameters of those numbers. Raises BadText
    for more than one statement, for none, and for two notations in one text.
    """
    pieces: list[str] = []
    names: dict[str, int] = {}
    seen: dict[str, int] = {}
    by_percent = any(token["percent"] for token in _TOKEN.finditer(text))
    done, end = 0, len(text)
    for token in _TOKEN.finditer(text):
        line = text.count("\n", 0, token.start()) + 1
        pieces.append(text[done : token.start()])
        done = token.end()
        if token["end"]:
            if _says_something(text[done:]):
                raise BadText("a second statement", line)
            end = token.start()
            break
        kind = next((each for each in ("colon", "percent", "number") if token[each]), None)
        if kind is None:
            # The driver's own notation wants every percent sign twice, in strings too.
            pieces.append(token[0].replace("%%", "%") if by_percent else token[0])
            continue
        seen.setdefault(kind, line)
        if len(seen) > 1:
            raise BadText("parameters in two notations", line)
        name = token[kind]
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
    return Numbered(as_sql(sql) if "number" in seen else sql, ordered)


def as_sql(normalised: str) -> str:
    """Text as pg_stat_statements keeps it, made SQL again where a constant became a parameter that may not stand there.

    ``date $1`` becomes ``CAST($1 AS date)``, ``EXTRACT($1 FROM x)`` becomes ``date_part($1, x)``.
    """
    typed = _PREFIX_TYPE.sub(lambda found: f"CAST({found[2]} AS {found[1]})", normalised)
    return _EXTRACT.sub(lambda found: f"pg_catalog.date_part(CAST({found[1]} AS text), ", typed)


def _says_something(text: str) -> bool:
    """True when there is more than space, comments and semicolons."""
    return bool(re.sub(r"--[^\n]*|/\*.*?\*/|[\s;]", "", text, flags=re.DOTALL))
