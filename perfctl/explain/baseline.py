"""The accepted plan of a hot query, and what has changed since: what gates, what is only told, and why. Pure.

What gates is what noise does not move: the access path, the row estimates, the blocks of a warm run. Shape and cost
move with every ANALYZE and are told (55 queries over 14 bare ANALYZEs: no access path changed, costs by up to 49 %).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from perfctl.explain.model import GENERIC, Access, Catalogue, Node, Plan, Relation
from perfctl.explain.rule import Evidence, State, counted, human
from perfctl.hotqueries.model import HotQuery

#: an estimate has to be off by this factor before it gates, and by as many rows
_ROWS_FACTOR, _ROWS_LEAST = 2.0, 10.0
#: blocks of a warm run are the same to the block nearly always; what a vacuum moves stays below this
_BLOCKS_FACTOR, _BLOCKS_LEAST = 1.1, 10
#: cost is told from here
_COST_FACTOR = 1.2
#: two plans whose costs differ by less are as good as each other
_TIE = 1.02
#: a table that grew by less than this is as it was
_GROWTH = 1.1

#: constants, and behind them what only looks like one: a name, a parameter, a numbered part of the plan
_CONSTANT = re.compile(
    r"""'(?:[^']|'')*' | (?<![\w$.])-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?(?![\w.])
    | (?P<kept>"(?:[^"]|"")*" | \b(?:InitPlan|SubPlan)\ \d+ | \$\d+)""",
    re.VERBOSE,
)
#: what would end a line of the tree
_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Read:
    """How a relation is read, and how many rows the planner expects of it."""

    node: str
    table: str
    index: str
    rows: float

    @property
    def access(self) -> Access:
        """Without the rows."""
        return (self.node, self.table, self.index)

    def __str__(self) -> str:
        return f"{self.node}{f' using {self.index}' if self.index else ''} on {self.table}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """One angle's plan."""

    #: a hash of the parameters' values
    values: str
    reads: tuple[Read, ...]
    #: the tree without figures and constants
    tree: tuple[str, ...]
    rows: float
    cost: float
    settings: Mapping[str, str] = field(default_factory=dict)
    #: shared blocks of a warm run; None where it was not run
    blocks: int | None = None

    @property
    def access(self) -> tuple[Access, ...]:
        """The access path."""
        return tuple(sorted(read.access for read in self.reads))


@dataclass(frozen=True, slots=True)
class TableThen:
    """A table as it was: what makes a plan another one without anybody having changed the query."""

    pages: int
    rows: float
    statistics: str
    #: a hash of each index's definition
    indexes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A query's accepted plans, and what they were made from."""

    query: str
    sql: str
    server: str
    on: str
    reason: str
    tables: Mapping[str, TableThen]
    plans: Mapping[str, Accepted]


@dataclass(frozen=True, slots=True)
class Change:
    """What is another than it was: a finding, untellable, or (it holds) only told."""

    state: State
    angle: str
    what: str
    part: Node | None = None


def digest(text: str) -> str:
    """Twelve hexadecimal digits: enough to see that it is another text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def take(
    query: HotQuery, evidence: Sequence[Evidence], statistics: Mapping[int, str], *, server: str, on: str, reason: str
) -> Baseline:
    """The baseline that these plans make; ``statistics`` holds a hash by the table's OID, ``on`` is the date."""
    facts = evidence[0].catalogue if evidence else Catalogue()
    relations = {relation for each in evidence for relation in each.plan.relations}
    tables = {}
    for relation in sorted(relations & facts.tables.keys()):
        table = facts.tables[relation]
        indexes = {index.name: digest(index.definition) for index in facts.indexes if index.relation == relation}
        tables[str(relation)] = TableThen(table.pages, table.rows, statistics.get(table.oid, "")[:12], indexes)
    # Where tables are too small any plan is as good: accepted, it would be held against the plans of large ones.
    plans = {each.angle: _accepted(query, each) for each in evidence if each.small_says() is None}
    return Baseline(query.name, digest(query.sql), server, on, reason, tables, plans)


