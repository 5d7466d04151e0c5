"""What a hot query's text says: the statement, its parameters, the values to try, the rules that it has to hold to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

#: the value set of a query that has parameters and names no set
DEFAULT_SET = "default"


class Kind(StrEnum):
    """What a statement does, as far as that bears on running it."""

    SELECT = "select"
    #: INSERT, UPDATE, DELETE, MERGE, a SELECT that locks rows or holds one of these
    WRITE = "write"
    #: CREATE TABLE AS, SELECT INTO, CREATE MATERIALIZED VIEW, DECLARE CURSOR, EXECUTE: EXPLAIN takes them
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; ``type`` is the SQL type that the application binds, None where the server is to infer it."""

    name: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class ValueSet:
    """Values to plan with, in their types' text form; None is NULL."""

    name: str
    values: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Expectation:
    """A rule as it is written, ``key: value``, and where; ``reason`` is why a query puts aside a rule of all."""

    key: str
    value: Any = None
    file: str = ""
    line: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is no usable query, and where."""

    name: str
    message: str
    file: str
    line: int
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class HotQuery:
    """One query that has to stay fast."""

    name: str
    #: one statement without its semicolon, its parameters as ``$1``, each cast to its type where that is known
    sql: str
    file: str
    #: where the statement begins, counted from 1
    line: int
    kind: Kind = Kind.SELECT
    purpose: str = ""
    #: in the order of ``$1``, ``$2``, …
    parameters: tuple[Parameter, ...] = ()
    sets: tuple[ValueSet, ...] = ()
    rules: tuple[Expectation, ...] = ()
    #: rules of all queries that this one puts aside, each with its reason
    overrides: tuple[Expectation, ...] = ()
    #: it stands in the configuration, where only the line of its name is known
    inline: bool = False

    def line_at(self, offset: int) -> int:
        """The line of the file that holds a character of ``sql``, counted from 0."""
        return self.line if self.inline else self.line + self.sql.count("\n", 0, max(0, offset))

    @property
    def index(self) -> str | None:
        """The index that its first ``uses_index`` names; None where it names none."""
        return next(
            (each.value for each in self.rules if each.key == "uses_index" and isinstance(each.value, str)), None
        )

    @property
    def why_not_run(self) -> str | None:
        """Why EXPLAIN ANALYZE must not run it; None for a plain SELECT.

        PostgreSQL creates the table of CREATE TABLE AS, SELECT INTO and CREATE MATERIALIZED VIEW under EXPLAIN ANALYZE
        also in a READ ONLY transaction (PreventCommandIfReadOnly is not asked, src/backend/commands/createas.c).
        """
        match self.kind:
            case Kind.WRITE:
                return "it writes or locks rows"
            case Kind.OTHER:
                return "it makes an object, and a read-only transaction does not keep EXPLAIN ANALYZE from that"
        return None

    def bound(self, values: ValueSet) -> tuple[str | None, ...]:
        """The values in the order of the parameters. Raises KeyError with the name of one that is missing."""
        return tuple(values.values[parameter.name] for parameter in self.parameters)


#: values for a query without parameters
NO_VALUES = ValueSet(DEFAULT_SET, MappingProxyType({}))
