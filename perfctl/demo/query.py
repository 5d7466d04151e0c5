"""A hot query as its file describes it: header, parameters, statement. Pure but for ``load``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perfctl.demo.placeholders import BadText, bind
from perfctl.errors import UsageError

_NAME = re.compile(r"-- name: ([a-z_][a-z0-9_]*)")
_PURPOSE = re.compile(r"-- (?!name:|param:|index:)(\S.*)")
_PARAMETER = re.compile(
    r"-- param: (?P<name>[a-z_][a-z0-9_]*) (?P<type>[a-z][a-z0-9_ ]*(?:\(\d+(?:, ?\d+)?\))?(?:\[\])*)"
    r" = (?:'(?P<text>(?:[^']|'')*)'|(?P<word>-?\d+(?:\.\d+)?|true|false))"
)
_INDEX = re.compile(r"-- index: ([a-z_][a-z0-9_$]*)")


class BadQuery(UsageError):
    """the query file is not usable"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its SQL type, and a sample value in that type's text form."""

    name: str
    type: str
    sample: str


@dataclass(frozen=True, slots=True)
class HotQuery:
    """One query that has to be fast, and the index that makes it so."""

    name: str
    purpose: str
    parameters: tuple[Parameter, ...]
    index: str
    #: for the driver: each ``:name`` as ``CAST(%(name)s AS type)``
    statement: str

    @property
    def samples(self) -> Mapping[str, str]:
        """The parameters' sample values."""
        return {parameter.name: parameter.sample for parameter in self.parameters}


def load(folder: Path) -> tuple[HotQuery, ...]:
    """The queries of a folder, by name. Raises BadQuery with file and line."""
    try:
        files = sorted(folder.glob("*.sql"))
        return tuple(parse(file.read_text(encoding="utf-8"), file.stem, str(file)) for file in files)
    except (OSError, UnicodeDecodeError) as error:
        raise BadQuery(f'"{folder}" cannot be read: {error}') from error


def parse(text: str, stem: str, path: str = "") -> HotQuery:
    """The query in a file's text; ``stem`` is the file's name. Raises BadQuery.

    The header is strict, because a line that is passed over would be a parameter or a promise that nobody tests.
    """
    lines = text.splitlines()
    place = path or f"{stem}.sql"

    def expect(number: int, form: re.Pattern[str], what: str) -> re.Match[str]:
        line = lines[number] if number < len(lines) else ""
        if found := form.fullmatch(line.rstrip()):
            return found
        raise BadQuery(f"{place}:{number + 1}: error: {what} is expected here", hint="sql/README.md shows the header")

    name = expect(0, _NAME, '"-- name: …"')[1]
    if name != stem:
        raise BadQuery(f'{place}:1: error: the name "{name}" is not the file\'s')
    purpose = expect(1, _PURPOSE, "one line of purpose")[1]
    number, parameters = 2, []
    while number < len(lines) and lines[number].startswith("-- param:"):
        parameters.append(_parameter(expect(number, _PARAMETER, '"-- param: name type = sample"')))
        number += 1
    index = expect(number, _INDEX, '"-- index: …"')[1]
    try:
        statement = bind("\n".join(lines[number + 1 :]), {each.name: each.type for each in parameters})
    except BadText as error:
        raise BadQuery(f"{place}:{number + 1 + error.line}: error: {error}") from None
    return HotQuery(name, purpose, tuple(parameters), index, statement)


def _parameter(found: re.Match[str]) -> Parameter:
    text = found["text"]
    return Parameter(found["name"], found["type"], found["word"] if text is None else text.replace("''", "'"))
