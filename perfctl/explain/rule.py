"""What every rule has in common: what it is given, what it answers. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Protocol, Self

from perfctl.explain.model import Catalogue, Node, Plan, Relation

#: A table of so few pages is read whole whatever indexes there are; a table that was never vacuumed counts as ten
#: (estimate_rel_size, src/backend/optimizer/util/plancat.c).
SMALL_PAGES = 10


_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m)")
_UNITS_MS = {"ms": 1.0, "s": 1000.0, "min": 60_000.0, "m": 60_000.0}


class BadRule(ValueError):
    """Why a rule's value means nothing."""


class State(StrEnum):
    """What a rule finds."""

    HOLDS = "holds"
    FAILS = "fails"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule finds in one plan: what it saw, in which part of the plan, and what mends it."""

    state: State
    saw: str = ""
    part: Node | None = None
    cure: str | None = None
    #: whatever the planner chose, it would be so
    certain: bool = False


HOLDS = Verdict(State.HOLDS)


def holds(saw: str = "") -> Verdict:
    """The rule holds."""
    return Verdict(State.HOLDS, saw)


def fails(saw: str, part: Node | None = None, cure: str | None = None, *, certain: bool = False) -> Verdict:
    """The rule does not hold; ``certain`` where no other choice of the planner would change that."""
    return Verdict(State.FAILS, saw, part, cure, certain)


def cannot_tell(why: str) -> Verdict:
    """What there is to see does not decide it."""
    return Verdict(State.CANNOT_TELL, why)


NOT_RUN = cannot_tell("it takes a run: say --analyze")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of one query from one angle: with one set of values, or as the generic plan."""

    angle: str
    plan: Plan
    catalogue: Catalogue
    #: run by EXPLAIN ANALYZE
    ran: Plan | None = None
    #: why it was not run although that was asked for
    why_not_run: str | None = None
    #: milliseconds after which a run was ended by its time-out
    ended_after_ms: float | None = None
    #: the plan without sequential scans, where a table is too small for one to mean anything
    served: Plan | None = None
    #: the plan for any value; of a query without parameters its only plan
    generic: Plan | None = None

    def table_of(self, relation: Relation) -> Relation:
        """The partitioned table at the top of a partition, else the table itself."""
        facts = self.catalogue.tables.get(relation)
        return (facts.root if facts else None) or relation

    def pages(self, relation: Relation, among: Iterable[Relation]) -> int | None:
        """Its pages; of a partition those of all partitions of its table ``among`` some; None where nobody knows."""
        table = self.table_of(relation)
        facts = [self.catalogue.tables.get(each) for each in {*among, relation} if self.table_of(each) == table]
        return None if None in facts else sum(each.pages for each in facts if each)

    def is_small(self, relation: Relation, among: Iterable[Relation] | None = None) -> bool:
        """The table is empty, or so small that it is read whole in any case.

        Of a partition all partitions of its table count that are ``among`` some, those that the plan reads where none
        are given: two hundred of a few pages each are no small table.
        """
        pages = self.pages(relation, self.plan.relations if among is None else among)
        return pages is not None and pages <= SMALL_PAGES

    @property
    def small(self) -> list[Relation]:
        """The small tables of the plan."""
        return sorted(relation for relation in self.plan.relations if self.is_small(relation))

    def small_says(self) -> Verdict | None:
        """The answer of a rule about figures where tables are too small for them: it cannot tell.

        That is where all are small, partitions taken together, or one is empty; a lookup table of a page beside
        large ones is what it is in production too.
        """
        pages: dict[Relation, int] = {}
        for relation in self.plan.relations:
            facts = self.catalogue.tables.get(relation)
            if facts is None:
                return None
            table = facts.root or relation
            pages[table] = pages.get(table, 0) + facts.pages
        empty = [table for table, size in pages.items() if size == 0]
        few = empty if pages and max(pages.values()) > SMALL_PAGES else pages
        words = ", ".join(f"{table} ({counted(pages[table], 'page')})" for table in sorted(few))
        return cannot_tell(f"too small here to tell: {words}") if few else None

    def pruned_says(self, wanted: str = "*") -> Verdict | None:
        """The answer of a rule about what is read where only values decide that; None where such a table is read."""
        if not self.plan.pruned or any(self.names(node.relation, wanted) for node in self.plan.nodes()):
            return None
        return self.values_decide()

    def values_decide(self) -> Verdict:
        """The answer where partitions are not shown because the values at the start put them aside."""
        return cannot_tell(f"{counted(self.plan.pruned, 'partition')} pruned as the plan is started: values decide")

    def names(self, relation: Relation | None, wanted: str) -> bool:
        """The relation, or the partitioned table above it, is called so: ``table`` or ``schema.table``, a glob too."""
        if relation is None:
            return False
        facts = self.catalogue.tables.get(relation)
        above = [facts.root] if facts and facts.root else []
        return any(fnmatchcase(str(r), wanted) or fnmatchcase(r.name, wanted) for r in (relation, *above))

    def run_says(self) -> Verdict:
        """The answer of a rule that takes a run where there was none."""
        return cannot_tell(f"not run: {self.why_not_run}") if self.why_not_run else NOT_RUN


