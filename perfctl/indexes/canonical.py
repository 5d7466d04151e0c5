"""The server's own text of a wanted definition: built on an empty temporary copy of the table, then rolled back.

Two texts that PostgreSQL prints alike are the same index, however differently they were written. The copy has
the table's name and columns but takes no lock on the table, so nobody waits behind it. It is a partitioned table
without partitions where that is possible: such an index is catalogue rows and no file, and thirteen times faster to
make. Unique ones need a plain copy, for a partitioned table's must hold the partition key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from perfctl.errors import Denied, PerfctlError, StatementFailed
from perfctl.indexes.canonical_text import canonical_text, statistics_text
from perfctl.indexes.model import Canonical, Table, Wanted, literal, quoted
from perfctl.migrations.model import CreateExtension, CreateStatistics, Place
from perfctl.servers.postgres import Postgres

#: Objects made in one transaction. Each holds a lock, and the server's table of locks belongs to everybody.
BATCH = 400

_OUT_OF_LOCKS = "53200"

#: A role may be read-only by default; nothing that is made here stays.
_WRITABLE = "SET TRANSACTION READ WRITE"


def build(
    pg: Postgres,
    wanted: Sequence[Wanted],
    statistics: Sequence[tuple[CreateStatistics, Table]] = (),
    extensions: Iterable[CreateExtension] = (),
    *,
    search_path: str,
) -> dict[Place, Canonical]:
    """The canonical text of each wanted definition by its place, or the server's reason why there is none.

    ``search_path`` is the session's own, for files that set none. One round trip for all that are built together.
    Nothing stays on the server.
    """
    jobs = [
        *(_index_job(w, w.table) for w in wanted if w.table),
        *(_statistics_job(s, table) for s, table in statistics),
    ]
    head = [extension.text for extension in extensions]
    found: dict[Place, Canonical] = {}
    waiting = [batch for round_ in _rounds(jobs) for batch in _slices(round_, BATCH)]
    while waiting:
        batch = waiting.pop()
        try:
            found |= _together(pg, head, batch, search_path)
        except StatementFailed as error:
            if error.sqlstate == _OUT_OF_LOCKS and len(batch) > 1:
                waiting += _slices(batch, len(batch) // 2)
            else:
                found |= _one_by_one(pg, head, batch, search_path)
        except Denied:
            found |= _one_by_one(pg, head, batch, search_path)
    return found


def _slices(batch: list[_Job], size: int) -> list[list[_Job]]:
    return [batch[start : start + size] for start in range(0, len(batch), size)]


@dataclass(frozen=True, slots=True)
class _Job:
    """One definition to build. ``template`` has %s where the new object's name goes."""

    place: Place
    table: Table
    template: str
    search_path: str | None = None
    #: a partitioned copy will not do: its unique indexes must hold the key, its indexes have no tablespace of their own
    plain: bool = False

    @property
    def copy(self) -> tuple[int, bool]:
        """Jobs that agree here share a copy of the table."""
        return self.table.oid, self.plain


def _index_job(wanted: Wanted, table: Table) -> _Job:
    statement = wanted.statement
    unique = "UNIQUE " if statement.unique else ""
    template = f"CREATE {unique}INDEX %s ON pg_temp.{quoted(table.name)} {statement.tail}"
    plain = statement.unique or statement.tablespace is not None
    return _Job(wanted.place, table, template, statement.search_path, plain)


def _statistics_job(statement: CreateStatistics, table: Table) -> _Job:
    template = f"CREATE STATISTICS pg_temp.%s {statement.tail} FROM pg_temp.{quoted(table.name)}"
    return _Job(statement.place, table, template, statement.search_path)


