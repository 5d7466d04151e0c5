"""Which state each wanted index is in. Pure: a Snapshot in, a State and its reason out."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.model import Build, Index, Snapshot, State, Wanted
from perfctl.migrations.model import Name


@dataclass(frozen=True, slots=True)
class Found:
    """The state of one wanted index, why, and the index itself where there is one."""

    state: State
    why: str
    index: Index | None = None


_KINDS = {
    "r": "a table", "v": "a view", "m": "a materialized view", "S": "a sequence", "f": "a foreign table",
    "p": "a partitioned table", "c": "a type", "t": "a TOAST table",
}  # fmt: skip


def classify(wanted: Wanted, seen: Snapshot, going: Container[Name] = ()) -> Found:
    """The state that the catalogue shows. ``wanted.table`` must be there; what is ``going`` covers nothing."""
    assert wanted.table is not None
    index = seen.by_name.get(wanted.name)
    canonical = seen.canonical.get(wanted.place)
    text = canonical.text if canonical else None
    if index is None:
        taken = seen.tables.get(wanted.name)
        if taken is not None and taken.relkind not in "iI":
            return Found(State.NAME_TAKEN, f"the name belongs to {_KINDS.get(taken.relkind, 'something else')}")
        if text is not None and (cover := covering(wanted, text, seen, going)):
            return Found(State.COVERED, f'"{cover.full_name}" has the same definition', cover)
        return Found(State.ABSENT, "not there", None)
    if index.table_oid != wanted.table.oid:
        return Found(
            State.NAME_TAKEN, f"the name belongs to an index of {index.table_schema}.{index.table_name}", index
        )
    if (wrong := broken(index, seen)) is not None:
        return wrong
    if text is None:
        reason = canonical.error if canonical and canonical.error else "its definition could not be compared"
        return Found(State.UNKNOWN, reason, index)
    if (difference := _difference(wanted, index, text)) is not None:
        return Found(State.DIFFERENT, difference, index)
    if index.relkind == "I" and not index.is_valid and not wanted.statement.only:
        return Found(State.INCOMPLETE, "some partition has no part of it attached, so no query uses it", index)
    return Found(State.SAME, "there, valid, same definition", index)


def covering(wanted: Wanted, text: str, seen: Snapshot, going: Container[Name]) -> Index | None:
    """A good index of the same table and definition under another name."""
    assert wanted.table is not None
    return next(
        (
            index
            for index in seen.by_table.get(wanted.table.oid, [])
            if index.is_good and index.full_name != wanted.name and index.full_name not in going
            if canonical_text(index.definition) == text
        ),
        None,
    )


def broken(index: Index, seen: Snapshot) -> Found | None:
    """What is wrong with an index that is not good, or who is building it; None for a good one."""
    if index.is_good:
        # A REINDEX CONCURRENTLY may be under way; until it is done this one serves.
        return None
    if build := seen.building.get(index.oid):
        by = f"pid {build.pid} ({build.role or '?'}, {build.application or '?'}), {build.phase or 'phase not visible'}"
        return Found(State.BUILDING, f"being built by {by}", index)
    if hidden := next((b for b in seen.builds if b.index_oid is None and b.table_oid in (None, index.table_oid)), None):
        return Found(State.BUILDING, f"pid {hidden.pid} is building; this role cannot see what", index)
    if (reindex := _reindex_of(index, seen)) is not None:
        return Found(State.BUILDING, f"pid {reindex.pid} is rebuilding an index of its table", index)
    if index.relkind == "I":
        # Valid only once every partition has its part attached.
        return None
    if not index.is_live or _was_being_dropped(index, seen):
        return Found(State.HALF_DROPPED, "a concurrent drop of it was interrupted", index)
    if index.is_ready:
        return Found(State.INVALID_READY, "a build failed in its last phase; every write still pays for it", index)
    return Found(State.INVALID_UNREADY, "a build failed before it was ready", index)


def _reindex_of(index: Index, seen: Snapshot) -> Build | None:
    """The REINDEX CONCURRENTLY that a transient index may be of; the progress view names the old index."""
    if not index.full_name.name.rstrip("0123456789").endswith(("_ccnew", "_ccold")):
        return None
    commands = (b for b in seen.builds if b.table_oid == index.table_oid and (b.command or "").startswith("REINDEX"))
    return next(commands, None)


def _was_being_dropped(index: Index, seen: Snapshot) -> bool:
    mine = [entry for entry in seen.journal if entry.object_oid == index.oid]
    return bool(mine) and mine[-1].kind == "drop_index" and mine[-1].state != "done"


def _difference(wanted: Wanted, index: Index, text: str) -> str | None:
    have = canonical_text(index.definition)
    if have != text:
        return f"has: {have}\nwanted: {text}"
    tablespace = wanted.statement.tablespace
    if tablespace and tablespace not in ("pg_default", index.tablespace):
        return f"has: tablespace {index.tablespace or 'pg_default'}\nwanted: tablespace {tablespace}"
    return None


def dead(seen: Snapshot) -> list[tuple[Index, str]]:
    """Every broken index that nobody is building, in the snapshot's scope, with what it is."""
    found = []
    for index in seen.indexes:
        if index.is_good or index.relkind == "I" or index.oid in seen.building:
            continue
        state = broken(index, seen)
        if state is None or state.state is State.BUILDING:
            continue
        found.append((index, _leftover_of(index.full_name) or state.why))
    return found


def _leftover_of(name: Name) -> str | None:
    base = name.name.rstrip("0123456789")
    if base.endswith("_ccnew"):
        return "left behind by a failed REINDEX CONCURRENTLY"
    if base.endswith("_ccold"):
        return "the old half of an unfinished REINDEX CONCURRENTLY"
    if name.name.startswith("index_") and name.name[6:].isdigit():
        return "left behind by pg_repack"
    return None
