"""``${VAR}``, ``${VAR:-default}``, ``${VAR:?message}`` and ``$$`` in one text. No YAML, no files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_START = re.compile(r"\$\$|\$\{|\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-|:\?|\})")


class Expanded(str):
    """Text that came out of a ``${…}``: it may stand for a number or for true and false as well."""

    __slots__ = ()


@dataclass(slots=True, repr=False)
class Expansion:
    """What one text expands to, and what has to be said about it."""

    text: str = ""
    #: variables whose value is part of the text
    used: list[str] = field(default_factory=list)
    #: variables that are set, but empty, where the text does not allow for that with ``:-``
    empty: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    has_reference: bool = False


def expand(text: str, environ: Mapping[str, str]) -> Expansion:
    """The text with every reference replaced; what could not be replaced is listed in ``problems``."""
    out = Expansion()
    out.text, _ = _scan(text, 0, environ, out, nested=False)
    return out


def _scan(text: str, at: int, environ: Mapping[str, str], out: Expansion, *, nested: bool) -> tuple[str, int]:
    """Expanded text from ``at`` to the end, or to the brace that closes a default, and where that was."""
    parts: list[str] = []
    while found := _START.search(text, at):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[0] == "$$":
            parts.append("$")
        elif found[0] == "}":
            if nested:
                return "".join(parts), at
            parts.append("}")
        else:
            value, at = _reference(text, at, environ, out)
            parts.append(value)
    if nested:
        out.problems.append('"${" is not closed by "}"')
    return "".join((*parts, text[at:])), len(text)


def _reference(text: str, at: int, environ: Mapping[str, str], out: Expansion) -> tuple[str, int]:
    out.has_reference = True
    found = _NAME.match(text, at)
    if found is None:
        out.problems.append('"${" has to be followed by NAME}, NAME:-default} or NAME:?message}; a plain "$" is "$$"')
        return "", len(text)
    name, operator = found.groups()
    value = environ.get(name)
    if operator == "}":
        _note(name, value, out)
        return value or "", found.end()
    # The default is read even when it is not used: its closing brace has to be found.
    inner = Expansion()
    other, end = _scan(text, found.end(), environ, inner, nested=True)
    if value:
        out.used.append(name)
        return value, end
    out.used += inner.used
    out.problems += inner.problems
    if operator == ":?":
        out.problems.append(f'environment variable "{name}" is not set: {other or "it is required"}')
        return "", end
    out.empty += inner.empty
    return other, end


def _note(name: str, value: str | None, out: Expansion) -> None:
    if value is None:
        out.problems.append(f'environment variable "{name}" is not set')
        return
    out.used.append(name)
    if not value:
        out.empty.append(name)
