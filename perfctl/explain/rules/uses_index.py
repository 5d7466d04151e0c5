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
from perfctl.explain.rule import (
    BadRule,
    Evidence,
    Standard,
    Verdict,
    cannot_tell,
    counted,
    fails,
    holds,
    mapping,
    narrows,
    text,
)


@dataclass(frozen=True, slots=True)
class UsesIndex(Standard):
    """Some scan reads an index of that kind; of a partitioned table each partition that is read is read by one."""

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
        used = self._used(seen.plan, fitting)
        lacking = self._lacking(seen, fitting, used)
        if used and not lacking:
            return holds(str(next(iter(used.values()))))
        scanned = {node.relation for node in seen.plan.nodes() if node.relation}
        if not scanned & {index.relation for index in fitting}:
            if seen.plan.pruned and (fitting or not scanned):
                return seen.values_decide()
            if not scanned:
                return cannot_tell("the plan reads no table")
        if not fitting:
            return fails(f"there is no {self}", self._instead(seen.plan, set()), self._missing(), certain=True)
        relations = lacking or {index.relation for index in fitting}
        if not any(index.is_usable for index in fitting):
            cure = "perfctl indexes apply"
            return fails(f"{self} is not valid", self._instead(seen.plan, relations), cure, certain=True)
        small = {each for each in relations & scanned if seen.is_small(each, lacking or scanned)}
        if small:
            return self._served(seen, fitting, used, small)
        instead = self._instead(seen.plan, relations)
        saw = f"{self} is not used" + (f" for {counted(len(lacking), 'partition')}" if lacking else "")
        return fails(saw + (f"; instead: {instead}" if instead else ""), instead, _cure(instead))

    def _served(
        self, seen: Evidence, fitting: list[IndexFacts], used: dict[Relation, Node], small: set[Relation]
    ) -> Verdict:
        """What the plan without sequential scans says of small tables."""
        if seen.served is None:
            return cannot_tell(f"too small here to choose {self}, and no other plan came")
        found = self._used(seen.served, [index for index in fitting if index.relation in small])
        if found and not self._lacking(seen, fitting, {**used, **found}):
            first = next(iter(found.values()))
            if whole := next((node for node in found.values() if self._reads_all(node, fitting, seen)), None):
                # It has all columns or gives an order; what is asked for is not what it finds rows by.
                return cannot_tell(f"too small here to choose {self}; {whole} would read it whole")
            return holds(f"too small here to choose it; an index can serve it: {first}")
        instead = self._instead(seen.served, small - found.keys())
        if instead is not None and instead.type not in ("Seq Scan", "Sample Scan"):
            # Which of several indexes is the best one is what the missing rows would decide.
            return cannot_tell(f"too small here to choose {self}; another index serves it: {instead}")
        return fails(f"no scan can use {self}, also without sequential scans", instead, _cure(instead))

    def _reads_all(self, node: Node, fitting: list[IndexFacts], seen: Evidence) -> bool:
        """The whole of a table's index is read: not one of some rows only, nor in its order up to a LIMIT."""
        assert seen.served is not None
        if narrows(node) or any(i.name == node.index and " WHERE " in i.definition for i in fitting):
            return False
        kinds = {each.type for each in seen.served.nodes()}
        stops = "Limit" in kinds and not kinds & {"Sort", "Incremental Sort"}
        return "Filter" in dict(node.conditions) or not stops

    def _lacking(self, seen: Evidence, fitting: list[IndexFacts], used: dict[Relation, Node]) -> set[Relation]:
        """The partitions read otherwise of a table of which others are read by the index.

        None where one table is read by it as it is wanted, nor where a single partition's index is what is named.
        """
        wanted = {i.name for i in fitting if self.name is None or (i.part_of and self._called(i.part_of))}
        lacking: list[set[Relation]] = []
        for table in {seen.table_of(each): None for each in used}:
            parts = {each for each in seen.plan.relations if seen.table_of(each) == table}
            by = {node.index for relation, node in used.items() if relation in parts}
            lacking.append(parts - used.keys() if by <= wanted else set())
        return min(lacking, key=len, default=set())

    def _fits(self, index: IndexFacts, seen: Evidence) -> bool:
        if self.name is not None and not self._is_called(index):
            return False
        if self.table is not None and not seen.names(index.relation, self.table):
            return False
        return self.leading is None or [_plain(key) for key in index.keys[:1]] == [_plain(self.leading)]

    def _is_called(self, index: IndexFacts) -> bool:
        return any(map(self._called, (index.name, f"{index.schema}.{index.name}", index.part_of or index.name)))

    def _called(self, name: str) -> bool:
        wanted = self.name or ""
        # Most rules name one index, and a glob is looked at by a slower way.
        return name == wanted or (not wanted.isidentifier() and fnmatchcase(name, wanted))

    def _used(self, plan: Plan, fitting: list[IndexFacts]) -> dict[Relation, Node]:
        """By table, the first scan of such an index."""
        wanted = {(index.relation, index.name) for index in fitting}
        found: dict[Relation, Node] = {}
        for node in plan.nodes():
            if node.index and node.relation and (node.relation, node.index) in wanted:
                found.setdefault(node.relation, node)
        return found

    def _instead(self, plan: Plan, tables: set[Relation]) -> Node | None:
        """How these tables are read, or any table where none of them is."""
        scans = [n for n in plan.nodes() if n.relation and n.type != "Bitmap Index Scan"]
        return next((n for n in scans if n.relation in tables), next(iter(scans), None))

    def _missing(self) -> str:
        """An index of a name is declared somewhere; one that leads with a column may have to be thought of first."""
        if self.name is not None or self.leading is None:
            return "perfctl indexes apply"
        table = self.table if self.table and "*" not in self.table else "…"
        return f"CREATE INDEX CONCURRENTLY ON {table} ({self.leading})"

    def __str__(self) -> str:
        words = f'index "{self.name}"' if self.name else f"index that leads with {self.leading}"
        return words + (f" on {self.table}" if self.table else "")


def _plain(key: str) -> str:
    """A key without parentheses around the whole, nor quotes around a name: as people and PostgreSQL write it."""
    key = " ".join(key.split())
    while key.startswith("(") and _closes(key) == len(key) - 1:
        key = key[1:-1].strip()
    inner = key[1:-1]
    return inner.replace('""', '"') if key[:1] == key[-1:] == '"' and '"' not in inner.replace('""', "") else key


def _closes(key: str) -> int:
    """Where the first parenthesis is closed; -1 where it is not. Those in quotes do not count."""
    depth, quote = 0, ""
    for at, letter in enumerate(key):
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
            continue
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at
    return -1


def _cure(instead: Node | None) -> str | None:
    if instead is None:
        return None
    conditions = dict(instead.conditions)
    condition = conditions.get("Filter") or conditions.get("Index Cond")
    return f"does the index fit what is asked for, {condition}, with the type that is bound?" if condition else None
