"""A plan in the making: what it rests on, and the steps, skips and refusals that it is made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

from perfctl.indexes import known_bad, resources
from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.classify import Found
from perfctl.indexes.estimate import estimate
from perfctl.indexes.model import (
    Entry,
    Estimate,
    Index,
    Partition,
    Refusal,
    Skipped,
    Snapshot,
    State,
    Step,
    Table,
    Wanted,
    full,
    quoted,
)
from perfctl.indexes.owned import abandoned, began, unfinished
from perfctl.migrations.model import Migration, Name, Statement


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects a run is about, by glob on ``schema.name`` or ``name``; nothing given means all."""

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def takes(self, name: Name) -> bool:
        """True when the object is to be looked after."""
        if any(_matches(name, glob) for glob in self.without):
            return False
        return not self.only or any(_matches(name, glob) for glob in self.only)

    def names(self, name: Name) -> bool:
        """True when the object is named outright, not by a glob."""
        return any(word in (str(name), name.name) for word in self.only)


def _matches(name: Name, glob: str) -> bool:
    return fnmatchcase(str(name), glob) or fnmatchcase(name.name, glob)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a plan is to be carried out."""

    #: plain statements: writers wait meanwhile
    offline: bool = False
    #: an index of another definition is built anew and takes the old one's place
    replace: bool = False
    #: statements under way at once; None is what fits the server
    jobs: int | None = None
    #: it is written down in the database itself
    journal: bool = True


@dataclass(frozen=True, slots=True)
class Op:
    """One statement of one migration, its object's full name found."""

    migration: Migration
    statement: Statement
    name: Name


