"""What an apply would do, in order, and what it refuses. Pure: migrations and a Snapshot in, a Plan out."""

from __future__ import annotations

from collections.abc import Sequence

from perfctl.indexes.canonical_text import canonical_text, statistics_text
from perfctl.indexes.classify import Found, classify
from perfctl.indexes.draft import Draft, Manner, Op, Selection, again, held_back
from perfctl.indexes.model import Index, Plan, Snapshot, State, Step, Wanted, full, literal, quoted
from perfctl.indexes.owned import index_names
from perfctl.indexes.replacement import LEFT_BESIDE, finish_drops, left_beside, plan_replacement
from perfctl.indexes.rights import missing_rights, no_temporary
from perfctl.indexes.tree import plan_tree
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


def steps(
    migrations: Sequence[Migration],
    wanted: Sequence[Wanted],
    seen: Snapshot,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    manner: Manner = Manner(),  # noqa: B008 - frozen
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
        self.draft = Draft(seen, manner)
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
        self.planned: dict[tuple[int, str], Name] = {}
        self.defined: dict[Name, Wanted] = {}
        #: whose definition could not be had for want of a right
        self.cannot_compare: set[Name] = set()

    def plan(self) -> Plan:
        finish_drops(self.draft, self.selection)
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
        draft = self.draft
        draft.steps.sort(key=lambda step: not self._rejects_writes(step))
        named = {w.name for w in self.by_place.values()} | {step.name for step in draft.steps}
        taken = {before for step in draft.steps for before, _ in step.renames}
        for index, remedy in left_beside(self.seen, named | taken):
            draft.warnings[f'"{index.full_name}" was {LEFT_BESIDE}; {remedy} takes it off'] = None
        rights = missing_rights(draft.steps, self.seen, journal=draft.manner.journal)
        if self.cannot_compare:
            rights.append(no_temporary(self.seen.server))
        return Plan(tuple(draft.steps), tuple(draft.skipped), (*draft.refusals, *rights), tuple(draft.warnings))

    def _rejects_writes(self, step: Step) -> bool:
        index = self.seen.by_oid.get(step.oid) if step.kind == "drop_leftover" and step.oid else None
        return index is not None and index.is_unique and index.is_ready

    def _op(self, migration: Migration, statement: Statement) -> Op | None:
        match statement:
            case CreateIndex() | DropIndex() | CommentOnIndex():
                return Op(migration, statement, next(self.names[statement.place]))
            case Analyze():
                return Op(migration, statement, self.seen.resolve(statement.table, statement.search_path))
            case CreateStatistics():
                table = self.seen.resolve(statement.table, statement.search_path)
                return Op(migration, statement, Name(statement.name.schema or table.schema, statement.name.name))
            case CreateExtension():
                return Op(migration, statement, Name(None, statement.name))
        return None

    def _found(self, wanted: Wanted) -> Found:
        if wanted not in self.found:
            self.found[wanted] = classify(wanted, self.seen, self.going)
        return self.found[wanted]

    def _later(self, number: int, name: Name, kind: type[Statement]) -> Op | None:
        """The next statement of a kind about the same name."""
        return next((op for op in self.ops[number + 1 :] if op.name == name and isinstance(op.statement, kind)), None)

    def _create(self, number: int, op: Op) -> None:
        wanted = self.by_place[op.statement.place]
        statement = wanted.statement
        if later := self._later(number, op.name, DropIndex):
            self.draft.skip(op, "create_index", f"dropped again by {later.migration.name}")
            return
        if (twin := self.defined.get(op.name)) is not None:
            if twin.statement.definition == statement.definition:
                self.draft.skip(op, "create_index", f"said twice: {twin.place} makes it")
            else:
                self.draft.refuse(op, f"{twin.place} defines it too, and otherwise", "give one of them another name")
            return
        self.defined[op.name] = wanted
        if wanted.table is None:
            self.draft.refuse(
                op,
                f'table "{statement.table}" does not exist',
                f"run the migration that creates it first, or mend {statement.place}",
            )
            return
        if wanted.table.relkind not in "rmp":
            self.draft.refuse(
                op, f'"{wanted.table.full_name}" is no table', "indexes stand on tables and materialized views"
            )
            return
        canonical = self.seen.canonical.get(wanted.place)
        if canonical and canonical.text is None and not self.seen.server.in_recovery:
            if not self.seen.server.may_create_temporary:
                self.cannot_compare.add(op.name)
                return
            self.draft.refuse(op, f"the server does not take it: {canonical.error}", f"mend {statement.place}")
            return
        found = self._found(wanted)
        if self._redefined(number, op, found):
            found = Found(State.ABSENT, "dropped just before to be defined anew", None)
        self._create_from(op, wanted, found, canonical.text if canonical else None)

    def _next_comment(self, op: Op) -> Op | None:
        """What the migrations say of the index in a comment."""
        return next((o for o in self.ops if o.name == op.name and isinstance(o.statement, CommentOnIndex)), None)

    def _redefined(self, number: int, op: Op, found: Found) -> bool:
        """The migrations drop the old definition themselves before this statement."""
        before = (o for o in self.ops[:number] if o.name == op.name and isinstance(o.statement, DropIndex))
        return found.state is State.DIFFERENT and next(before, None) is not None

    def _create_from(self, op: Op, wanted: Wanted, found: Found, text: str | None) -> None:
        assert wanted.table is not None
        match found.state:
            case State.SAME if self.draft.is_unfinished(op, found, text):
                self.draft.adopt(op, wanted, found, text)
            case State.SAME:
                self.draft.skip(op, "create_index", found.why, found.state)
            case State.COVERED:
                self.draft.skip(op, "create_index", f"covered: {found.why}", found.state)
            case State.DIFFERENT if self.draft.manner.replace:
                plan_replacement(self.draft, op, wanted, found, text, keep_comment=self._next_comment(op) is None)
            case State.DIFFERENT:
                self.draft.refuse(
                    op,
                    f"an index of that name is there with another definition\n{found.why}",
                    f"apply --replace builds it anew beside the old one, which it then drops; or put"
                    f" DROP INDEX CONCURRENTLY {full(op.name)}; before it in the migration; or choose another name",
                )
            case State.NAME_TAKEN:
                self.draft.refuse(op, found.why, "choose another name")
            case State.UNKNOWN:
                self.draft.refuse(op, f"cannot tell whether it is right: {found.why}")
            case State.INCOMPLETE | State.ABSENT if wanted.table.relkind == "p" and not wanted.statement.only:
                plan_tree(self.draft, op, wanted, found, text)
            case State.ABSENT:
                key = (wanted.table.oid, text or "")
                if (twin := self.planned.get(key)) is not None:
                    self.draft.skip(op, "create_index", f'covered: "{twin}" gets the same definition', State.COVERED)
                    return
                self.planned[key] = op.name
                self.draft.build(op, wanted, text, "not there")
            case State.BUILDING:
                assert found.index is not None
                build = self.seen.building.get(found.index.oid)
                why = f"{found.why}; waits for it"
                self.draft.build(op, wanted, text, why, follows=build.pid if build else None)
            case State.HALF_DROPPED | State.INVALID_READY | State.INVALID_UNREADY:
                assert found.index is not None
                self.draft.drop_leftover(op, found.index, found, text)
                self.draft.build(op, wanted, text, f"was {found.state}")

    def _drop(self, number: int, op: Op, statement: DropIndex) -> None:
        self.defined.pop(op.name, None)
        index = self.seen.by_name.get(op.name)
        if index is None:
            self.draft.skip(op, "drop_index", "not there", State.ABSENT)
            return
        later = self._later(number, op.name, CreateIndex)
        if later and self._found(self.by_place[later.statement.place]).state is not State.DIFFERENT:
            self.draft.skip(op, "drop_index", f"{later.migration.name} wants it as it is")
            return
        if index.relkind == "I" or index.parent_oid:
            self.draft.refuse(op, "it belongs to a partitioned index, which cannot be dropped concurrently")
            return
        if (held := held_back(index)) is not None:
            self.draft.refuse(op, *held)
            return
        if self._dropped_before(op) and not later:
            self.draft.skip(op, "drop_index", "dropped before, and created again since by somebody: left alone")
            return
        self._drop_step(op, index, statement)

    def _drop_step(self, op: Op, index: Index, statement: DropIndex) -> None:
        self.draft.step(
            op,
            "drop_index",
            f"DROP INDEX CONCURRENTLY {full(op.name)}" if self.draft.concurrently else f"DROP INDEX {full(op.name)}",
            again(index),
            f"dropped by {statement.place}",
            concurrent=self.draft.concurrently,
            table=Name(index.table_schema, index.table_name),
            oid=index.oid,
            canonical=canonical_text(index.definition),
            comment=index.comment,
        )

    def _dropped_before(self, op: Op) -> bool:
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

    def _comment(self, number: int, op: Op, statement: CommentOnIndex) -> None:
        index = self.seen.by_name.get(op.name)
        creates = [s for s in self.draft.steps if s.kind in ("create_index", "swap_index") and s.name == op.name]
        if not creates and any(s.kind == "drop_index" and s.name == op.name for s in self.draft.steps):
            index = None
        if index is None and op.name in self.cannot_compare:
            return
        if index is None and not creates:
            if any(skipped.name == op.name for skipped in self.draft.skipped) or self._later(
                number, op.name, DropIndex
            ):
                self.draft.skip(op, "comment", "its index is not there")
            else:
                self.draft.refuse(op, "there is no such index to comment on")
            return
        if later := self._later(number, op.name, CommentOnIndex):
            self.draft.skip(op, "comment", f"said anew by {later.statement.place}")
            return
        now = index.comment if index and not creates else None
        if now == statement.comment:
            self.draft.skip(op, "comment", "says so already")
            return
        self.draft.step(
            op,
            "comment",
            f"COMMENT ON INDEX {full(op.name)} IS {literal(statement.comment)}",
            f"COMMENT ON INDEX {full(op.name)} IS {literal(now)}",
            "comment is new" if now is None else "comment has changed",
            table=creates[0].table if creates else (Name(index.table_schema, index.table_name) if index else None),
        )

    def _statistics(self, op: Op, statement: CreateStatistics) -> None:
        table = self.seen.tables.get(self.seen.resolve(statement.table, statement.search_path))
        if table is None:
            self.draft.refuse(op, f'table "{statement.table}" does not exist', f"mend {statement.place}")
            return
        canonical = self.seen.canonical.get(statement.place)
        if canonical and canonical.text is None and not self.seen.server.in_recovery:
            self.draft.refuse(op, f"the server does not take it: {canonical.error}", f"mend {statement.place}")
            return
        there = next((s for s in self.seen.statistics if Name(s.schema, s.name) == op.name), None)
        if there is None:
            sql = f"CREATE STATISTICS {full(op.name)} {statement.tail} FROM {full(table.full_name)}"
            self.draft.step(
                op,
                "create_statistics",
                sql,
                f"DROP STATISTICS IF EXISTS {full(op.name)}",
                "not there",
                table=table.full_name,
            )
        elif canonical and (there.table_oid != table.oid or statistics_text(there.definition) != canonical.text):
            self.draft.refuse(op, "statistics of that name are there with another definition", "choose another name")
        else:
            self.draft.skip(op, "create_statistics", "there, same definition", State.SAME)

    def _extension(self, op: Op, statement: CreateExtension) -> None:
        if statement.name in (self.seen.server.extensions or []):
            self.draft.skip(op, "create_extension", "installed", State.SAME)
            return
        self.draft.step(
            op, "create_extension", statement.text, f"DROP EXTENSION {quoted(statement.name)}", "not installed"
        )

    def _analyze(self, op: Op, statement: Analyze) -> None:
        table = self.seen.tables.get(op.name)
        if table is None:
            self.draft.refuse(op, f'table "{statement.table}" does not exist', f"mend {statement.place}")
            return
        built = any(s.table == op.name and s.kind in ("create_index", "create_statistics") for s in self.draft.steps)
        if not built and self._analyzed_before(op):
            self.draft.skip(op, "analyze", "analyzed after its last new index")
            return
        columns = f" ({', '.join(quoted(column) for column in statement.columns)})" if statement.columns else ""
        self.draft.step(op, "analyze", f"ANALYZE {full(op.name)}{columns}", None, "asked for", table=op.name)

    def _analyzed_before(self, op: Op) -> bool:
        return any(
            entry.kind == "analyze"
            and entry.full_name == op.name
            and entry.migration == op.migration.name
            and entry.state == "done"
            for entry in self.seen.journal
        )