def keep_blocks(made: Baseline, before: Baseline | None) -> tuple[Baseline, list[str]]:
    """With the blocks from before where no run was made and it is read alike; the angles whose blocks are lost."""
    plans, lost = dict(made.plans), []
    for angle, plan in made.plans.items():
        was = before.plans.get(angle) if before else None
        if plan.blocks is not None or before is None or was is None or was.blocks is None:
            continue
        if (before.sql, was.values, was.access) == (made.sql, plan.values, plan.access):
            plans[angle] = replace(plan, blocks=was.blocks)
        else:
            lost.append(angle)
    return replace(made, plans=plans), lost


def _accepted(query: HotQuery, seen: Evidence) -> Accepted:
    plan = seen.plan
    return Accepted(
        values=_values(query, seen.angle),
        reads=_reads(plan),
        tree=tuple(_tree(plan.root, "")),
        rows=plan.root.rows,
        cost=round(plan.root.cost, 2),
        settings=dict(plan.settings),
        blocks=seen.ran.root.blocks if seen.ran else None,
    )


def _values(query: HotQuery, angle: str) -> str:
    values = next((each for each in query.sets if each.name == angle), None)
    return digest(repr(sorted(values.values.items()))) if values and query.parameters else ""


def _reads(plan: Plan) -> tuple[Read, ...]:
    found = [Read(node.type, str(node.relation), node.index or "", node.rows) for node in plan.nodes() if node.relation]
    return tuple(sorted(found, key=lambda read: (read.access, read.rows)))


def gone(accepted: Accepted, plan: Plan) -> list[bool]:
    """For each line of the accepted tree, whether the plan has none like it."""
    # The depth of a line changes with what is put above it.
    here = {line.strip() for line in _tree(plan.root, "")}
    return [line.strip() not in here for line in accepted.tree]


def _tree(node: Node, indent: str) -> list[str]:
    join = f" {node.join_type}" if node.join_type and node.join_type != "Inner" else ""
    lines = [f"{indent}{node}{join}"]
    lines += [
        f"{indent}    {key}: {_CONSTANT.sub(lambda found: found['kept'] or '?', text)}" for key, text in node.conditions
    ]
    # A name may hold a newline, and the tree is kept as lines.
    lines = [_BREAK.sub(lambda found: repr(found[0])[1:-1], line) for line in lines]
    return lines + [line for each in node.plans for line in _tree(each, indent + "  ")]


@dataclass(frozen=True, slots=True)
class Now:
    """What a baseline is compared with, beside the plans."""

    server: str
    statistics: Mapping[int, str]
    #: the access paths of an angle with costs a little off
    near: Callable[[str], Sequence[tuple[Access, ...]]]
    #: the access path of an angle under some settings; None where there is no plan
    under: Callable[[str, Mapping[str, str]], tuple[Access, ...] | None]


def compare(then: Baseline, query: HotQuery, evidence: Sequence[Evidence], now: Now) -> list[Change]:
    """Everything that is another than it was."""
    changes: list[Change] = []
    by_angle = {each.angle: each for each in evidence}
    for angle, accepted in then.plans.items():
        seen = by_angle.get(angle)
        if seen is None:
            changes.append(Change(State.HOLDS, angle, "its plan is accepted, and it is not looked at any more"))
        elif (small := seen.small_says()) is not None:
            changes.append(Change(State.CANNOT_TELL, angle, f"baseline: {small.saw}"))
        else:
            changes += _compare(then, accepted, query, seen, now)
    for angle, seen in by_angle.items():
        if angle not in then.plans and seen.small_says() is None:
            whose = "the generic plan" if angle == GENERIC else f"set {angle}"
            changes.append(Change(State.HOLDS, angle, f"no accepted plan for {whose}"))
    return changes


