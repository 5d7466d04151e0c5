"""The steps that bring back an index whose place another one has taken: at no time is there none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.classify import broken
from perfctl.indexes.model import Entry, Index, Refusal, Snapshot, State, Step, full, quoted
from perfctl.indexes.partitioned import suffixed
from perfctl.indexes.replacement import NEW, OLD


def replaced(made: Entry, seen: Snapshot) -> Entry | None:
    """The line of the index that ``made`` has taken the place of; None where that one is not to be built anew.

    It is not while it still stands under the name that it was given: then it only has to be renamed.
    """
    drops = (
        entry
        for entry in reversed(seen.journal)
        if entry.id < made.id
        if (entry.run_id, entry.kind, entry.full_name) == (made.run_id, "drop_index", made.full_name)
        if entry.statement == _drop_away(made) and entry.undoes is None
    )
    found = next(drops, None)
    if found is None or _named(found) is None or swapped_back(made, seen.journal) is not None:
        return None
    away = seen.by_oid.get(found.object_oid or 0)
    return None if away is not None and away.is_good else found


def swapped_back(made: Entry, journal: Sequence[Entry]) -> Entry | None:
    """The line of a rollback that has renamed ``made`` away already, and did not come to drop it."""
    lines = (e for e in journal if e.undoes == made.id and e.kind == "drop_index" and e.state != "done")
    return next((e for e in lines if e.statement == _drop_away(made)), None)


def steps(made: Entry, old: Entry, index: Index, drop: Step, seen: Snapshot) -> list[Step] | Refusal:
    """Build the ``old`` one beside, swap by rename, and ``drop`` the one that was ``made`` and is ``index`` now."""
    new, away = suffixed(made.full_name, NEW), suffixed(made.full_name, OLD)
    found: list[Step] = []
    if (half := seen.by_name.get(away)) is not None:
        if half.is_good or half.oid != old.object_oid:
            return Refusal(made.full_name, f'"{away}" is in the way', f"DROP INDEX CONCURRENTLY {full(away)}")
        found.append(_leftover(drop, half, "half dropped"))
    there = seen.by_name.get(new)
    ready = there is not None and there.is_good and canonical_text(there.definition) == old.canonical
    if there is not None and not ready:
        state = broken(there, seen)
        if state is None or state.state is State.BUILDING or there.table_oid != index.table_oid:
            return Refusal(made.full_name, f'"{new}" is in the way', f"DROP INDEX CONCURRENTLY {full(new)}")
        found.append(_leftover(drop, there, state.why))
    if not ready:
        found.append(
            replace(
                drop,
                kind="create_index",
                name=new,
                sql=_named(old) or "",
                undo=f"DROP INDEX CONCURRENTLY {full(new)}",
                why=f"to take its place again from the one that run {made.run_id} made",
                canonical=old.canonical,
                oid=None,
                undoes=None,
            )
        )
    swap = replace(
        drop,
        kind="swap_index",
        sql=f"ALTER INDEX {full(made.full_name)} RENAME TO {quoted(away.name)};"
        f" ALTER INDEX {full(new)} RENAME TO {quoted(made.name)}",
        why="both names change in one transaction",
        canonical=old.canonical,
        renames=((made.full_name, away), (new, made.full_name)),
        concurrent=False,
        undoes=old.id,
    )
    return [*found, swap, replace(drop, sql=_drop_away(made), called=away)]


def _drop_away(made: Entry) -> str:
    return f"DROP INDEX CONCURRENTLY {full(suffixed(made.full_name, OLD))}"


def _leftover(drop: Step, index: Index, why: str) -> Step:
    sql = f"DROP INDEX CONCURRENTLY {full(index.full_name)}"
    return replace(drop, kind="drop_leftover", name=index.full_name, sql=sql, why=why, oid=index.oid, undoes=None)


def _named(old: Entry) -> str | None:
    """The statement that makes the old index, under the name beside; None where it is not as PostgreSQL prints it."""
    new = suffixed(old.full_name, NEW)
    for name in (old.name, quoted(old.name)):
        head = f" INDEX CONCURRENTLY {name} ON "
        if old.undo is not None and head in old.undo:
            return old.undo.replace(head, f" INDEX CONCURRENTLY {quoted(new.name)} ON ", 1)
    return None
