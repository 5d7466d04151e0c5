"""``no_seq_scan``: no table is read whole; or not that one; or none of more than so many pages.

::

    no_seq_scan: public.orders
    no_seq_scan: {over_pages: 1000}
    no_seq_scan: true
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import Node
from perfctl.explain.rule import Evidence, Standard, Verdict, fails, figure, holds, human, mapping, text

_READS_ALL = ("Seq Scan", "Sample Scan")


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
        for node in seen.plan.nodes():
            if not self._counts(node, seen):
                continue
            assert node.relation is not None
            if seen.is_small(node.relation):
                small = True
                if seen.served is None or not self._still(node, seen):
                    continue
                return fails(f"no index can serve {node.relation}", node, _cure(node))
            pages = seen.catalogue.tables[node.relation].pages if node.relation in seen.catalogue.tables else None
            size = f" of {human(pages)} pages" if pages is not None else ""
            return fails(f"{node.relation}{size} is read whole", node, _cure(node))
        return holds("too small here to choose an index; one can serve it" if small else "")

    def _counts(self, node: Node, seen: Evidence) -> bool:
        if node.type not in _READS_ALL or not seen.names(node.relation, self.table):
            return False
        facts = seen.catalogue.tables.get(node.relation) if node.relation else None
        return self.over_pages is None or facts is None or facts.pages > self.over_pages

    def _still(self, node: Node, seen: Evidence) -> bool:
        assert seen.served is not None
        return any(
            n.type in _READS_ALL and n.relation == node.relation and n.alias == node.alias for n in seen.served.nodes()
        )


def _cure(node: Node) -> str:
    condition = dict(node.conditions).get("Filter")
    return f"an index for {condition}" if condition else "it has no condition on the table: read less, or allow it"
