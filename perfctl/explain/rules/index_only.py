"""``index_only``: tables are read from their indexes alone: ``index_only: true``, or ``index_only: public.orders``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import Node
from perfctl.explain.rule import HOLDS, Evidence, Standard, Verdict, cannot_tell, fails, holds, text


@dataclass(frozen=True, slots=True)
class IndexOnly(Standard):
    """Any other scan of the table is a finding."""

    table: str = "*"
    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From true, or a table."""
        return cls() if value is True else cls(text(value, "true, or a table"))

    def judge(self, seen: Evidence) -> Verdict:
        """The first scan that looks into a table; into a small one, also in the plan without sequential scans."""
        scans = [node for node in seen.plan.nodes() if seen.names(node.relation, self.table)]
        others = [node for node in scans if node.type != "Index Only Scan"]
        relations = {node.relation for node in others if node.relation}
        for node in others:
            assert node.relation is not None
            if not seen.is_small(node.relation, relations):
                cure = "INCLUDE the columns that it gives, and VACUUM the table"
                return fails(f"{node.relation} is read by {node.type}", node, cure)
        unsure = [node for node in others if not _served(node, seen)]
        if unsure:
            return cannot_tell(f"{unsure[0].relation} is too small here for its index alone to be chosen")
        if others:
            return holds("too small here to choose it; an index alone can serve it")
        return HOLDS if scans else seen.pruned_says() or cannot_tell("no such table is in the plan")


def _served(node: Node, seen: Evidence) -> bool:
    """The same scan is one of the index alone in the plan without sequential scans."""
    if seen.served is None:
        return False
    same = [n.type for n in seen.served.nodes() if (n.relation, n.alias) == (node.relation, node.alias)]
    return bool(same) and set(same) == {"Index Only Scan"}