@dataclass
class Draft:
    """What has been decided so far."""

    seen: Snapshot
    manner: Manner
    steps: list[Step] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    #: what a reader should know, each line once
    warnings: dict[str, None] = field(default_factory=dict)

    @property
    def concurrently(self) -> bool:
        """Writers go on meanwhile."""
        return not self.manner.offline

    @cached_property
    def jobs(self) -> int:
        """Statements under way at once."""
        return self.manner.jobs or resources.default_jobs(self.seen.cores)

    @cached_property
    def _begun(self) -> dict[Name, Entry]:
        return abandoned(self.seen) | unfinished(self.seen.journal)

    def skip(self, op: Op, kind: str, why: str, state: State | None = None) -> None:
        """What is asked for needs nothing."""
        self.skipped.append(Skipped(kind, op.name, why, state, op.statement.place))

    def refuse(self, op: Op, why: str, remedy: str | None = None) -> None:
        """What is asked for cannot be done."""
        self.refusals.append(Refusal(op.name, why, remedy, op.statement.place))

    def step(self, op: Op, kind: str, sql: str, undo: str | None, why: str, **facts: object) -> None:
        """A statement to send; ``facts`` are fields of Step."""
        self.steps.append(
            Step(
                kind=kind,
                name=op.name,
                sql=sql,
                undo=undo,
                why=why,
                migration=op.migration.name,
                migration_number=op.migration.number,
                migration_sha256=op.migration.sha256,
                place=op.statement.place,
                **facts,  # type: ignore[arg-type]
            )
        )

    def drop_leftover(self, op: Op, index: Index, found: Found, text: str | None) -> None:
        """A broken index in the way."""
        have = canonical_text(index.definition)
        other = f"\nit was: {have}\nwanted: {text}" if text is not None and have != text else ""
        self.step(
            replace(op, name=index.full_name),
            "drop_leftover",
            f"DROP INDEX CONCURRENTLY {full(index.full_name)}",
            None,
            f"{found.state}: {found.why}{other}",
            table=Name(index.table_schema, index.table_name),
            oid=index.oid,
        )

    def build(
        self,
        op: Op,
        wanted: Wanted,
        text: str | None,
        why: str,
        *,
        on: Partition | None = None,
        only: bool = False,
        **facts: object,
    ) -> None:
        """A CREATE INDEX, of the wanted table or of a partition of it; ``op.name`` is the index's name."""
        assert wanted.table is not None
        table: Table | Partition = on or wanted.table
        only = only or (wanted.statement.only and on is None)
        concurrent = self.concurrently and not only
        if not only and not self._server_builds(op, wanted, concurrent=concurrent):
            return
        guess = None if only else estimate(wanted, self.seen, on)
        self.step(
            op,
            "create_index",
            wanted.sql(concurrently=concurrent, name=op.name, table=table.full_name if on else None, only=only),
            f"DROP INDEX {full(op.name)}" if only else f"DROP INDEX CONCURRENTLY {full(op.name)}",
            why,
            table=table.full_name,
            canonical=text,
            settings=self._settings(wanted, guess),
            estimate=guess,
            table_bytes=table.size_bytes,
            waits_for=tuple(self._blockers(table)),
            concurrent=concurrent,
            lockable=table.relkind != "m",
            safe=self._is_safe(wanted),
            **facts,
        )

    def _server_builds(self, op: Op, wanted: Wanted, *, concurrent: bool) -> bool:
        """Refuse what this minor release is known to build wrong, and warn of what it may."""
        version = self.seen.server.version_num
        method = wanted.statement.method
        if (bad := known_bad.fault(version, method=method, concurrent=concurrent, refuse=True)) is not None:
            self.refuse(
                op,
                f"PostgreSQL {self.seen.server.version} must not build it: {bad.why} ({bad.source})",
                f"upgrade to {known_bad.mended_in(version, bad)}, or build with --offline while nobody writes",
            )
            return False
        if (bad := known_bad.fault(version, method=method, concurrent=concurrent, refuse=False)) is not None:
            self.warnings[
                f"PostgreSQL {self.seen.server.version}: {bad.why}; mended in"
                f" {known_bad.mended_in(version, bad)} ({bad.source})"
            ] = None
        return True

    def _is_safe(self, wanted: Wanted) -> bool:
        """Others need not wait for its snapshot: plain columns, since 14 (set_indexsafe_procflags, indexcmds.c)."""
        return self.seen.server.major >= 14 and not (wanted.statement.partial or wanted.statement.expression)

    def _settings(self, wanted: Wanted, guess: Estimate | None) -> tuple[tuple[str, str], ...]:
        """What the build gets; what the file itself sets is what its writer wants."""
        if guess is None:
            return wanted.statement.settings
        chosen = resources.settings(
            wanted.statement.method, guess, self.seen.server, jobs=self.jobs, cores=self.seen.cores
        )
        return tuple((chosen | dict(wanted.statement.settings)).items())

    def _blockers(self, table: Table | Partition) -> list[str]:
        return [
            str(blocker)
            for blocker in self.seen.blockers
            if blocker.table_oid == table.oid or (blocker.reason == "snapshot" and (blocker.age_s or 0) >= 1)
        ]

    def is_unfinished(self, op: Op, found: Found, text: str | None) -> bool:
        """A run that was killed began it, and the server finished it."""
        entry = self._begun.get(op.name)
        return entry is not None and found.index is not None and began(entry, found.index, text)

    def adopt(self, op: Op, wanted: Wanted, found: Found, text: str | None) -> None:
        """An index that a killed run began, to be written down."""
        assert wanted.table is not None
        assert found.index is not None
        self.step(
            op,
            "adopt_index",
            wanted.sql(concurrently=self.concurrently),
            f"DROP INDEX {full(op.name)}" if found.index.relkind == "I" else f"DROP INDEX CONCURRENTLY {full(op.name)}",
            "a run that was killed began it and the server finished it: to be written down",
            table=wanted.table.full_name,
            canonical=text,
            oid=found.index.oid,
            table_bytes=wanted.table.size_bytes,
        )


def again(index: Index) -> str:
    """The statement that makes an index anew as it is: ``pg_get_indexdef`` leaves the tablespace out."""
    statement = index.definition.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
    if index.tablespace is None:
        return statement
    where = f" WHERE {index.predicate}" if index.predicate else ""
    return f"{statement.removesuffix(where)} TABLESPACE {quoted(index.tablespace)}{where}"


def held_back(index: Index) -> tuple[str, str] | None:
    """Why an index cannot be dropped without losing more than itself, and the cure."""
    if index.constraint_name:
        return (
            f'constraint "{index.constraint_name}" needs it',
            "ALTER TABLE … DROP CONSTRAINT in a schema migration",
        )
    if index.parent_oid:
        return "it is a part of a partitioned index", "change that one"
    if index.marks:
        return (
            f"it carries its table's {' and '.join(index.marks)}, which no rollback would bring back",
            "drop it by hand if that is meant",
        )
    return None
