"""``no_seq_scan``: no table is read whole; or not that one; or none of more than so many pages.

::

    no_seq_scan: public.orders
    no_seq_scan: {over_pages: 1000}
    no_seq_scan: true
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import Node, Relation
from perfctl.explain.rule import (
    Evidence,
    Standard,
    State,
    Verdict,
    cannot_tell,
    fails,
    figure,
    holds,
    human,
    mapping,
    narrows,
    text,
)

READS_ALL = ("Seq Scan", "Sample Scan")


@dataclass(frozen=True, slots=True)
class NoSeqScan(Standard):
    """Sequential scans are findings."""

    table: str = "*"
    over_pages: float | None = None
    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a table, from ``table`` and ``over_pages``, or from true for all."""
        if value is True:
            return cls()
        if isinstance(value, str):
            return cls(text(value, "a table"))
        keys = mapping(value, frozenset({"table", "over_pages"}), "a table, {over_pages: N}, or true")
        table = text(keys["table"], "a table") if "table" in keys else "*"
        return cls(table, figure(keys["over_pages"]) if "over_pages" in keys else None)

    def judge(self, seen: Evidence) -> Verdict:
        """A small table is looked at in the plan without sequential scans: what is still one there no index serves."""
        small = False
        unsure: Verdict | None = None
        whole = [n for n in seen.plan.nodes() if n.type in READS_ALL and seen.names(n.relation, self.table)]
        relations = {node.relation for node in whole if node.relation}
        for node in whole:
            assert node.relation is not None
            pages = seen.pages(node.relation, relations)
            if self.over_pages is not None and pages is not None and pages <= self.over_pages:
                continue
            if seen.is_small(node.relation, relations):
                small = True
                found = _served(node, seen)
                if found is not None and found.state is State.FAILS:
                    return found
                unsure = unsure or found
                continue
            return fails(_whole(node.relation, relations, pages, seen), node, _cure(node))
        unsure = unsure or seen.pruned_says(self.table) or self._unknown(seen)
        return unsure or holds("too small here to choose an index; one can serve it" if small else "")

    def _unknown(self, seen: Evidence) -> Verdict | None:
        """A misspelled table would hold for good."""
        if any(seen.names(each, self.table) for each in {*seen.catalogue.tables, *seen.plan.relations}):
            return None
        return cannot_tell(f'no such table in the plan: "{self.table}"') if self.table != "*" else None


def _whole(relation: Relation, among: set[Relation], pages: int | None, seen: Evidence) -> str:
    table = seen.table_of(relation)
    same = [each for each in among if seen.table_of(each) == table]
    size = f" of {human(pages)} pages" if pages is not None else ""
    if len(same) > 1:
        return f"{human(len(same))} partitions of {table}{f',{size[3:]},' if size else ''} are read whole"
    return f"{relation}{size} is read whole"


def _served(node: Node, seen: Evidence) -> Verdict | None:
    """What the plan without sequential scans says of a small table's scan; None where an index serves it."""
    if seen.served is None:
        return cannot_tell(f"{node.relation} is too small here to choose an index, and no other plan came")
    for other in seen.served.nodes():
        if (other.relation, other.alias) != (node.relation, node.alias):
            continue
        if other.type in READS_ALL:
            return fails(f"no index can serve {node.relation}", node, _cure(node))
        if "Filter" in dict(other.conditions) and other.type.startswith("Index") and not narrows(other):
            # It gives an order or has all columns; what is asked for is not what it finds rows by.
            return cannot_tell(f"{node.relation} is too small here; {other} would read it whole")
    return None


def _cure(node: Node) -> str:
    condition = dict(node.conditions).get("Filter")
    return f"an index for {condition}" if condition else "it has no condition on the table: read less, or allow it"
