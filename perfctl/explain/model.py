"""What EXPLAIN shows of a statement, and what the catalogue says of the tables in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: the angle of a plan that is made without looking at the parameters' values
GENERIC = "generic plan"


#: nodes below which everything is read before the first row comes out
_READS_FIRST = frozenset({"Sort", "Hash", "Aggregate", "HashAggregate", "MixedAggregate", "HashSetOp"})


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """A table, a materialized view or a partition."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a plan. Rows are those of one execution, blocks count all executions and all below it."""

    type: str
    rows: float
    cost: float
    startup_cost: float
    width: int
    relation: Relation | None = None
    alias: str | None = None
    #: the table that an Insert, Update, Delete or Merge writes to
    target: Relation | None = None
    index: str | None = None
    #: what filters, joins and sorts it, as PostgreSQL prints it: ``Index Cond``, ``Filter``, ``Sort Key``
    conditions: tuple[tuple[str, str], ...] = ()
    join_type: str | None = None
    #: Outer, Inner, InitPlan, SubPlan, Member
    relationship: str | None = None
    subplan: str | None = None
    workers_planned: int = 0
    #: partitions that were put aside while the plan was made ready to run
    removed: int = 0
    actual_rows: float | None = None
    loops: int | None = None
    #: shared blocks, hit and read
    blocks: int | None = None
    temp_blocks: int | None = None
    heap_fetches: int | None = None
    lossy_blocks: int | None = None
    rows_removed: float | None = None
    plans: tuple[Node, ...] = ()

    @property
    def is_scan(self) -> bool:
        """It reads a relation, rather than rows of other nodes."""
        return self.relation is not None

    def walk(self) -> Iterator[Node]:
        """This node and all below it, the root first."""
        yield self
        for plan in self.plans:
            yield from plan.walk()

    @property
    def q_error(self) -> float | None:
        """How far the estimate is off, as a factor from 1; both sides count at least one row.

        None where it was not run, or never executed, and for BitmapAnd and BitmapOr, which always report no row
        (https://www.postgresql.org/docs/current/using-explain.html#USING-EXPLAIN-CAVEATS). The measure is that of
        Moerkotte, Neumann, Steidl: Preventing Bad Plans by Bounding the Impact of Cardinality Estimation Errors,
        VLDB 2009.
        """
        if self.actual_rows is None or not self.loops or self.type in ("BitmapAnd", "BitmapOr"):
            return None
        estimated, actual = max(1.0, self.rows), max(1.0, self.actual_rows)
        return max(estimated / actual, actual / estimated)

    def __str__(self) -> str:
        words = self.type + (f" on {self.target}" if self.target else "")
        if self.index:
            words += f" using {self.index}"
        if self.relation and self.type != "Bitmap Index Scan":
            words += f" on {self.relation}"
            if self.alias and self.alias != self.relation.name:
                words += f" {self.alias}"
        return words


#: how a relation is read: the node's type, the relation, the index
Access = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement's plan."""

    root: Node
    #: settings that bear on plans and are not at their default
    settings: Mapping[str, str] = field(default_factory=dict)
    planning_ms: float | None = None
    execution_ms: float | None = None
    #: as PostgreSQL printed it
    raw: Mapping[str, Any] = field(default_factory=dict)

    def nodes(self) -> Iterator[Node]:
        """Every node, the root first."""
        return self.root.walk()

    @property
    def access(self) -> tuple[Access, ...]:
        """How each relation is read, sorted; each occurrence counts."""
        return tuple(sorted((n.type, str(n.relation), n.index or "") for n in self.nodes() if n.relation is not None))

    @property
    def shape(self) -> str:
        """Node types, relations, indexes and join types as a nested text, without any figure."""
        return _shape(self.root)

    @property
    def relations(self) -> frozenset[Relation]:
        """Every relation that it reads."""
        return frozenset(node.relation for node in self.nodes() if node.relation is not None)

    def texts(self) -> Iterator[str]:
        """Every text in what PostgreSQL printed."""
        return _texts(self.raw)

    @property
    def was_run(self) -> bool:
        """It has actual figures."""
        return self.root.actual_rows is not None

    @property
    def pruned(self) -> int:
        """Partitions that were put aside while the plan was made ready to run, and are not shown."""
        return sum(node.removed for node in self.nodes())

    def q_errors(self) -> list[tuple[Node, float]]:
        """The nodes whose estimate a run has tested, each with its q-error, the root first.

        Left out are nodes that were stopped early, by a LIMIT, EXISTS or the end of a merge, where fewer rows than
        expected say nothing, and what a merge join reads again and counts twice.
        """
        return [*_q_errors(self.root, False)]


def _q_errors(node: Node, stopped: bool) -> Iterator[tuple[Node, float]]:
    error = node.q_error
    fewer = (node.actual_rows or 0) < node.rows
    if error is not None and not (stopped and fewer):
        yield node, error
    for each in node.plans:
        inner = each.relationship == "Inner"
        if node.type == "Merge Join" and inner:
            # Rows with one key are read once for each row of the other side, and counted each time.
            for below in each.plans:
                yield from _q_errors(below, each.type not in _READS_FIRST)
            continue
        early = (
            node.type in ("Limit", "Merge Join")
            or (node.type == "Nested Loop" and inner and node.join_type in ("Semi", "Anti"))
            or each.relationship in ("InitPlan", "SubPlan")
        )
        yield from _q_errors(each, early or (stopped and node.type not in _READS_FIRST))


def _texts(raw: object) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping):
        for each in raw.values():
            yield from _texts(each)
    elif isinstance(raw, list):
        for each in raw:
            yield from _texts(each)


def _shape(node: Node) -> str:
    inner = ", ".join(map(_shape, node.plans))
    join = f" {node.join_type}" if node.join_type and node.join_type != "Inner" else ""
    return f"{node}{join}" + (f"({inner})" if inner else "")


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A relation as the planner sees it: pages by the file's size now, rows as of the last ANALYZE (-1: never)."""

    oid: int
    schema: str
    name: str
    relkind: str
    pages: int
    rows: float
    #: the partitioned table at the top, where it is a partition
    root_schema: str | None
    root_name: str | None
    #: leaf partitions, where it is partitioned itself
    partitions: int
    #: against readers, so that nothing is known of its indexes
    is_locked: bool = False

    @property
    def relation(self) -> Relation:
        """Schema and name."""
        return Relation(self.schema, self.name)

    @property
    def root(self) -> Relation | None:
        """The partitioned table at the top."""
        return Relation(self.root_schema, self.root_name) if self.root_schema and self.root_name else None


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """An index of a table: its key columns in order, expressions as PostgreSQL prints them."""

    schema: str
    table: str
    name: str
    method: str
    keys: list[str]
    is_usable: bool
    definition: str
    #: the index of the partitioned table that it is a part of
    part_of: str | None

    @property
    def relation(self) -> Relation:
        """Its table."""
        return Relation(self.schema, self.table)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the catalogue says of all tables in the plans at hand."""

    tables: Mapping[Relation, TableFacts] = field(default_factory=dict)
    indexes: tuple[IndexFacts, ...] = ()

    @property
    def locked(self) -> frozenset[Relation]:
        """The tables of which no more than that is known."""
        return frozenset(relation for relation, table in self.tables.items() if table.is_locked)

    def index(self, name: str, relation: Relation | None = None) -> IndexFacts | None:
        """The index of that name, on that table where one is given."""
        return next((i for i in self.indexes if i.name == name and relation in (None, i.relation)), None)
