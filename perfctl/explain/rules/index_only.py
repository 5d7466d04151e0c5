"""``index_only``: tables are read from their indexes alone: ``index_only: true``, or ``index_only: public.orders``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.rule import HOLDS, Evidence, Standard, Verdict, cannot_tell, fails, text


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
        """The first scan that looks into the table; for small tables in the plan without sequential scans."""
        plan = seen.served or seen.plan
        scans = [node for node in plan.nodes() if seen.names(node.relation, self.table)]
        for node in scans:
            if node.type != "Index Only Scan":
                cure = "INCLUDE the columns that it gives, and VACUUM the table"
                return fails(f"{node.relation} is read by {node.type}", node, cure)
        return HOLDS if scans else cannot_tell("no such table is in the plan")
