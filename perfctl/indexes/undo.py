"""What a rollback would do: exactly what the journal says perfctl made, newest first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfctl.indexes import bringback
from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.draft import Selection
from perfctl.indexes.model import Entry, Index, Plan, Refusal, Skipped, Snapshot, Step, full, literal, quoted
from perfctl.indexes.owned import abandoned, began, own_drops, standing, unfinished
from perfctl.indexes.partitioned import suffixed
from perfctl.indexes.replacement import NEW, OLD
from perfctl.indexes.rights import missing_rights
from perfctl.migrations.model import Name


def steps(
    seen: Snapshot,
    selection: Selection,
    *,
    to: int | None = None,
    migrations: Sequence[str] = (),
    journal: bool = True,
) -> Plan:
    """Everything that a rollback would send, newest first.

    ``to`` keeps the migrations up to that number; ``migrations`` rolls back those alone. An index that was
    changed since it was made is refused unless ``selection`` names it outright.
    """
    owned = [*standing(seen.journal), *unfinished(seen.journal).values(), *abandoned(seen).values()]
    chosen = [
        entry
        for entry in sorted(owned, key=lambda e: e.id, reverse=True)
        if entry.undo is not None
        and selection.takes(entry.full_name)
        and (not migrations or entry.migration in migrations)
        and (to is None or entry.migration_number is None or entry.migration_number > to)
    ]
    # What an earlier step of this very run takes off is not in the way of a later one.
    going = {e.full_name for e in chosen if e.kind == "create_index" and not bringback.swapped_back(e, seen.journal)}
    settled = _settled(chosen, seen.journal)
    coming = {entry.full_name for entry in chosen if entry.kind == "drop_index" and entry.id not in settled}
    parts = {
        index.full_name: parent
        for index in seen.indexes
        if index.parent_oid and (parent := seen.by_oid.get(index.parent_oid)) and parent.full_name in going
    }
    done: list[Step] = []
    skipped: list[Skipped] = []
    refusals: list[Refusal] = []
    brought_back: set[int] = set()
    beside = {suffixed(entry.full_name, NEW) for entry in chosen if _old(entry, seen, settled)}
    for entry in chosen:
        if entry.id in brought_back or (entry.kind == "create_index" and entry.full_name in beside):
            continue
        if entry.kind == "create_index" and (parent := parts.get(entry.full_name)):
            skipped.append(
                Skipped("drop_index", entry.full_name, f'goes with "{parent.full_name}", which it is a part of')
            )
            continue
        if entry.id in settled:
            done.append(_step(entry, "settle", "", "perfctl made it and dropped it again"))
            continue
        match _undo(entry, seen, going, coming, named=selection.names(entry.full_name)):
            case Skipped() as skip:
                skipped.append(skip)
            case Refusal() as refusal:
                refusals.append(refusal)
            case [Step(kind="drop_index", called=None) as drop] if old := _old(entry, seen, settled):
                brought_back.add(old.id)
                match bringback.steps(entry, old, seen.by_name[entry.full_name], drop, seen):
                    case Refusal() as refusal:
                        refusals.append(refusal)
                    case made:
                        done += made if old.comment is None else [*made, _comment_again(old)]
            case made:
                done.extend(made)
    left = (e for e in seen.journal if selection.takes(e.full_name) and e.id not in brought_back)
    done += [step for entry in left for step in _put_back(entry, seen)]
    return Plan(tuple(done), tuple(skipped), (*refusals, *missing_rights(done, seen, journal=journal)))


def _settled(chosen: Sequence[Entry], journal: Sequence[Entry]) -> set[int]:
    """The lines to be taken back that need no statement: a build, and the drop that ended it."""
    ours = {entry.id for entry in chosen}
    return {line for pair in own_drops(journal).items() if ours.issuperset(pair) for line in pair}


def _old(made: Entry, seen: Snapshot, settled: set[int]) -> Entry | None:
    """What a good index has taken the place of; of one that is broken nothing is lost by dropping it first."""
    index = seen.by_name.get(made.full_name)
    if made.kind != "create_index" or index is None or not index.is_good or index.relkind == "I":
        return None
    old = bringback.replaced(made, seen)
    # What perfctl had made itself does not come back either.
    return None if old is None or old.id in settled else old


def _put_back(entry: Entry, seen: Snapshot) -> list[Step]:
    """An index that was renamed away for another one, and whose drop a run that ended early did not come to."""
    index = seen.by_oid.get(entry.object_oid or 0)
    away = suffixed(entry.full_name, OLD)
    if entry.kind != "drop_index" or entry.state == "done" or entry.undoes or index is None or index.full_name != away:
        return []
    if index.is_good:
        sql = f"ALTER INDEX {full(away)} RENAME TO {quoted(entry.name)}"
        back = _step(entry, "undo_swap_index", sql, f"renamed away by run {entry.run_id}", index.oid)
        return [replace(back, concurrent=False)]
    leftover = f"DROP INDEX CONCURRENTLY {full(away)}"
    again = _step(entry, "create_index", entry.undo or "", f"half dropped by run {entry.run_id}")
    half = f'"{away}" is half dropped'
    steps = [replace(_step(entry, "drop_leftover", leftover, half, index.oid), called=away), again]
    return steps if entry.comment is None else [*steps, _comment_again(entry)]


def _undo(
    entry: Entry, seen: Snapshot, going: set[Name], coming: set[Name], *, named: bool
) -> list[Step] | Skipped | Refusal:
    match entry.kind:
        case "create_index":
            return _undo_create(entry, seen, going, named=named)
        case "drop_index":
            return _undo_drop(entry, seen, going)
        case "comment":
            return _undo_comment(entry, seen, going, coming)
        case _:
            return [_step(entry, f"undo_{entry.kind}", entry.undo or "", f"made by run {entry.run_id}")]


def _step(entry: Entry, kind: str, sql: str, why: str, oid: int | None = None) -> Step:
    table = Name(entry.table_schema, entry.table_name) if entry.table_name else None
    return Step(
        kind=kind,
        name=entry.full_name,
        sql=sql,
        undo=None,
        why=why,
        table=table,
        migration=entry.migration,
        migration_number=entry.migration_number,
        migration_sha256=entry.migration_sha256,
        oid=oid,
        undoes=entry.id,
    )


def _undo_create(entry: Entry, seen: Snapshot, going: set[Name], *, named: bool) -> list[Step] | Skipped | Refusal:
    if (half := bringback.swapped_back(entry, seen.journal)) is not None:
        # What has its name now is the old one again: only the other's drop is left to do.
        drop = _step(entry, "drop_index", half.statement, f"made by run {entry.run_id}", half.object_oid)
        return [replace(drop, called=suffixed(entry.full_name, OLD), line=half.id)]
    index = seen.by_name.get(entry.full_name)
    if index is None:
        moved = seen.by_oid.get(entry.object_oid or 0)
        if moved is None:
            return Skipped("drop_index", entry.full_name, "gone already")
        return Refusal(entry.full_name, f'it is called "{moved.full_name}" now', "rename it back, or drop it by hand")
    if build := seen.building.get(index.oid):
        return Refusal(entry.full_name, f"pid {build.pid} is building it", "wait for it, or end it, then roll back")
    if entry.state == "started" and not (began(entry, index, None) or named):
        return Skipped("drop_index", entry.full_name, "there, but not what the run that was killed began")
    if (reason := _held(index, seen, going)) is not None:
        return Refusal(entry.full_name, *reason)
    if entry.state == "done" and (change := _changed(entry, index)) is not None and not named:
        return Refusal(
            entry.full_name,
            f"changed since perfctl made it: {change}",
            f"perfctl indexes rollback --only '{entry.full_name}' takes it off all the same;"
            f" --except '{entry.full_name}' leaves it",
        )
    why = f"made by run {entry.run_id}" if entry.state == "done" else f"left by run {entry.run_id}, which was killed"
    drop = _step(entry, "drop_index", entry.undo or "", why, index.oid)
    if index.relkind != "I":
        return [drop]
    # It is dropped at a stroke, with all its parts, under a lock that keeps everybody off all these tables.
    tables = [p.full_name for p in seen.partitions if p.root_oid == index.table_oid]
    return [replace(drop, concurrent=False, locks=(Name(index.table_schema, index.table_name), *tables))]


def _held(index: Index, seen: Snapshot, going: set[Name]) -> tuple[str, str] | None:
    """Why PostgreSQL would not drop it, or would drop more than perfctl made; and the cure."""
    if index.constraint_name:
        return f'constraint "{index.constraint_name}" needs it now', "drop that constraint, then roll back again"
    if index.parent_oid:
        parent = seen.by_oid.get(index.parent_oid)
        if parent is None or parent.full_name not in going:
            return "it is a part of a partitioned index now", "drop that index, then roll back again"
    # A partition that is younger than the whole has got its part from the server, for the whole's sake.
    foreign = [
        str(part.full_name)
        for part in _below(index, seen)
        if part.full_name not in going and part.table_oid < index.oid
    ]
    if foreign:
        return (
            f"attached parts that perfctl did not make would go with it: {', '.join(foreign)}",
            "drop it by hand if that is meant, or leave it with --except",
        )
    return None


def _below(index: Index, seen: Snapshot) -> list[Index]:
    """Its parts on every level: all of them go with it."""
    parts = [part for part in seen.indexes if part.parent_oid == index.oid]
    return [each for part in parts for each in (part, *_below(part, seen))]


def _changed(entry: Entry, index: Index) -> str | None:
    """What tells it from what was made. REINDEX gives it another OID and leaves it what it is."""
    if (index.table_schema, index.table_name) != (entry.table_schema, entry.table_name):
        return f"it is an index of {index.table_schema}.{index.table_name} now"
    if entry.canonical is not None and canonical_text(index.definition) != entry.canonical:
        return f"its definition is now {canonical_text(index.definition)}"
    return None


def _undo_drop(entry: Entry, seen: Snapshot, going: set[Name]) -> list[Step] | Skipped | Refusal:
    index = None if entry.full_name in going else seen.by_name.get(entry.full_name)
    if index is None and Name(entry.table_schema, entry.table_name or "") not in seen.tables:
        return Skipped("create_index", entry.full_name, "its table is gone")
    steps = []
    if index is not None and not index.is_good:
        drop = f"DROP INDEX CONCURRENTLY {full(entry.full_name)}"
        steps.append(_step(entry, "drop_leftover", drop, "broken leftover in the way", index.oid))
    if index is None or not index.is_good:
        steps.append(_step(entry, "create_index", entry.undo or "", f"dropped by run {entry.run_id}"))
    elif entry.canonical is not None and canonical_text(index.definition) != entry.canonical:
        return Refusal(entry.full_name, "another index has its name now", "rename that one, then roll back again")
    # Whoever created it again chose its comment; perfctl's own half-done undo did not.
    ours = steps or any(e.undoes == entry.id and e.kind == "create_index" and e.state == "done" for e in seen.journal)
    if entry.comment is not None and ours:
        steps.append(_comment_again(entry))
    return steps or Skipped("create_index", entry.full_name, "there again already")


def _comment_again(entry: Entry) -> Step:
    sql = f"COMMENT ON INDEX {full(entry.full_name)} IS {literal(entry.comment)}"
    return _step(entry, "comment", sql, "the comment that it bore")


def _undo_comment(entry: Entry, seen: Snapshot, going: set[Name], coming: set[Name]) -> list[Step] | Skipped | Refusal:
    if entry.full_name in going:
        return Skipped("comment", entry.full_name, "goes with its index")
    if entry.full_name not in coming and seen.by_name.get(entry.full_name) is None:
        return Skipped("comment", entry.full_name, "its index is gone")
    return [_step(entry, "comment", entry.undo or "", f"made by run {entry.run_id}")]
