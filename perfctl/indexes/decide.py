"""What an apply would do, in order, and what it refuses. Pure: migrations and a Snapshot in, a Plan out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from perfctl.indexes import known_bad, partitioned, resources
from perfctl.indexes.canonical_text import canonical_text, statistics_text
from perfctl.indexes.classify import Found, broken, classify
from perfctl.indexes.estimate import estimate
from perfctl.indexes.model import (
    Estimate,
    Index,
    Partition,
    Plan,
    Refusal,
    Skipped,
    Snapshot,
    State,
    Step,
    Table,
    Wanted,
    full,
    literal,
    quoted,
)
from perfctl.indexes.owned import abandoned, began, index_names, unfinished
from perfctl.indexes.partitioned import Part, suffixed
from perfctl.indexes.rights import missing_rights
from perfctl.migrations.model import (
    Analyze,
    CommentOnIndex,
    CreateExtension,
    CreateIndex,
    CreateStatistics,
    DropIndex,
    Migration,
    Name,
    Statement,
)

#: what an index is called while it takes another's place, and that one afterwards
NEW, OLD = "perfctl_new", "perfctl_old"


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
class _Op:
    """One statement of one migration, its object's full name found."""

    migration: Migration
    statement: Statement
    name: Name


def steps(
    migrations: Sequence[Migration],
    wanted: Sequence[Wanted],
    seen: Snapshot,
    selection: Selection = Selection(),
    manner: Manner = Manner(),
) -> Plan:
    """Everything that an apply would send, in the files' order; what is right already is skipped with its reason."""
    return _Planner(migrations, wanted, seen, selection, manner).plan()


