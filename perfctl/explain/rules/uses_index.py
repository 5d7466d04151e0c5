"""``uses_index``: an index is read: by name, by a glob, or any that leads with a column.

::

    uses_index: idx_orders_user
    uses_index: idx_orders_*
    uses_index: {leading: user_id, table: public.orders}
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Self

from perfctl.explain.model import IndexFacts, Node, Plan, Relation
from perfctl.explain.rule import BadRule, Evidence, Standard, Verdict, cannot_tell, fails, holds, mapping, text


@dataclass(frozen=True, slots=True)
class UsesIndex(Standard):
    """Some scan reads an index of that kind."""

    name: str | None = None
    leading: str | None = None
    table: str | None = None
    may_tie = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a name or a glob, or from ``leading``, ``name`` and ``table``."""
        if isinstance(value, str):
            return cls(name=text(value, "an index"))
        keys = mapping(value, frozenset({"name", "leading", "table"}), "an index's name, or {leading: column}")
        found = {key: text(each, f"text for {key}") for key, each in keys.items()}
        if "name" not in found and "leading" not in found:
            raise BadRule("expected name or leading")
        return cls(**found)

    def judge(self, seen: Evidence) -> Verdict:
        """Looks at the plan; for a table that is too small, at the one without sequential scans."""
        fitting = [index for index in seen.catalogue.indexes if self._fits(index, seen)]
        if found := self._used(seen.plan, fitting):
            return holds(str(found))
        scanned = {node.relation for node in seen.plan.nodes() if node.relation}
        if not scanned & {index.relation for index in fitting}:
            if seen.plan.pruned and (fitting or not scanned):
                return seen.values_decide()
            if not scanned:
                return cannot_tell("the plan reads no table")
        if not fitting:
            cure = "perfctl indexes apply"
            return fails(f"there is no {self}", self._instead(seen.plan, fitting), cure, certain=True)
        if not any(index.is_usable for index in fitting):
            cure = "perfctl indexes apply"
            return fails(f"{self} is not valid", self._instead(seen.plan, fitting), cure, certain=True)
        of_small = [index for index in fitting if index.relation in scanned and seen.is_small(index.relation)]
        if of_small:
            if seen.served is None:
                return cannot_tell(f"too small here to choose {self}, and no other plan came")
            if found := self._used(seen.served, of_small):
                return holds(f"too small here to choose it; an index can serve it: {found}")
            instead = self._instead(seen.served, of_small)
            if instead is not None and instead.type not in ("Seq Scan", "Sample Scan"):
                # Which of several indexes is the best one is what the missing rows would decide.
                return cannot_tell(f"too small here to choose {self}; another index serves it: {instead}")
            return fails(f"no scan can use {self}, also without sequential scans", instead, _cure(instead))
        instead = self._instead(seen.plan, fitting)
        saw = f"{self} is not used" + (f"; instead: {instead}" if instead else "")
        return fails(saw, instead, _cure(instead))

    def _fits(self, index: IndexFacts, seen: Evidence) -> bool:
        if self.name is not None and not self._is_called(index):
            return False
        if self.table is not None and not seen.names(index.relation, self.table):
            return False
        return self.leading is None or index.keys[:1] == [self.leading]

    def _is_called(self, index: IndexFacts) -> bool:
        name = self.name or ""
        names = (index.name, f"{index.schema}.{index.name}", index.part_of or index.name)
        # Most rules name one index, and a glob is looked at by a slower way.
        return name in names or (not name.isidentifier() and any(fnmatchcase(each, name) for each in names))

    def _used(self, plan: Plan, fitting: list[IndexFacts]) -> Node | None:
        wanted = {(index.relation, index.name) for index in fitting}
        return next((node for node in plan.nodes() if node.index and (node.relation, node.index) in wanted), None)

    def _instead(self, plan: Plan, fitting: list[IndexFacts]) -> Node | None:
        """How the tables of the index are read, or any table where there is no such index."""
        tables: set[Relation] = {index.relation for index in fitting}
        scans = [n for n in plan.nodes() if n.relation and n.type != "Bitmap Index Scan"]
        return next((n for n in scans if n.relation in tables), next(iter(scans), None))

    def __str__(self) -> str:
        words = f'index "{self.name}"' if self.name else f"index that leads with {self.leading}"
        return words + (f" on {self.table}" if self.table else "")


def _cure(instead: Node | None) -> str | None:
    if instead is None:
        return None
    conditions = dict(instead.conditions)
    condition = conditions.get("Filter") or conditions.get("Index Cond")
    return f"does the index fit what is asked for, {condition}, with the type that is bound?" if condition else None