def _rounds(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Jobs that can share a transaction: no two copies of one name, for each copy bears its table's name."""
    ordered = sorted(jobs, key=lambda job: (job.table.name, job.copy))
    rounds: list[list[_Job]] = []
    for _, same_name in groupby(ordered, key=lambda job: job.table.name):
        for number, (_, same_copy) in enumerate(groupby(same_name, key=lambda job: job.copy)):
            if number == len(rounds):
                rounds.append([])
            rounds[number].extend(same_copy)
    return rounds


def _script(batch: Sequence[_Job], search_path: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The statements that make the copies; for each job its SET of the path, and what makes its object."""
    copies = [_copy(job) for job in {job.copy: job for job in batch}.values()]
    builds = []
    for number, job in enumerate(batch):
        path = literal(search_path if job.search_path is None else job.search_path)
        # Not the % operator: the text as written may hold percent signs.
        statement = job.template.replace("%s", quoted(f"perfctl_{number}"), 1)
        builds.append((f"SELECT pg_catalog.set_config('search_path', {path}, true)", statement))
    return copies, builds


def _copy(job: _Job) -> str:
    columns = f"({job.table.columns or ''})"
    if not job.plain:
        key = quoted("perfctl partition key")
        columns = (
            f"({job.table.columns or ''}{', ' if job.table.columns else ''}{key} integer) PARTITION BY LIST ({key})"
        )
    return f"CREATE TEMPORARY TABLE {quoted(job.table.name)} {columns}"


def _together(pg: Postgres, head: list[str], batch: Sequence[_Job], search_path: str) -> dict[Place, Canonical]:
    copies, builds = _script(batch, search_path)
    made: list[str] = []
    path = None
    for set_path, statement in builds:
        made += [statement] if set_path == path else [set_path, statement]
        path = set_path
    return _texts(pg.rolled_back([_WRITABLE, *head, *copies, *made, *_READ]), batch)


def _one_by_one(pg: Postgres, head: list[str], batch: Sequence[_Job], search_path: str) -> dict[Place, Canonical]:
    copies, builds = _script(batch, search_path)
    errors: dict[Place, Canonical] = {}
    with pg.transaction(rollback=True):
        try:
            pg.execute(";\n".join([_WRITABLE, *head, *copies]))
        except (StatementFailed, Denied) as error:
            return {job.place: Canonical(None, error.message) for job in batch}
        for job, (set_path, statement) in zip(batch, builds, strict=True):
            try:
                # A failed statement takes its path back with it: each sets its own.
                with pg.transaction():
                    pg.execute(f"{set_path};\n{statement}")
            except (StatementFailed, Denied) as error:
                errors[job.place] = Canonical(None, _because(error))
        pg.execute(_READ[0])
        return _texts(pg.values(_READ[1]), batch) | errors


def _because(error: PerfctlError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


#: What is printed must not depend on the path that a definition was read under.
_READ = (
    "SET LOCAL search_path TO pg_catalog",
    "SELECT c.relname, pg_catalog.pg_get_indexdef(c.oid) FROM pg_catalog.pg_class AS c"
    " WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() AND c.relkind IN ('i', 'I')"
    " AND c.relname ~ '^perfctl_[0-9]+$'"
    " UNION ALL"
    " SELECT s.stxname, pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext AS s"
    " WHERE s.stxnamespace = pg_catalog.pg_my_temp_schema() AND s.stxname ~ '^perfctl_[0-9]+$'",
)


def _texts(rows: Sequence[tuple[Any, ...]], batch: Sequence[_Job]) -> dict[Place, Canonical]:
    found = {}
    for name, definition in rows:
        canonical = canonical_text(definition) if " INDEX " in definition[:20] else statistics_text(definition)
        found[batch[int(name.removeprefix("perfctl_"))].place] = Canonical(canonical)
    return found


def partial_rows(pg: Postgres, wanted: Sequence[Wanted], texts: Mapping[Place, Canonical]) -> dict[Place, float]:
    """The planner's estimate of how many rows each partial index holds, by place; one EXPLAIN for all."""
    partial = [
        (w, canonical.text.split(" WHERE ", 1)[1])
        for w in wanted
        if w.table and w.statement.partial and (canonical := texts.get(w.place)) and canonical.text
        and " WHERE " in canonical.text
    ]  # fmt: skip
    if not partial:
        return {}
    branches = " UNION ALL ".join(
        f"SELECT 1 FROM ONLY {quoted(w.table.schema)}.{quoted(w.table.name)} WHERE {predicate}"
        for w, predicate in partial
        if w.table
    )
    try:
        with pg.transaction(rollback=True):
            pg.execute("SET LOCAL lock_timeout = '200ms'")
            ((plans,),) = pg.values("EXPLAIN (FORMAT JSON) " + branches)
    except (StatementFailed, Denied):
        return {}
    top = plans[0]["Plan"]
    children = top.get("Plans", []) if top["Node Type"] == "Append" else [top]
    if len(children) != len(partial):
        return {}
    return {w.place: float(child["Plan Rows"]) for (w, _), child in zip(partial, children, strict=True)}
