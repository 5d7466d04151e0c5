"""What perfctl made and has not taken back, by its journal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.model import Entry, Index, Snapshot, Wanted
from perfctl.migrations.model import CommentOnIndex, CreateIndex, DropIndex, Migration, Name, Place


def standing(journal: Sequence[Entry]) -> list[Entry]:
    """The journal's lines that perfctl did and has not taken back, oldest first.

    Of an index that was made several times, because somebody else dropped it in between, the last line counts.
    """
    by_id = {entry.id: entry for entry in journal}
    undone = {
        entry.undoes
        for entry in journal
        if entry.state == "done" and entry.undoes in by_id and _finishes(entry, by_id[entry.undoes])
    }
    done = [
        entry
        for entry in journal
        if entry.state == "done" and entry.undoes is None and entry.id not in undone and not was_renamed(entry)
    ]
    last = {entry.full_name: entry.id for entry in done if entry.kind == "create_index"}
    ended = set(own_drops(journal).values())
    # A comment goes with its index.
    gone = {
        entry.full_name: entry.id
        for entry in journal
        if entry.state == "done" and entry.undoes is not None and entry.kind in ("drop_index", "settle")
    }
    return [
        entry
        for entry in done
        if not (entry.kind == "create_index" and last[entry.full_name] != entry.id and entry.id not in ended)
        and not (entry.kind == "comment" and gone.get(entry.full_name, 0) > entry.id)
    ]


def own_drops(journal: Sequence[Entry]) -> dict[int, int]:
    """By the number of a drop's line the number of the build that it ended: perfctl dropped what it had made itself.

    To take back both there is nothing to send.
    """
    taken_back = {entry.undoes for entry in journal if entry.state == "done"}
    made: dict[Name, Entry] = {}
    found: dict[int, int] = {}
    for entry in journal:
        if entry.state != "done" or entry.undoes is not None or entry.id in taken_back:
            continue
        if entry.kind == "create_index":
            made[entry.full_name] = entry
        elif entry.kind == "drop_index" and (build := made.pop(entry.full_name, None)) is not None:
            same_text = build.canonical is not None and build.canonical == entry.canonical
            if same_text or (build.object_oid is not None and build.object_oid == entry.object_oid):
                found[entry.id] = build.id
    return found


def _finishes(undo: Entry, done: Entry) -> bool:
    """True for the last statement of an undo: what clears its way is not it, and a lost comment comes back too."""
    if done.kind == "drop_index" and done.comment is not None:
        return undo.kind in ("comment", "settle")
    return undo.kind != "drop_leftover"


def was_renamed(entry: Entry) -> bool:
    """True for the build of an index that has taken another's name since: that one's line stands for it."""
    return entry.kind == "create_index" and entry.state == "done" and entry.undo is None


def index_names(migrations: Sequence[Migration], wanted: Sequence[Wanted], seen: Snapshot) -> dict[Place, list[Name]]:
    """The full name of each index that a statement is about, as the session would find it when its turn comes.

    An unqualified DROP INDEX that was carried out means what it meant then: the next index of that name along the
    search path is not its business.
    """
    created = {w.place: w.name for w in wanted}
    carried_out = {
        (entry.migration, entry.name): entry.full_name for entry in standing(seen.journal) if entry.kind == "drop_index"
    }
    coming: set[Name] = set()
    going: set[Name] = set()
    names: dict[Place, list[Name]] = {}
    for migration in migrations:
        for statement in migration.statements:
            match statement:
                case CreateIndex():
                    name = created[statement.place]
                    coming.add(name)
                    going.discard(name)
                case DropIndex():
                    name = seen.resolve(statement.name, statement.search_path, coming, going)
                    if statement.name.schema is None and name not in coming:
                        name = carried_out.get((migration.name, name.name), name)
                    coming.discard(name)
                    going.add(name)
                case CommentOnIndex():
                    name = seen.resolve(statement.name, statement.search_path, coming, going)
                case _:
                    continue
            names.setdefault(statement.place, []).append(name)
    return names


def unfinished(journal: Sequence[Entry]) -> dict[Name, Entry]:
    """Builds whose run was killed: the last word on their index is a line that was only started."""
    last = {
        entry.full_name: entry for entry in journal if entry.kind in ("create_index", "drop_index", "drop_leftover")
    }
    return {
        name: entry
        for name, entry in last.items()
        if entry.kind == "create_index" and entry.state == "started" and entry.undoes is None
    }


def abandoned(seen: Snapshot) -> dict[Name, Entry]:
    """Builds that failed and left something of theirs behind, which could not be dropped at the time."""
    last = {entry.full_name: entry for entry in seen.journal if entry.kind in ("create_index", "drop_leftover")}
    return {
        name: entry
        for name, entry in last.items()
        if entry.kind == "create_index" and entry.state == "failed" and entry.undoes is None
        if (index := seen.by_name.get(name)) is not None and index.oid == entry.object_oid
    }


def began(entry: Entry, index: Index, text: str | None) -> bool:
    """True when the index is what that line began to build; ``text`` is the wanted canonical text."""
    if (index.table_schema, index.table_name) != (entry.table_schema, entry.table_name):
        return False
    if entry.object_oid is not None:
        return entry.object_oid == index.oid
    # It was killed before the catalogue showed the index: the definition is all there is to tell by.
    wanted = entry.canonical or text
    return wanted is not None and canonical_text(index.definition) == wanted