class Rule(Protocol):
    """One expectation."""

    #: it needs EXPLAIN ANALYZE
    takes_a_run: bool
    #: what it says depends on the planner's choice, so a tie of two plans may decide it
    may_tie: bool
    #: it compares the generic plan with the others, so of itself that one says nothing
    takes_generic: bool

    @classmethod
    def read(cls, value: Any) -> Self:
        """The rule that a value in YAML stands for. Raises BadRule."""
        ...

    def judge(self, seen: Evidence) -> Verdict:
        """What it finds."""
        ...


class Standard:
    """What most rules are."""

    takes_a_run = False
    may_tie = False
    takes_generic = False


@dataclass(frozen=True, slots=True)
class Ceiling(Standard):
    """A figure that must not be higher."""

    most: float

    @classmethod
    def read(cls, value: Any) -> Self:
        """From the most that is allowed."""
        return cls(figure(value))


def text(value: Any, what: str) -> str:
    """A value that has to be text, without the space around it. Raises BadRule."""
    if not isinstance(value, str) or not value.strip():
        raise BadRule(f"expected {what}")
    return value.strip()


def mapping(value: Any, keys: frozenset[str], what: str) -> Mapping[str, Any]:
    """A value that has to be keys with values, all of them known. Raises BadRule."""
    if not isinstance(value, Mapping) or not value:
        raise BadRule(f"expected {what}")
    if strange := sorted(set(value) - keys):
        raise BadRule(f'unknown key "{strange[0]}"; known: {", ".join(sorted(keys))}')
    return value


def figure(value: Any, what: str = "a number") -> float:
    """A value that has to be a finite number of at least 0; YAML takes 1e6 for text. Raises BadRule."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?[eE]\+?\d+", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or not math.isfinite(value):
        raise BadRule(f"expected {what}")
    return float(value)


def bounds(value: Any) -> tuple[float, float]:
    """``1..100``, ``..100``, ``5..`` or one number, as lowest and highest. Raises BadRule."""
    what = "a range such as 1..100, ..100 or 5.."
    if isinstance(value, (int, float)):
        return figure(value, what), figure(value, what)
    low, dots, high = (part.strip() for part in str(value).partition(".."))
    if not dots or not (low or high) or not all(_DIGITS.fullmatch(end) for end in (low, high) if end):
        raise BadRule(f"expected {what}")
    found = float(low or 0), float(high or "inf")
    if found[0] > found[1]:
        raise BadRule(f"expected {what}")
    return found


def duration_ms(value: Any) -> float:
    """``200ms`` or ``1.5s`` in milliseconds. Raises BadRule."""
    what = "a duration such as 200ms or 2s"
    found = _DURATION.fullmatch(text(value, what))
    if found is None:
        raise BadRule(f"expected {what}")
    return float(found[1]) * _UNITS_MS[found[2]]


def human(number: float) -> str:
    """A figure as people read it: 1,234 or 12.5."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.2f}".rstrip("0").rstrip(".")


def counted(number: float, what: str) -> str:
    """``1 page``, ``2 pages``."""
    return f"{human(number)} {what}{'' if number == 1 else 's'}"


def narrows(node: Node) -> bool:
    """An index scan finds its rows by a condition, or comes by the nearest first; another one reads the whole index."""
    return any(key in ("Index Cond", "Order By") for key, _ in node.conditions)


def heaviest(nodes: Sequence[Node], key: Callable[[Node], float]) -> Node:
    """The node with the largest figure, the first of several. Raises ValueError for no nodes."""
    return max(nodes, key=key)


def heaviest_scan(plan: Plan, key: Callable[[Node], float]) -> Node:
    """The scan with the largest figure; the root of a plan that scans nothing."""
    return heaviest([node for node in plan.nodes() if node.is_scan] or [plan.root], key)
