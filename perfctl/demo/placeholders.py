"""``:name`` in a statement, as the driver wants it: typed, and told apart from what only looks like it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: What can hold a colon or a semicolon without meaning one comes first: strings, names, comments, casts.
_TOKEN = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$
    | --[^\n]* | /\*.*?\*/
    | :: | :=
    | :(?P<name>[A-Za-z_]\w*)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)


class BadText(ValueError):
    """Why a text is no statement of ours, and in which of its lines, counted from 1."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(message)


def bind(text: str, types: Mapping[str, str]) -> str:
    """The one statement in ``text`` without its semicolon; ``:name`` becomes ``CAST(%(name)s AS type)``.

    A percent sign is doubled, as the driver's own notation wants. Raises BadText when there is not exactly one
    statement, or when its parameters are not those of ``types`` in the order of their first use.
    """
    pieces: list[str] = []
    used: dict[str, None] = {}
    done, ended = 0, False
    for token in _TOKEN.finditer(text):
        line = text.count("\n", 0, token.start()) + 1
        pieces.append(text[done : token.start()].replace("%", "%%"))
        done = token.end()
        if token["end"]:
            if ended or text[done:].strip():
                raise BadText("a file holds one statement, and nothing after its semicolon", line)
            ended = True
        elif (name := token["name"]) is not None:
            if name not in types:
                raise BadText(f'parameter "{name}" has no "-- param:" line', line)
            used[name] = None
            pieces.append(f"CAST(%({name})s AS {types[name]})")
        else:
            pieces.append(token[0].replace("%", "%%"))
    if not ended:
        raise BadText("the statement does not end in a semicolon", text.rstrip().count("\n") + 1)
    if [*used] != [*types]:
        raise BadText(
            f"the header names {', '.join(types) or 'no parameters'}, used are {', '.join(used) or 'none'}", 1
        )
    return "".join(pieces).strip()