def _compare(then: Baseline, accepted: Accepted, query: HotQuery, seen: Evidence, now: Now) -> list[Change]:
    plan, angle = seen.plan, seen.angle
    if plan.access != accepted.access:
        was = [read for read in accepted.reads if read.access not in plan.access]
        new = next((n for n in plan.nodes() if n.relation and _access(n) not in accepted.access), plan.root)
        what = f"baseline: read by {'; '.join(map(str, was)) or 'fewer scans'} on {then.on}, now by {new}"
        if accepted.access in now.near(angle):
            return [Change(State.CANNOT_TELL, angle, f"{what}: a tie, with costs 5 % off it is the old plan")]
        if _as_dear(then, accepted, query, seen):
            return [Change(State.CANNOT_TELL, angle, f"{what}: a tie, it costs what the old plan cost")]
        why = attribute(then, accepted, query, seen, now)
        return [Change(State.FAILS, angle, what + "".join(f"\n  because {each}" for each in why), new)]
    return [*_rows(then, accepted, seen), *_blocks(then, accepted, seen), *_advice(accepted, plan, angle)]


def _as_dear(then: Baseline, accepted: Accepted, query: HotQuery, seen: Evidence) -> bool:
    """The new plan costs what the old one did over the same tables and indexes: either is as good.

    PostgreSQL takes costs within one per cent for the same (STD_FUZZ_FACTOR, src/backend/optimizer/util/pathnode.c).
    """
    same = (
        then.sql == digest(query.sql)
        and accepted.values == _values(query, seen.angle)
        and accepted.settings == seen.plan.settings
        and not _schema(then, seen.catalogue)
    )
    cost = seen.plan.root.cost
    return same and accepted.cost / _TIE <= cost <= accepted.cost * _TIE


def _access(node: Node) -> Access:
    return (node.type, str(node.relation), node.index or "")


def _rows(then: Baseline, accepted: Accepted, seen: Evidence) -> list[Change]:
    found = []
    for was, is_now in zip(accepted.reads, _reads(seen.plan), strict=True):
        old, new = max(1.0, was.rows), max(1.0, is_now.rows)
        factor = max(old / new, new / old)
        if factor <= _ROWS_FACTOR or abs(old - new) <= _ROWS_LEAST:
            continue
        what = f"baseline: {was} was expected to give {counted(old, 'row')}, now {human(new)}"
        grew = _growth(then, seen.catalogue).get(was.table, 1.0)
        # What grows with its table is nobody's fault.
        explained = grew > _GROWTH and new / old <= grew * _ROWS_FACTOR
        if explained:
            found.append(Change(State.HOLDS, seen.angle, f"{what}: the table has grown {human(grew)} times"))
        else:
            found.append(Change(State.FAILS, seen.angle, what, _node(seen.plan, was)))
    return found


def _node(plan: Plan, read: Read) -> Node | None:
    return next((node for node in plan.nodes() if node.relation and _access(node) == read.access), None)


def _blocks(then: Baseline, accepted: Accepted, seen: Evidence) -> list[Change]:
    if accepted.blocks is None:
        return []
    if seen.ran is None or seen.ran.root.blocks is None:
        why = f"not run: {seen.why_not_run}" if seen.why_not_run else "say --analyze"
        return [Change(State.HOLDS, seen.angle, f"blocks not compared: {why}")]
    old, new = accepted.blocks, seen.ran.root.blocks
    if new <= old * _BLOCKS_FACTOR or new - old < _BLOCKS_LEAST:
        return []
    what = f"baseline: a warm run touched {human(old)} blocks, now {human(new)}"
    table, grew = _most_read(then, seen, seen.ran)
    if grew > _GROWTH and new <= old * grew * _BLOCKS_FACTOR:
        return [Change(State.HOLDS, seen.angle, f"{what}: {table} has grown {human(grew)} times")]
    return [Change(State.FAILS, seen.angle, what, seen.ran.root)]


