"""What a database's indexes are worth: the items of verify and status. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfctl.figures import human_bytes
from perfctl.indexes.classify import Found, classify, dead
from perfctl.indexes.model import Index, Snapshot, State, Wanted, full
from perfctl.indexes.owned import abandoned, index_names, standing, unfinished
from perfctl.indexes.replacement import LEFT_BESIDE, left_beside
from perfctl.migrations.model import CreateIndex, DropIndex, Migration, Name
from perfctl.report import Item, Status


def dropped_again(migrations: Sequence[Migration], wanted: Sequence[Wanted], seen: Snapshot) -> set[Name]:
    """The indexes whose last word in the migrations is DROP INDEX."""
    gone: dict[Name, None] = {}
    names = {place: iter(found) for place, found in index_names(migrations, wanted, seen).items()}
    for migration in migrations:
        for statement in migration.statements:
            if isinstance(statement, DropIndex):
                gone[next(names[statement.place])] = None
            elif isinstance(statement, CreateIndex):
                gone.pop(next(names[statement.place]), None)
    return set(gone)


def last_words(wanted: Sequence[Wanted]) -> list[Wanted]:
    """One definition a name: of an index that the migrations define several times, the last."""
    return list({w.name: w for w in wanted}.values())


def verify(
    migrations: Sequence[Migration],
    wanted: Sequence[Wanted],
    seen: Snapshot,
    *,
    absent: bool = False,
    corruption: Mapping[int, str | None] | None = None,
) -> list[Item]:
    """One item an index, then one for each broken leftover in the schemas.

    With ``absent`` the indexes must be gone: the proof of a rollback. ``corruption`` is what amcheck said of
    an index's OID; None is "sound".
    """
    gone = dropped_again(migrations, wanted, seen)
    judge = _verify_absent if absent else _verify_present
    last = last_words(wanted)
    items = [judge(w, seen, corruption) for w in last if w.name not in gone]
    items += [_judge_drop(name, seen, absent=absent) for name in sorted(gone, key=str)]
    named = {w.name for w in wanted if w.name not in gone}
    items += [_leftover(index, why) for index, why in dead(seen) if index.full_name not in named]
    return items + _left_beside(last, seen)


def _left_beside(wanted: Sequence[Wanted], seen: Snapshot) -> list[Item]:
    return [
        Item("index", str(index.full_name), Status.FINDING, LEFT_BESIDE, remedy, facts(index))
        for index, remedy in left_beside(seen, {w.name for w in wanted})
    ]


def facts(index: Index) -> dict[str, Any]:
    """The figures of an index that a report carries."""
    return {
        "table": f"{index.table_schema}.{index.table_name}",
        "oid": index.oid,
        "method": index.method,
        "size_bytes": index.size_bytes,
        "scans": index.scans,
        "definition": index.definition,
    }


def _verify_present(w: Wanted, seen: Snapshot, corruption: Mapping[int, str | None] | None) -> Item:
    name = str(w.name)
    at = {"file": w.place.path, "line": w.place.line}
    if w.table is None:
        return Item("index", name, Status.FINDING, f'table "{w.statement.table}" does not exist', data=at)
    found = classify(w, seen)
    data = {**at, "state": str(found.state), **(facts(found.index) if found.index else {})}
    match found.state:
        case State.SAME:
            assert found.index is not None
            return _verify_good(name, found.index, data, corruption)
        case State.COVERED:
            return Item("index", name, Status.OK, f"covered: {found.why}", data=data)
        case State.UNKNOWN:
            return Item("index", name, Status.UNKNOWN, found.why, data=data)
    return Item("index", name, Status.FINDING, f"{found.state}: {found.why}", remedy=_remedy(found), data=data)


def _verify_good(name: str, index: Index, data: dict[str, Any], corruption: Mapping[int, str | None] | None) -> Item:
    if not index.is_good:
        return Item(
            "index",
            name,
            Status.FINDING,
            "not valid: some partition has no part of it attached, so no query uses it",
            remedy=f"ALTER INDEX {full(index.full_name)} ATTACH PARTITION … for each partition's index",
            data=data,
        )
    if not index.is_usable:
        return Item(
            "index",
            name,
            Status.FINDING,
            "valid, but transactions older than it still run and new plans cannot use it yet",
            remedy="end the old transactions (perfctl indexes plan names them), then verify again",
            data=data,
        )
    if corruption is not None and index.oid in corruption:
        data = {**data, "amcheck": corruption[index.oid] or "ok"}
        if problem := corruption[index.oid]:
            return Item(
                "index",
                name,
                Status.FINDING,
                f"amcheck: {problem}",
                remedy=f"REINDEX INDEX CONCURRENTLY {full(index.full_name)}",
                data=data,
            )
    sound = ", amcheck ok" if "amcheck" in data else ""
    return Item(
        "index", name, Status.OK, f"valid, {human_bytes(index.size_bytes)}, {index.scans} scans{sound}", data=data
    )


def _remedy(found: Found) -> str | None:
    match found.state:
        case State.ABSENT | State.INCOMPLETE | State.HALF_DROPPED | State.INVALID_READY | State.INVALID_UNREADY:
            return "perfctl indexes apply"
        case State.BUILDING:
            return "wait for the build to end, then verify again"
        case State.DIFFERENT | State.NAME_TAKEN:
            return "perfctl indexes plan shows what to change"
    return None


def _verify_absent(w: Wanted, seen: Snapshot, _: Mapping[int, str | None] | None) -> Item:
    index = seen.by_name.get(w.name)
    if index is None:
        if (moved := _renamed(w.name, seen)) is not None:
            why = f'still there, renamed to "{moved.full_name}"'
            return Item("index", str(w.name), Status.FINDING, why, "rename it back, then roll back", facts(moved))
        return Item("index", str(w.name), Status.OK, "gone", data={"state": "absent"})
    if not index.is_good and index.relkind == "i":
        state = classify(w, seen)
        remedy = (
            "wait for the build to end" if state.state is State.BUILDING else f"DROP INDEX CONCURRENTLY {full(w.name)}"
        )
        return Item("index", str(w.name), Status.FINDING, f"{state.state}: {state.why}", remedy, facts(index))
    mine = {entry.full_name for entry in standing(seen.journal) if entry.kind == "create_index"}
    if w.name not in mine | unfinished(seen.journal).keys() | abandoned(seen).keys():
        return Item("index", str(w.name), Status.OK, "there, but not made by perfctl", data=facts(index))
    return Item("index", str(w.name), Status.FINDING, "still there", "perfctl indexes rollback", facts(index))


def _renamed(name: Name, seen: Snapshot) -> Index | None:
    """The index that perfctl made under that name and that bears another one now."""
    made = [e for e in standing(seen.journal) if e.kind == "create_index" and e.full_name == name]
    return next((seen.by_oid[e.object_oid] for e in made if e.object_oid in seen.by_oid), None)


def _judge_drop(name: Name, seen: Snapshot, *, absent: bool) -> Item:
    """An index that the migrations drop: gone, or after a rollback there again if perfctl dropped it."""
    index = seen.by_name.get(name)
    if not absent:
        if index is None:
            return Item("index", str(name), Status.OK, "dropped")
        return Item("index", str(name), Status.FINDING, "the migrations drop it", "perfctl indexes apply", facts(index))
    dropped = any(entry.kind == "drop_index" and entry.full_name == name for entry in standing(seen.journal))
    if dropped:
        return Item("index", str(name), Status.FINDING, "still dropped", "perfctl indexes rollback")
    there = "there" if index is not None else "not there, and not dropped by perfctl"
    return Item("index", str(name), Status.OK, there, data=facts(index) if index else {})


def _leftover(index: Index, why: str) -> Item:
    state = f"ready {str(index.is_ready).lower()}, live {str(index.is_live).lower()}"
    return Item(
        "index",
        str(index.full_name),
        Status.FINDING,
        f"invalid ({state}), {human_bytes(index.size_bytes)}: {why}",
        remedy=f"DROP INDEX CONCURRENTLY {full(index.full_name)}, or REINDEX INDEX CONCURRENTLY if it is wanted",
        data={**facts(index), "state": "invalid"},
    )


def status(migrations: Sequence[Migration], wanted: Sequence[Wanted], seen: Snapshot) -> list[Item]:
    """One item a migration: how many of its indexes are there, and how many of those perfctl made."""
    mine = {entry.full_name for entry in standing(seen.journal) if entry.kind == "create_index"}
    gone = dropped_again(migrations, wanted, seen)
    names = index_names(migrations, wanted, seen)
    items = []
    for migration in migrations:
        own = [w for w in last_words(wanted) if w.migration == migration.name and w.name not in gone]
        found = [(w, classify(w, seen) if w.table else Found(State.ABSENT, "its table is missing")) for w in own]
        drops = {
            name: name not in seen.by_name
            for s in migration.statements
            if isinstance(s, DropIndex)
            for name in names[s.place]
            if name in gone
        }
        items.append(_migration_item(migration, found, drops, seen, mine))
    known = {migration.name for migration in migrations}
    forgotten = {e.migration for e in standing(seen.journal) if e.migration and e.migration not in known}
    items += [
        Item("migration", str(name), Status.FINDING, "applied, but its file is not here") for name in sorted(forgotten)
    ]
    return items + _left_beside(wanted, seen)


def _migration_item(
    migration: Migration,
    found: Sequence[tuple[Wanted, Found]],
    drops: Mapping[Name, bool],
    seen: Snapshot,
    mine: set[Name],
) -> Item:
    there = [f for _, f in found if f.state in (State.SAME, State.COVERED)]
    made = sum(1 for f in there if f.index and f.index.full_name in mine)
    missing = [str(w.name) for w, f in found if f.state not in (State.SAME, State.COVERED, State.UNKNOWN)]
    missing += [str(name) for name, is_gone in drops.items() if not is_gone]
    unknown = [str(w.name) for w, f in found if f.state is State.UNKNOWN]
    hashes = {e.migration_sha256 for e in standing(seen.journal) if e.migration == migration.name}
    detail = f"{len(there)} of {len(found)} indexes there, {made} made by perfctl"
    if drops:
        detail += f"; {sum(drops.values())} of {len(drops)} drops done"
    if hashes and migration.sha256 not in hashes:
        detail += "; the file has changed since it was applied"
    data = {
        "file": str(migration.path),
        "sha256": migration.sha256,
        "indexes": len(found),
        "there": len(there),
        "made_by_perfctl": made,
        "drops": {str(name): is_gone for name, is_gone in drops.items()},
        "states": {str(w.name): str(f.state) for w, f in found},
    }
    if missing:
        return Item("migration", migration.name, Status.PLANNED, detail, "perfctl indexes apply", data)
    if unknown:
        return Item("migration", migration.name, Status.UNKNOWN, f"{detail}; cannot compare {len(unknown)}", None, data)
    return Item("migration", migration.name, Status.OK, detail, None, data)
