"""``partitions_scanned``: at most so many partitions are read: ``partitions_scanned: 1``, or for one table.

::

    partitions_scanned: {table: public.events, most: 2}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import GENERIC, Node
from perfctl.explain.rule import (
    Evidence,
    Standard,
    Verdict,
    cannot_tell,
    counted,
    fails,
    figure,
    holds,
    human,
    mapping,
    text,
)


@dataclass(frozen=True, slots=True)
class PartitionsScanned(Standard):
    """More are a finding."""

    most: float
    table: str = "*"

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a number, or from ``table`` and ``most``."""
        if not isinstance(value, dict):
            return cls(figure(value, "a number, or {table: name, most: N}"))
        keys = mapping(value, frozenset({"table", "most"}), "a number, or {table: name, most: N}")
        return cls(figure(keys.get("most"), "most: N"), text(keys.get("table", "*"), "a table"))

    def judge(self, seen: Evidence) -> Verdict:
        """Counts the partitions that a scan reads; with actual figures those that were executed."""
        plan = seen.ran or seen.plan
        found: dict[str, set[str]] = {}
        first: dict[str, Node] = {}
        for node in plan.nodes():
            facts = seen.catalogue.tables.get(node.relation) if node.relation else None
            if facts is None or facts.root is None or node.loops == 0 or not seen.names(node.relation, self.table):
                continue
            found.setdefault(str(facts.root), set()).add(str(node.relation))
            first.setdefault(str(facts.root), node)
        if not found and not (plan.pruned and seen.angle != GENERIC):
            return seen.pruned_says() or cannot_tell("no partition of it is in the plan")
        for root, partitions in found.items():
            if len(partitions) > self.most:
                cure = "the condition has to be on the partition key, with its type"
                return fails(
                    f"{counted(len(partitions), 'partition')} of {root}, more than {human(self.most)}",
                    first[root],
                    cure,
                )
        return holds(counted(max(map(len, found.values()), default=0), "partition"))