class _Planner:
    def __init__(
        self,
        migrations: Sequence[Migration],
        wanted: Sequence[Wanted],
        seen: Snapshot,
        selection: Selection,
        manner: Manner,
    ) -> None:
        self.seen = seen
        self.manner = manner
        self.concurrently = not manner.offline
        self.jobs = manner.jobs or resources.default_jobs(seen.cores)
        self.selection = selection
        self.by_place = {w.place: w for w in wanted}
        self.found: dict[Wanted, Found] = {}
        self.names = {place: iter(names) for place, names in index_names(migrations, wanted, seen).items()}
        every = (self._op(migration, statement) for migration in migrations for statement in migration.statements)
        self.ops = [op for op in every if op is not None and selection.takes(op.name)]
        self.going = {
            op.name
            for number, op in enumerate(self.ops)
            if isinstance(op.statement, DropIndex) and self._later(number, op.name, CreateIndex) is None
        }
        self.steps: list[Step] = []
        self.skipped: list[Skipped] = []
        self.refusals: list[Refusal] = []
        self.warnings: dict[str, None] = {}
        self.planned: dict[tuple[int, str], Name] = {}
        self.defined: dict[Name, Wanted] = {}

    def plan(self) -> Plan:
        self._finish_drops()
        for number, op in enumerate(self.ops):
            match op.statement:
                case CreateIndex():
                    self._create(number, op)
                case DropIndex():
                    self._drop(number, op, op.statement)
                case CommentOnIndex():
                    self._comment(number, op, op.statement)
                case CreateStatistics():
                    self._statistics(op, op.statement)
                case CreateExtension():
                    self._extension(op, op.statement)
        # Statistics of expression indexes are gathered once all of them are there.
        for op in self.ops:
            if isinstance(op.statement, Analyze):
                self._analyze(op, op.statement)
        # While a unique leftover is there, an application's write that repeats a key fails: nothing comes before it.
        self.steps.sort(key=lambda step: not self._rejects_writes(step))
        rights = missing_rights(self.steps, self.seen, journal=self.manner.journal)
        return Plan(tuple(self.steps), tuple(self.skipped), (*self.refusals, *rights), tuple(self.warnings))

    def _rejects_writes(self, step: Step) -> bool:
        index = self.seen.by_oid.get(step.oid) if step.kind == "drop_leftover" and step.oid else None
        return index is not None and index.is_unique and index.is_ready

    def _finish_drops(self) -> None:
        """An index that another one has taken the place of, and that a run which ended early did not drop."""
        for entry in self.seen.journal:
            index = self.seen.by_oid.get(entry.object_oid or 0)
            if (
                entry.kind == "drop_index"
                and entry.state != "done"
                and entry.undoes is None
                and index is not None
                and index.full_name == suffixed(entry.full_name, OLD)
                and self.selection.takes(entry.full_name)
            ):
                self.steps.append(self._drop_replaced(entry.full_name, index, undo=entry.undo, line=entry.id))

    def _op(self, migration: Migration, statement: Statement) -> _Op | None:
        match statement:
            case CreateIndex() | DropIndex() | CommentOnIndex():
                return _Op(migration, statement, next(self.names[statement.place]))
            case Analyze():
                return _Op(migration, statement, self.seen.resolve(statement.table, statement.search_path))
            case CreateStatistics():
                table = self.seen.resolve(statement.table, statement.search_path)
                return _Op(migration, statement, Name(statement.name.schema or table.schema, statement.name.name))
            case CreateExtension():
                return _Op(migration, statement, Name(None, statement.name))
        return None

    def _created(self, name: Name) -> Name | None:
        """The full name of an index that the migrations themselves create under an unqualified name."""
        full_names = (w.name for w in self.by_place.values())
        return next((n for n in full_names if n.name == name.name and name.schema in (None, n.schema)), None)

    def _found(self, wanted: Wanted) -> Found:
        if wanted not in self.found:
            self.found[wanted] = classify(wanted, self.seen, self.going)
        return self.found[wanted]

    def _later(self, number: int, name: Name, kind: type[Statement]) -> _Op | None:
        """The next statement of a kind about the same name."""
        return next((op for op in self.ops[number + 1 :] if op.name == name and isinstance(op.statement, kind)), None)

    def _skip(self, op: _Op, kind: str, why: str, state: State | None = None) -> None:
        self.skipped.append(Skipped(kind, op.name, why, state, op.statement.place))

    def _refuse(self, op: _Op, why: str, remedy: str | None = None) -> None:
        self.refusals.append(Refusal(op.name, why, remedy, op.statement.place))

    def _step(self, op: _Op, kind: str, sql: str, undo: str | None, why: str, **facts: object) -> None:
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

    def _create(self, number: int, op: _Op) -> None:
        wanted = self.by_place[op.statement.place]
        statement = wanted.statement
        if later := self._later(number, op.name, DropIndex):
            self._skip(op, "create_index", f"dropped again by {later.migration.name}")
            return
        if (twin := self.defined.get(op.name)) is not None:
            if twin.statement.definition == statement.definition:
                self._skip(op, "create_index", f"said twice: {twin.place} makes it")
            else:
                self._refuse(op, f"{twin.place} defines it too, and otherwise", "give one of them another name")
            return
        self.defined[op.name] = wanted
        if wanted.table is None:
            self._refuse(
                op,
                f'table "{statement.table}" does not exist',
                f"run the migration that creates it first, or mend {statement.place}",
            )
            return
        if wanted.table.relkind not in "rmp":
            self._refuse(
                op, f'"{wanted.table.full_name}" is no table', "indexes stand on tables and materialized views"
            )
            return
        canonical = self.seen.canonical.get(wanted.place)
        if canonical and canonical.text is None and not self.seen.server.in_recovery:
            self._refuse(op, f"the server does not take it: {canonical.error}", f"mend {statement.place}")
            return
        found = self._found(wanted)
        if self._redefined(number, op, found):
            found = Found(State.ABSENT, "dropped just before to be defined anew", None)
        self._create_from(op, wanted, found, canonical.text if canonical else None)

    def _redefined(self, number: int, op: _Op, found: Found) -> bool:
        """The migrations drop the old definition themselves before this statement."""
        before = (o for o in self.ops[:number] if o.name == op.name and isinstance(o.statement, DropIndex))
        return found.state is State.DIFFERENT and next(before, None) is not None

    def _create_from(self, op: _Op, wanted: Wanted, found: Found, text: str | None) -> None:
        assert wanted.table is not None
        match found.state:
            case State.SAME if self._unfinished(op, found, text):
                self._adopt(op, wanted, found, text)
            case State.SAME:
                self._skip(op, "create_index", found.why, found.state)
            case State.COVERED:
                self._skip(op, "create_index", f"covered: {found.why}", found.state)
            case State.DIFFERENT if self.manner.replace:
                self._replace(op, wanted, found, text)
            case State.DIFFERENT:
                self._refuse(
                    op,
                    f"an index of that name is there with another definition\n{found.why}",
                    f"apply --replace builds it anew beside the old one, which it then drops; or put"
                    f" DROP INDEX CONCURRENTLY {full(op.name)}; before it in the migration; or choose another name",
                )
            case State.NAME_TAKEN:
                self._refuse(op, found.why, "choose another name")
            case State.UNKNOWN:
                self._refuse(op, f"cannot tell whether it is right: {found.why}")
            case State.INCOMPLETE | State.ABSENT if wanted.table.relkind == "p" and not wanted.statement.only:
                self._tree(op, wanted, found, text)
            case State.ABSENT:
                key = (wanted.table.oid, text or "")
                if (twin := self.planned.get(key)) is not None:
                    self._skip(op, "create_index", f'covered: "{twin}" gets the same definition', State.COVERED)
                    return
                self.planned[key] = op.name
                self._build(op, wanted, text, "not there")
            case State.BUILDING:
                assert found.index is not None
                build = self.seen.building.get(found.index.oid)
                why = f"{found.why}; waits for it"
                self._build(op, wanted, text, why, follows=build.pid if build else None)
            case State.HALF_DROPPED | State.INVALID_READY | State.INVALID_UNREADY:
                assert found.index is not None
                self._drop_leftover(op, found.index, found, text)
                self._build(op, wanted, text, f"was {found.state}")

    def _drop_leftover(self, op: _Op, index: Index, found: Found, text: str | None) -> None:
        have = canonical_text(index.definition)
        other = f"\nit was: {have}\nwanted: {text}" if text is not None and have != text else ""
        self._step(
            replace(op, name=index.full_name),
            "drop_leftover",
            f"DROP INDEX CONCURRENTLY {full(index.full_name)}",
            None,
            f"{found.state}: {found.why}{other}",
            table=Name(index.table_schema, index.table_name),
            oid=index.oid,
        )

    def _build(
        self,
        op: _Op,
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
        self._step(
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

    def _server_builds(self, op: _Op, wanted: Wanted, *, concurrent: bool) -> bool:
        """Refuse what this minor release is known to build wrong, and warn of what it may."""
        version = self.seen.server.version_num
        method = wanted.statement.method
        if (bad := known_bad.fault(version, method=method, concurrent=concurrent, refuse=True)) is not None:
            self._refuse(
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

    def _tree(self, op: _Op, wanted: Wanted, found: Found, text: str | None) -> None:
        """The index of a partitioned table: its own, each partition's, and the ties between them."""
        parts = partitioned.parts(wanted, text, self.seen)
        if stuck := [
            part for part in parts if part.attached and part.index and not part.index.is_good and part.is_leaf
        ]:
            names = ", ".join(str(part.name) for part in stuck)
            self._refuse(
                op,
                f"attached to it and not valid: {names}; PostgreSQL cannot take them out again",
                f"DROP INDEX {full(op.name)} when its lock can be had, then apply again",
            )
            return
        if foreign := [part for part in parts if part.partition.relkind == "f"]:
            names = ", ".join(str(part.partition.full_name) for part in foreign)
            self._refuse(
                op, f"foreign tables cannot have a part of it: {names}", "index the other partitions one by one"
            )
            return
        if found.index is None:
            self._build(op, wanted, text, "not there; the parts follow", only=True)
        for part in parts:
            self._part(replace(op, name=part.name), wanted, part, text)
        for part in reversed(parts):
            if not part.attached:
                self._attach_part(replace(op, name=part.name), part, parts)

    def _part(self, op: _Op, wanted: Wanted, part: Part, text: str | None) -> None:
        index, above = part.index, (("create_index", part.parent),)
        if not part.is_leaf:
            if index is None:
                self._build(op, wanted, text, f"part of {part.parent}", on=part.partition, only=True, after=above)
            return
        if index is not None and index.is_good:
            own = part.name == partitioned.fitted(part.partition.full_name, wanted.name.name)
            if part.attached or own:
                return
            self._skip(
                op, "create_index", f"{index.full_name} has the same definition and becomes the part", State.COVERED
            )
            self.warnings[
                f'a rollback will not drop "{wanted.name}" by itself: "{index.full_name}" becomes a part of it'
            ] = None
            return
        if index is not None:
            state = broken(index, self.seen)
            assert state is not None
            if state.state is State.BUILDING:
                build = self.seen.building.get(index.oid)
                self._build(op, wanted, text, state.why, on=part.partition, follows=build.pid if build else None)
                return
            self._drop_leftover(op, index, state, text)
        self._build(op, wanted, text, f"part of {part.parent}", on=part.partition, after=above)

    def _attach_part(self, op: _Op, part: Part, parts: Sequence[Part]) -> None:
        below = (("attach_index", other.name) for other in parts if other.parent == part.name)
        self._step(
            op,
            "attach_index",
            f"ALTER INDEX {full(part.parent)} ATTACH PARTITION {full(part.name)}",
            None,
            f"becomes a part of {part.parent}",
            table=part.partition.full_name,
            parent=part.parent,
            concurrent=False,
            after=(("create_index", part.parent), ("create_index", part.name), *below),
        )

    def _replace(self, op: _Op, wanted: Wanted, found: Found, text: str | None) -> None:
        """Build anew under another name, swap by rename, drop the old one: at no time is there none."""
        assert found.index is not None
        assert wanted.table is not None
        old = found.index
        held = self._held_back(old)
        if held is None and (old.relkind == "I" or wanted.table.relkind == "p"):
            held = "it is of a partitioned table", "give the new one another name"
        if held is not None:
            self._refuse(op, f"cannot be replaced: {held[0]}", held[1])
            return
        new, away = suffixed(op.name, NEW), suffixed(op.name, OLD)
        if away in self.seen.by_name:
            self._refuse(op, f'"{away}" is in the way', f"DROP INDEX CONCURRENTLY {full(away)}")
            return
        beside = replace(op, name=new)
        there = self.seen.by_name.get(new)
        made = there is not None and there.is_good and canonical_text(there.definition) == text
        if there is not None and not made:
            if there.table_oid != old.table_oid or (there.is_good and not self._made_by_perfctl(new)):
                self._refuse(op, f'"{new}" is in the way', f"DROP INDEX CONCURRENTLY {full(new)}")
                return
            if there.is_good:
                gone = Found(State.DIFFERENT, "of an earlier replacement that is not wanted any more", there)
                self._step(
                    beside, "drop_index", f"DROP INDEX CONCURRENTLY {full(new)}", None, gone.why,
                    table=wanted.table.full_name, oid=there.oid,
                )  # fmt: skip
            elif (state := broken(there, self.seen)) is not None and state.state is not State.BUILDING:
                self._drop_leftover(beside, there, state, text)
        if not made:
            self._build(beside, wanted, text, f"to take the place of the one that\n{found.why}")
        elif self._unfinished(beside, Found(State.SAME, "", there), text):
            self._adopt(beside, wanted, Found(State.SAME, "", there), text)
        self._step(
            op,
            "swap_index",
            f"ALTER INDEX {full(op.name)} RENAME TO {quoted(away.name)};"
            f" ALTER INDEX {full(new)} RENAME TO {quoted(op.name.name)}",
            f"DROP INDEX CONCURRENTLY {full(op.name)}",
            "both names change in one transaction",
            table=wanted.table.full_name,
            canonical=text,
            oid=old.oid,
            renames=((op.name, away), (new, op.name)),
            concurrent=False,
        )
        self.steps.append(replace(self._drop_replaced(op.name, old, undo=again(old)), place=op.statement.place))
        if old.comment is not None and not any(
            isinstance(other.statement, CommentOnIndex) and other.name == op.name for other in self.ops
        ):
            sql = f"COMMENT ON INDEX {full(op.name)} IS {literal(old.comment)}"
            self._step(op, "comment", sql, None, "the old one's comment", table=wanted.table.full_name)

    def _drop_replaced(self, name: Name, old: Index, *, undo: str | None, line: int | None = None) -> Step:
        away = suffixed(name, OLD)
        return Step(
            kind="drop_index",
            name=name,
            sql=f"DROP INDEX CONCURRENTLY {full(away)}",
            undo=undo,
            why="another one has taken its place",
            table=Name(old.table_schema, old.table_name),
            canonical=canonical_text(old.definition),
            comment=old.comment,
            oid=old.oid,
            called=away,
            line=line,
        )

    def _made_by_perfctl(self, name: Name) -> bool:
        return any(entry.full_name == name and entry.kind == "create_index" for entry in self.seen.journal)

    def _held_back(self, index: Index) -> tuple[str, str] | None:
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

    def _unfinished(self, op: _Op, found: Found, text: str | None) -> bool:
        """A run that was killed began it, and the server finished it."""
        entry = unfinished(self.seen.journal).get(op.name) or abandoned(self.seen).get(op.name)
        return entry is not None and found.index is not None and began(entry, found.index, text)

    def _adopt(self, op: _Op, wanted: Wanted, found: Found, text: str | None) -> None:
        assert wanted.table is not None
        assert found.index is not None
        self._step(
            op,
            "adopt_index",
            wanted.sql(concurrently=self.concurrently),
            f"DROP INDEX CONCURRENTLY {full(op.name)}",
            "a run that was killed began it and the server finished it: to be written down",
            table=wanted.table.full_name,
            canonical=text,
            oid=found.index.oid,
            table_bytes=wanted.table.size_bytes,
        )

    def _blockers(self, table: Table | Partition) -> list[str]:
        return [
            str(blocker)
            for blocker in self.seen.blockers
            if blocker.table_oid == table.oid or (blocker.reason == "snapshot" and (blocker.age_s or 0) >= 1)
        ]

    def _drop(self, number: int, op: _Op, statement: DropIndex) -> None:
        self.defined.pop(op.name, None)
        index = self.seen.by_name.get(op.name)
        if index is None:
            self._skip(op, "drop_index", "not there", State.ABSENT)
            return
        later = self._later(number, op.name, CreateIndex)
        if later and self._found(self.by_place[later.statement.place]).state is not State.DIFFERENT:
            self._skip(op, "drop_index", f"{later.migration.name} wants it as it is")
            return
        if index.relkind == "I" or index.parent_oid:
            self._refuse(op, "it belongs to a partitioned index, which cannot be dropped concurrently")
            return
        if (held := self._held_back(index)) is not None:
            self._refuse(op, *held)
            return
        if self._dropped_before(op) and not later:
            self._skip(op, "drop_index", "dropped before, and created again since by somebody: left alone")
            return
        self._drop_step(op, index, statement)

    def _drop_step(self, op: _Op, index: Index, statement: DropIndex) -> None:
        self._step(
            op,
            "drop_index",
            f"DROP INDEX CONCURRENTLY {full(op.name)}" if self.concurrently else f"DROP INDEX {full(op.name)}",
            again(index),
            f"dropped by {statement.place}",
            concurrent=self.concurrently,
            table=Name(index.table_schema, index.table_name),
            oid=index.oid,
            canonical=canonical_text(index.definition),
            comment=index.comment,
        )

    def _dropped_before(self, op: _Op) -> bool:
        undone = {entry.undoes for entry in self.seen.journal if entry.state == "done"}
        return any(
            entry.kind == "drop_index"
            and entry.full_name == op.name
            and entry.migration == op.migration.name
            and entry.state == "done"
            and entry.undoes is None
            and entry.id not in undone
            for entry in self.seen.journal
        )

    def _comment(self, number: int, op: _Op, statement: CommentOnIndex) -> None:
        index = self.seen.by_name.get(op.name)
        creates = [s for s in self.steps if s.kind in ("create_index", "swap_index") and s.name == op.name]
        if not creates and any(s.kind == "drop_index" and s.name == op.name for s in self.steps):
            index = None
        if index is None and not creates:
            if any(skipped.name == op.name for skipped in self.skipped) or self._later(number, op.name, DropIndex):
                self._skip(op, "comment", "its index is not there")
            else:
                self._refuse(op, "there is no such index to comment on")
            return
        if later := self._later(number, op.name, CommentOnIndex):
            self._skip(op, "comment", f"said anew by {later.statement.place}")
            return
        now = index.comment if index and not creates else None
        if now == statement.comment:
            self._skip(op, "comment", "says so already")
            return
        self._step(
            op,
            "comment",
            f"COMMENT ON INDEX {full(op.name)} IS {literal(statement.comment)}",
            f"COMMENT ON INDEX {full(op.name)} IS {literal(now)}",
            "comment is new" if now is None else "comment has changed",
            table=creates[0].table if creates else (Name(index.table_schema, index.table_name) if index else None),
        )

    def _statistics(self, op: _Op, statement: CreateStatistics) -> None:
        table = self.seen.tables.get(self.seen.resolve(statement.table, statement.search_path))
        if table is None:
            self._refuse(op, f'table "{statement.table}" does not exist', f"mend {statement.place}")
            return
        canonical = self.seen.canonical.get(statement.place)
        if canonical and canonical.text is None and not self.seen.server.in_recovery:
            self._refuse(op, f"the server does not take it: {canonical.error}", f"mend {statement.place}")
            return
        there = next((s for s in self.seen.statistics if Name(s.schema, s.name) == op.name), None)
        if there is None:
            sql = f"CREATE STATISTICS {full(op.name)} {statement.tail} FROM {full(table.full_name)}"
            self._step(
                op,
                "create_statistics",
                sql,
                f"DROP STATISTICS IF EXISTS {full(op.name)}",
                "not there",
                table=table.full_name,
            )
        elif canonical and (there.table_oid != table.oid or statistics_text(there.definition) != canonical.text):
            self._refuse(op, "statistics of that name are there with another definition", "choose another name")
        else:
            self._skip(op, "create_statistics", "there, same definition", State.SAME)

    def _extension(self, op: _Op, statement: CreateExtension) -> None:
        if statement.name in (self.seen.server.extensions or []):
            self._skip(op, "create_extension", "installed", State.SAME)
            return
        self._step(op, "create_extension", statement.text, f"DROP EXTENSION {quoted(statement.name)}", "not installed")

    def _analyze(self, op: _Op, statement: Analyze) -> None:
        table = self.seen.tables.get(op.name)
        if table is None:
            self._refuse(op, f'table "{statement.table}" does not exist', f"mend {statement.place}")
            return
        built = any(s.table == op.name and s.kind in ("create_index", "create_statistics") for s in self.steps)
        if not built and self._analyzed_before(op):
            self._skip(op, "analyze", "analyzed after its last new index")
            return
        columns = f" ({', '.join(quoted(column) for column in statement.columns)})" if statement.columns else ""
        self._step(op, "analyze", f"ANALYZE {full(op.name)}{columns}", None, "asked for", table=op.name)

    def _analyzed_before(self, op: _Op) -> bool:
        return any(
            entry.kind == "analyze"
            and entry.full_name == op.name
            and entry.migration == op.migration.name
            and entry.state == "done"
            for entry in self.seen.journal
        )


def again(index: Index) -> str:
    """The statement that makes an index anew as it is: ``pg_get_indexdef`` leaves the tablespace out."""
    statement = index.definition.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
    if index.tablespace is None:
        return statement
    where = f" WHERE {index.predicate}" if index.predicate else ""
    return f"{statement.removesuffix(where)} TABLESPACE {quoted(index.tablespace)}{where}"