def _most_read(then: Baseline, seen: Evidence, ran: Plan) -> tuple[str, float]:
    """The table that most blocks are read of, its partitions taken together, and how many times its rows it has now.

    Rows, for a table that is bloated has more pages and nothing that excuses reading them; pages where it was never
    analysed.
    """
    blocks: dict[Relation, int] = {}
    for node in ran.nodes():
        # The heap scan above counts what a bitmap index scan reads.
        if node.relation and node.type != "Bitmap Index Scan":
            table = seen.table_of(node.relation)
            blocks[table] = blocks.get(table, 0) + (node.blocks or 0)
    if not blocks:
        return "", 1.0
    most = max(blocks, key=lambda table: blocks[table])
    facts = [seen.catalogue.tables[r] for r in ran.relations & seen.catalogue.tables.keys() if seen.table_of(r) == most]
    pairs = [(then.tables[str(each.relation)], each) for each in facts if str(each.relation) in then.tables]
    known = all(was.rows >= 0 and each.rows >= 0 for was, each in pairs)
    old = sum(was.rows if known else was.pages for was, _ in pairs)
    new = sum(each.rows if known else each.pages for _, each in pairs)
    return str(most), new / max(1, old) if pairs else 1.0


def _advice(accepted: Accepted, plan: Plan, angle: str) -> list[Change]:
    if tuple(_tree(plan.root, "")) != accepted.tree and _types(accepted.tree) != _types(_tree(plan.root, "")):
        return [Change(State.HOLDS, angle, "told: another shape over the same scans")]
    if plan.root.cost > accepted.cost * _COST_FACTOR:
        return [Change(State.HOLDS, angle, f"told: cost {human(accepted.cost)} then, {human(plan.root.cost)} now")]
    return []


def _types(tree: Sequence[str]) -> list[str]:
    """The nodes without their conditions."""
    return [line for line in tree if not re.match(r" *[A-Z][A-Za-z-]*( [A-Z][a-z]+)?: ", line)]


def _growth(then: Baseline, facts: Catalogue) -> dict[str, float]:
    """How many times as many pages each table has."""
    return {
        str(relation): table.pages / max(1, then.tables[str(relation)].pages)
        for relation, table in facts.tables.items()
        if str(relation) in then.tables
    }


def attribute(then: Baseline, accepted: Accepted, query: HotQuery, seen: Evidence, now: Now) -> list[str]:
    """What may have made the plan another one: certain where planning under the old value gives the old plan."""
    if then.sql != digest(query.sql):
        return ["the query's text has changed"]
    if accepted.values != _values(query, seen.angle):
        return ["the values that it is planned for have changed"]
    if schema := _schema(then, seen.catalogue):
        return schema
    found = []
    moved = {
        name: (accepted.settings.get(name), seen.plan.settings.get(name))
        for name in sorted(accepted.settings.keys() | seen.plan.settings.keys())
        if accepted.settings.get(name) != seen.plan.settings.get(name)
    }
    for name, (was, is_now) in moved.items():
        words = f"{name} was {was or 'the default'} and is {is_now or 'the default'}"
        if now.under(seen.angle, {name: was or ""}) == accepted.access:
            return [f"{words}: with the old value it is the old plan"]
        found.append(words)
    if then.server.split(".")[0] != now.server.split(".")[0]:
        found.append(f"the server was PostgreSQL {then.server} and is {now.server}")
    for table, factor in _growth(then, seen.catalogue).items():
        if factor > _GROWTH or factor < 1 / _GROWTH:
            found.append(f"{table} has {human(factor)} times the pages")
    if not found:
        stale = [
            str(relation)
            for relation, table in seen.catalogue.tables.items()
            if str(relation) in then.tables
            and then.tables[str(relation)].statistics != now.statistics.get(table.oid, "")[:12]
        ]
        found = [f"the statistics of {', '.join(stale)} are others"] if stale else []
    return found or ["nothing that is kept has changed: statistics of another table, or the planner's choice"]


def _schema(then: Baseline, facts: Catalogue) -> list[str]:
    """Which indexes have gone, come or changed."""
    found = []
    for relation in sorted(facts.tables):
        if (table := then.tables.get(str(relation))) is None:
            continue
        here = {index.name: digest(index.definition) for index in facts.indexes if index.relation == relation}
        found += [f'index "{name}" of {relation} is gone' for name in sorted(table.indexes.keys() - here.keys())]
        found += [f'index "{name}" of {relation} is new' for name in sorted(here.keys() - table.indexes.keys())]
        found += [
            f'index "{name}" of {relation} has another definition'
            for name in sorted(here.keys() & table.indexes.keys())
            if here[name] != table.indexes[name]
        ]
    return found
