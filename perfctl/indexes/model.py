"""What was seen of a database's indexes, and what is to be done about them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from perfctl.migrations.model import CreateIndex, Name, Place


def quoted(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def full(name: Name) -> str:
    """A full name with both parts quoted."""
    return f"{quoted(name.schema)}.{quoted(name.name)}" if name.schema else quoted(name.name)


def literal(value: str | None) -> str:
    """A string as SQL text; NULL for None. Safe whatever standard_conforming_strings says."""
    if value is None:
        return "NULL"
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in value else f"'{escaped}'"


def one_line(query: str | None) -> str:
    """The beginning of a statement, fit to stand in a sentence that goes on with a semicolon of its own."""
    return " ".join((query or "").split())[:120].rstrip("; ")


class State(StrEnum):
    """What the catalogue says of one wanted index."""

    ABSENT = "absent"
    SAME = "same"
    DIFFERENT = "different"
    BUILDING = "building"
    INVALID_UNREADY = "invalid-unready"
    INVALID_READY = "invalid-ready"
    INCOMPLETE = "incomplete"
    HALF_DROPPED = "half-dropped"
    NAME_TAKEN = "name-taken"
    COVERED = "covered"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Server:
    """The server, and what this role may do on it."""

    database: str
    database_oid: int
    role: str
    version: str
    version_num: int
    in_recovery: bool
    search_path: list[str]
    search_path_setting: str
    may_create_schema: bool
    may_create_temporary: bool
    #: other roles' sessions: since when their transactions are open, and what they hold
    may_see_others: bool
    #: those of other roles that are no superusers
    may_end_others: bool
    has_journal_schema: bool
    has_journal: bool
    may_use_journal_schema: bool
    may_write_journal: bool
    maintenance_work_mem_kb: int
    max_parallel_maintenance_workers: int
    max_parallel_workers: int
    shared_buffers_kb: int
    deadlock_timeout_s: float
    data_directory: str | None
    block_size: int
    extensions: list[str]

    @property
    def major(self) -> int:
        """The major version."""
        return self.version_num // 10000


@dataclass(frozen=True, slots=True)
class Table:
    """A relation that an index is wanted on, or whose name is in the way."""

    oid: int
    schema: str
    name: str
    relkind: str
    persistence: str
    pages: int
    rows: float
    size_bytes: int
    owner: str
    owned: bool
    may_create: bool
    columns: str | None

    @property
    def full_name(self) -> Name:
        """Schema and name."""
        return Name(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Partition:
    """A table below a partitioned one; ``parent_oid`` is the one right above it, ``root_oid`` the one asked for."""

    root_oid: int
    parent_oid: int
    oid: int
    schema: str
    name: str
    relkind: str
    pages: int
    rows: float
    size_bytes: int
    owner: str
    owned: bool
    may_create: bool

    @property
    def full_name(self) -> Name:
        """Schema and name."""
        return Name(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Index:
    """One index as the catalogue has it."""

    oid: int
    schema: str
    name: str
    table_oid: int
    table_schema: str
    table_name: str
    relkind: str
    is_unique: bool
    is_valid: bool
    is_ready: bool
    is_live: bool
    is_usable: bool
    definition: str
    method: str
    owner: str
    owned: bool
    size_bytes: int
    tablespace: str | None
    constraint_name: str | None
    parent_oid: int | None
    scans: int
    comment: str | None
    #: its WHERE, as PostgreSQL prints it
    predicate: str | None
    #: what a DROP INDEX would lose and CREATE INDEX would not bring back
    marks: list[str]

    @property
    def full_name(self) -> Name:
        """Schema and name."""
        return Name(self.schema, self.name)

    @property
    def is_good(self) -> bool:
        """Queries use it and writes maintain it."""
        return self.is_valid and self.is_ready and self.is_live


@dataclass(frozen=True, slots=True)
class Build:
    """A row of pg_stat_progress_create_index."""

    pid: int
    table_oid: int | None
    index_oid: int | None
    command: str | None
    phase: str | None
    lockers_total: int
    lockers_done: int
    current_locker_pid: int | None
    blocks_total: int
    blocks_done: int
    tuples_total: int
    tuples_done: int
    role: str | None
    application: str | None


@dataclass(frozen=True, slots=True)
class Blocker:
    """A transaction that a concurrent build or drop would wait for now."""

    pid: int | None
    role: str | None
    application: str | None
    state: str | None
    age_s: float | None
    query: str | None
    table_oid: int | None
    #: holder: its lock keeps a build from beginning; writer: a build waits for its end before it reads the table;
    #: snapshot: a build waits for its end after it has read the table
    reason: str
    started_at: datetime | None
    #: somebody's session, not a process of the server
    is_client: bool
    #: an autovacuum that yields to nobody
    is_wraparound: bool

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for one transaction at two looks, and never for two transactions."""
        return self.pid or self.application, self.started_at

    def __str__(self) -> str:
        facts = [self.role, self.application, self.state] if self.pid else [self.role]
        if self.age_s is not None:
            facts.append(f"open for {self.age_s:.0f} s")
        who = f"pid {self.pid}" if self.pid else self.application
        return f"{who} ({', '.join(fact for fact in facts if fact)})"

    def named(self) -> str:
        """Who it is and what it does, on one line."""
        query = one_line(self.query)
        return f"{self}: {query}" if query else str(self)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Extended statistics as the catalogue has them."""

    oid: int
    schema: str
    name: str
    table_oid: int
    definition: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal; ``state`` is started, done or failed, ``undoes`` names the line it took back."""

    id: int
    run_id: int
    kind: str
    schema: str | None
    name: str
    table_schema: str | None
    table_name: str | None
    migration: str | None
    migration_number: int | None
    migration_sha256: str | None
    statement: str
    undo: str | None
    object_oid: int | None
    canonical: str | None
    comment: str | None
    state: str
    detail: str | None
    build_s: float | None
    wait_s: float | None
    size_bytes: int | None
    table_bytes: int | None
    estimated_s: float | None
    undoes: int | None
    started_at: datetime
    role: str
    origin: str | None

    @property
    def full_name(self) -> Name:
        """Schema and name of what it was done to."""
        return Name(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Canonical:
    """The server's own text of a wanted definition, without names; or why it could not be had."""

    text: str | None
    error: str | None = None
    #: planner's estimate of the rows that a partial index holds
    rows: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A CREATE INDEX of a migration, its table found in the database."""

    statement: CreateIndex
    migration: str
    migration_number: int | None
    migration_sha256: str
    table: Table | None

    @property
    def name(self) -> Name:
        """The index's full name; its schema is its table's."""
        schema = self.table.schema if self.table else self.statement.table.schema
        return Name(schema, self.statement.name.name)

    @property
    def place(self) -> Place:
        """Where it is written."""
        return self.statement.place

    def sql(
        self, *, concurrently: bool = True, name: Name | None = None, table: Name | None = None, only: bool = False
    ) -> str:
        """The statement to send: names in full, IF NOT EXISTS left out, the rest exactly as written.

        IF NOT EXISTS would report success for an invalid index, or for another table's index of that name. ``name`` and
        ``table`` are for the same index under another name, or on a partition.
        """
        assert self.table is not None
        statement = self.statement
        only = only or (statement.only and table is None)
        # PostgreSQL builds nothing for ON ONLY of a partitioned table, so it has no concurrent form.
        concurrent = concurrently and not only
        words = ["CREATE", "UNIQUE" if statement.unique else "", "INDEX", "CONCURRENTLY" if concurrent else ""]
        target = [
            quoted((name or statement.name).name), "ON", "ONLY" if only else "", full(table or self.table.full_name)
        ]  # fmt: skip
        return " ".join(word for word in (*words, *target, statement.tail) if word)


@dataclass(frozen=True)
class Snapshot:
    """The part of a database that some migrations touch, as it was at one moment."""

    server: Server
    system_identifier: str | None
    tables: Mapping[Name, Table]
    indexes: tuple[Index, ...]
    statistics: tuple[Statistics, ...] = ()
    builds: tuple[Build, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    journal: tuple[Entry, ...] = ()
    canonical: Mapping[Place, Canonical] = field(default_factory=dict)
    scope: tuple[str, ...] = ()
    #: tables below the partitioned ones, parents before their children
    partitions: tuple[Partition, ...] = ()
    #: processor cores of the server; None where it does not tell
    cores: int | None = None
    #: search paths that a file sets, resolved to schemas
    search_paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[Name, Index]:
        """Indexes by full name."""
        return {index.full_name: index for index in self.indexes}

    @cached_property
    def by_oid(self) -> dict[int, Index]:
        """Indexes by OID."""
        return {index.oid: index for index in self.indexes}

    @cached_property
    def by_table(self) -> dict[int, list[Index]]:
        """Indexes by their table's OID."""
        found: dict[int, list[Index]] = {}
        for index in self.indexes:
            found.setdefault(index.table_oid, []).append(index)
        return found

    @cached_property
    def building(self) -> dict[int, Build]:
        """Running builds by the OID of the index that they build."""
        return {build.index_oid: build for build in self.builds if build.index_oid}

    def resolve(
        self,
        name: Name,
        search_path: str | None = None,
        coming: Container[Name] = (),
        going: Container[Name] = (),
    ) -> Name:
        """The full name of a relation as the session would find it; the first schema where none has it.

        ``coming`` and ``going`` are relations that earlier statements create and drop.
        """
        if name.schema:
            return name
        path = tuple(self.server.search_path) if search_path is None else self.search_paths[search_path]
        candidates = [Name(schema, name.name) for schema in path]
        there = (c for c in candidates if ((c in self.tables or c in self.by_name) and c not in going) or c in coming)
        return next(there, candidates[0] if candidates else name)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build is expected to take; from this server's earlier builds where there are any."""

    size_bytes: int
    seconds: float
    #: before this server's own pace was taken in
    base_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One statement to send, next to its undo."""

    kind: str
    name: Name
    sql: str
    undo: str | None
    why: str
    table: Name | None = None
    migration: str | None = None
    migration_number: int | None = None
    migration_sha256: str | None = None
    place: Place | None = None
    canonical: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    estimate: Estimate | None = None
    #: the comment that a dropped index bore
    comment: str | None = None
    #: the OID that must still be behind the name when a drop is sent
    oid: int | None = None
    table_bytes: int | None = None
    #: the journal line that this step takes back
    undoes: int | None = None
    waits_for: tuple[str, ...] = ()
    #: the kinds and names of steps that have to be done first
    after: tuple[tuple[str, Name], ...] = ()
    #: lets writers go on while it runs; what does not is sent under a short lock timeout
    concurrent: bool = True
    #: other concurrent builds need not wait for this one's snapshot
    safe: bool = True
    #: the partitioned index that this one becomes a part of
    parent: Name | None = None
    #: what it renames: the old name and the new one, in this order
    renames: tuple[tuple[Name, Name], ...] = ()
    #: relations that it locks against readers and writers
    locks: tuple[Name, ...] = ()
    #: the session that builds it already, whose end is waited for
    follows: int | None = None
    #: LOCK TABLE takes it: not a materialized view
    lockable: bool = True
    #: the journal's line of an earlier run that this step finishes
    line: int | None = None
    #: what it is called now, where that is not the name that it is about
    called: Name | None = None

    @property
    def actual(self) -> Name:
        """The name that the catalogue has for it now."""
        return self.called or self.name

    @property
    def journal_kind(self) -> str:
        """What the journal calls it: a swap is the build that comes of it."""
        return "create_index" if self.kind == "swap_index" else self.kind


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was asked for and needs nothing, and why."""

    kind: str
    name: Name
    why: str
    state: State | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What cannot be done, and the cure. One of these and nothing at all is touched."""

    name: Name
    why: str
    remedy: str | None = None
    place: Place | None = None
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run would do, would leave alone, and cannot do."""

    steps: tuple[Step, ...]
    skipped: tuple[Skipped, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    #: what a reader should know of it, a line each
    warnings: tuple[str, ...] = ()
