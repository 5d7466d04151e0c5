"""The steps that build an index of a whole partitioned table: its own, each partition's, and their ties. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfctl.indexes.classify import Found, broken
from perfctl.indexes.draft import Draft, Op
from perfctl.indexes.model import State, Wanted, full
from perfctl.indexes.partitioned import Part, fitted, parts


def plan_tree(draft: Draft, op: Op, wanted: Wanted, found: Found, text: str | None) -> None:
    """The index of a partitioned table: its own, each partition's, and the ties between them."""
    tree = parts(wanted, text, draft.seen)
    if stuck := [part for part in tree if part.attached and part.index and not part.index.is_good and part.is_leaf]:
        names = ", ".join(str(part.name) for part in stuck)
        draft.refuse(
            op,
            f"attached to it and not valid: {names}; PostgreSQL cannot take them out again",
            f"DROP INDEX {full(op.name)} when its lock can be had, then apply again",
        )
        return
    if foreign := [part for part in tree if part.partition.relkind == "f"]:
        names = ", ".join(str(part.partition.full_name) for part in foreign)
        draft.refuse(op, f"foreign tables cannot have a part of it: {names}", "index the other partitions one by one")
        return
    if found.index is None:
        draft.build(op, wanted, text, "not there; the parts follow", only=True)
    for part in tree:
        _part(draft, replace(op, name=part.name), wanted, part, text)
    for part in reversed(tree):
        if not part.attached:
            _attach_part(draft, replace(op, name=part.name), part, tree)


def _part(draft: Draft, op: Op, wanted: Wanted, part: Part, text: str | None) -> None:
    index, above = part.index, (("create_index", part.parent),)
    if not part.is_leaf:
        if index is None:
            draft.build(op, wanted, text, f"part of {part.parent}", on=part.partition, only=True, after=above)
        return
    if index is not None and index.is_good:
        own = part.name == fitted(part.partition.full_name, wanted.name.name)
        if part.attached or own:
            return
        draft.skip(op, "create_index", f"{index.full_name} has the same definition and becomes the part", State.COVERED)
        draft.warnings[
            f'a rollback will not drop "{wanted.name}" by itself: "{index.full_name}" becomes a part of it'
        ] = None
        return
    if index is not None:
        state = broken(index, draft.seen)
        assert state is not None
        if state.state is State.BUILDING:
            build = draft.seen.building.get(index.oid)
            draft.build(op, wanted, text, state.why, on=part.partition, follows=build.pid if build else None)
            return
        draft.drop_leftover(op, index, state, text)
    draft.build(op, wanted, text, f"part of {part.parent}", on=part.partition, after=above)


def _attach_part(draft: Draft, op: Op, part: Part, parts: Sequence[Part]) -> None:
    below = (("attach_index", other.name) for other in parts if other.parent == part.name)
    draft.step(
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
