"""The steps that put an index in the place of one of another definition. Pure."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.classify import Found, broken
from perfctl.indexes.draft import Draft, Op, Selection, again, held_back
from perfctl.indexes.model import Index, Snapshot, State, Step, Wanted, full, literal, quoted
from perfctl.indexes.owned import abandoned, standing, unfinished
from perfctl.indexes.partitioned import suffixed
from perfctl.migrations.model import Name

#: what an index is called while it takes another's place, and that one afterwards
NEW, OLD = "perfctl_new", "perfctl_old"


def finish_drops(draft: Draft, selection: Selection) -> None:
    """An index that another one has taken the place of, and that a run or a rollback which ended early did not drop."""
    for entry in draft.seen.journal:
        index = draft.seen.by_oid.get(entry.object_oid or 0)
        if (
            entry.kind == "drop_index"
            and entry.state != "done"
            and index is not None
            and index.full_name == suffixed(entry.full_name, OLD)
            and selection.takes(entry.full_name)
        ):
            draft.steps.append(_drop_replaced(entry.full_name, index, undo=entry.undo, line=entry.id))


def plan_replacement(
    draft: Draft, op: Op, wanted: Wanted, found: Found, text: str | None, *, keep_comment: bool
) -> None:
    """Build anew under another name, swap by rename, drop the old one: at no time is there none."""
    assert found.index is not None
    assert wanted.table is not None
    old = found.index
    held = held_back(old)
    if held is None and (old.relkind == "I" or wanted.table.relkind == "p"):
        held = "it is of a partitioned table", "give the new one another name"
    if held is not None:
        draft.refuse(op, f"cannot be replaced: {held[0]}", held[1])
        return
    new, away = suffixed(op.name, NEW), suffixed(op.name, OLD)
    if away in draft.seen.by_name:
        draft.refuse(op, f'"{away}" is in the way', f"DROP INDEX CONCURRENTLY {full(away)}")
        return
    beside = replace(op, name=new)
    there = draft.seen.by_name.get(new)
    made = there is not None and there.is_good and canonical_text(there.definition) == text
    if there is not None and not made:
        if there.table_oid != old.table_oid or (there.is_good and not _made_by_perfctl(draft, new)):
            draft.refuse(op, f'"{new}" is in the way', f"DROP INDEX CONCURRENTLY {full(new)}")
            return
        if there.is_good:
            gone = Found(State.DIFFERENT, "of an earlier replacement that is not wanted any more", there)
            draft.step(
                beside, "drop_index", f"DROP INDEX CONCURRENTLY {full(new)}", None, gone.why,
                table=wanted.table.full_name, oid=there.oid,
            )  # fmt: skip
        elif (state := broken(there, draft.seen)) is not None and state.state is not State.BUILDING:
            draft.drop_leftover(beside, there, state, text)
    if not made:
        build = draft.seen.building.get(there.oid) if there else None
        why = f"to take the place of the one that\n{found.why}"
        draft.build(beside, wanted, text, why, follows=build.pid if build else None)
    elif draft.is_unfinished(beside, Found(State.SAME, "", there), text):
        draft.adopt(beside, wanted, Found(State.SAME, "", there), text)
    draft.step(
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
    draft.steps.append(replace(_drop_replaced(op.name, old, undo=again(old)), place=op.statement.place))
    if old.comment is not None and keep_comment:
        sql = f"COMMENT ON INDEX {full(op.name)} IS {literal(old.comment)}"
        draft.step(op, "comment", sql, None, "the old one's comment", table=wanted.table.full_name)


def left_beside(seen: Snapshot, named: Container[Name] = ()) -> list[tuple[Index, str]]:
    """The good indexes that perfctl built to take another's place and that nothing has put there, with the remedy.

    Those that are ``named`` are somebody's business already.
    """
    begun = [*standing(seen.journal), *unfinished(seen.journal).values(), *abandoned(seen).values()]
    made = {entry.full_name for entry in begun if entry.kind == "create_index"}
    bases = [*seen.by_name, *(entry.full_name for entry in seen.journal if entry.schema)]
    beside = dict.fromkeys(suffixed(base, NEW) for base in bases)
    found = (seen.by_name[name] for name in beside if name in made and name in seen.by_name and name not in named)
    return [(index, f"DROP INDEX CONCURRENTLY {full(index.full_name)}") for index in found if index.is_good]


#: what is said of such an index
LEFT_BESIDE = "built to take another index's place, and left beside it: every write pays for it"


def _drop_replaced(name: Name, old: Index, *, undo: str | None, line: int | None = None) -> Step:
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


def _made_by_perfctl(draft: Draft, name: Name) -> bool:
    return any(entry.full_name == name and entry.kind == "create_index" for entry in draft.seen.journal)
