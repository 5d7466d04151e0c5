"""What is wrong with a migration before any server sees it. Pure: files in, findings out."""

from __future__ import annotations

from collections.abc import Sequence

from perfctl.migrations.model import (
    OWN_SETTINGS,
    CreateIndex,
    DropIndex,
    Migration,
    Name,
    Place,
    SetSetting,
)
from perfctl.report import Item, Status


def lint(migrations: Sequence[Migration]) -> list[Item]:
    """One item a finding, or one ``ok`` item for a file without any."""
    items: list[Item] = []
    seen: dict[str, CreateIndex] = {}
    for migration in migrations:
        found = [
            *_plain_statements(migration),
            *_settings(migration),
            *_duplicates(migration, seen),
            *_rollback(migration),
        ]
        items += sorted(found, key=lambda item: item.data["line"]) or [
            Item("file", str(migration.path), Status.OK, f"{len(migration.indexes)} indexes, nothing to mend")
        ]
    return items


def _finding(rule: str, place: Place, name: str, detail: str, remedy: str) -> Item:
    return Item(
        "lint",
        name,
        Status.FINDING,
        f"{place}: {detail}",
        remedy,
        {"rule": rule, "file": place.path, "line": place.line, "column": place.column},
    )


def _plain_statements(migration: Migration) -> list[Item]:
    found = []
    # The index of a partitioned table as a whole has no concurrent DROP.
    partitioned = {s.name.name for s in migration.indexes if s.only}
    for statement in (*migration.statements, *(migration.rollback.statements if migration.rollback else ())):
        match statement:
            case CreateIndex(concurrently=False, only=False):
                found.append(
                    _finding(
                        "concurrently",
                        statement.place,
                        str(statement.name),
                        "plain CREATE INDEX blocks every write while it builds",
                        "CREATE INDEX CONCURRENTLY (perfctl builds so anyway; psql does not)",
                    )
                )
            case DropIndex(concurrently=False) if statement.name.name not in partitioned:
                found.append(
                    _finding(
                        "concurrently",
                        statement.place,
                        str(statement.name),
                        "plain DROP INDEX waits for every query on the table, and everything else waits behind it",
                        "DROP INDEX CONCURRENTLY",
                    )
                )
            case DropIndex(cascade=True):
                found.append(
                    _finding(
                        "cascade",
                        statement.place,
                        str(statement.name),
                        "DROP INDEX CONCURRENTLY cannot cascade",
                        "take CASCADE out; drop the constraint in a schema migration",
                    )
                )
    return found


def _settings(migration: Migration) -> list[Item]:
    return [
        _finding(
            "timeout",
            statement.place,
            statement.name,
            f"{statement.name} ends a concurrent build in its last wait, after all the work",
            "take it out: perfctl bounds its waits itself (--wait-budget)",
        )
        for statement in migration.statements
        if isinstance(statement, SetSetting) and statement.name in OWN_SETTINGS and statement.value != "0"
    ]


def _duplicates(migration: Migration, seen: dict[str, CreateIndex]) -> list[Item]:
    found = []
    for statement in migration.statements:
        if isinstance(statement, DropIndex):
            for definition, other in list(seen.items()):
                if other.name.name == statement.name.name:
                    del seen[definition]
        if not isinstance(statement, CreateIndex):
            continue
        if twin := seen.get(statement.definition):
            found.append(
                _finding(
                    "duplicate",
                    statement.place,
                    str(statement.name),
                    f'the same index as "{twin.name.name}" ({twin.place})',
                    "keep one: each costs space and every write",
                )
            )
        elif clash := next((s for s in seen.values() if s.name == statement.name and s.table == statement.table), None):
            found.append(
                _finding(
                    "defined-twice",
                    statement.place,
                    str(statement.name),
                    f"{clash.place} defines it too, and otherwise",
                    "give one of them another name, or drop the first before",
                )
            )
        seen.setdefault(statement.definition, statement)
    return found


def _rollback(migration: Migration) -> list[Item]:
    if not migration.statements:
        return []
    first = migration.statements[0].place
    if migration.rollback is None:
        return [
            _finding(
                "rollback-missing",
                first,
                migration.name,
                "no rollback file",
                f"write {migration.path.with_name(migration.name + '_rollback.sql').name} with a DROP INDEX"
                " CONCURRENTLY for each",
            )
        ]
    made: dict[Name, CreateIndex] = {}
    for statement in migration.statements:
        match statement:
            case CreateIndex():
                made[_key(statement.name, statement.table.schema)] = statement
            case DropIndex():
                made.pop(_key(statement.name), None)
    dropped = {_key(s.name): s for s in migration.rollback.statements if isinstance(s, DropIndex)}
    recreated = {_key(s.name, s.table.schema) for s in migration.rollback.indexes}
    found = [
        _finding(
            "rollback-incomplete",
            statement.place,
            str(statement.name),
            f"{migration.rollback.path} does not drop it",
            f"add DROP INDEX CONCURRENTLY IF EXISTS {statement.table.schema or 'schema'}.{statement.name.name};",
        )
        for key, statement in made.items()
        if not _among(key, dropped)
    ]
    found += [
        _finding(
            "rollback-foreign",
            statement.place,
            str(statement.name),
            f"{migration.path} does not create it",
            "take it out: a rollback undoes its own migration and nothing else",
        )
        for key, statement in dropped.items()
        if not _among(key, made)
    ]
    found += [
        _finding(
            "rollback-incomplete",
            statement.place,
            str(statement.name),
            f"{migration.rollback.path} does not create it again",
            "add the CREATE INDEX CONCURRENTLY that it had",
        )
        for statement in migration.statements
        if isinstance(statement, DropIndex) and not _among(_key(statement.name), recreated)
        if not any(i.name.name == statement.name.name for i in migration.indexes)
    ]
    return found


def _key(name: Name, schema: str | None = None) -> Name:
    """An index's name in its table's schema."""
    return Name(name.schema or schema, name.name)


def _among(key: Name, names: dict[Name, CreateIndex] | dict[Name, DropIndex] | set[Name]) -> bool:
    """True when the name is there, in the same schema or with a schema left open on one side."""
    return any((key.name == other.name and None in (key.schema, other.schema)) or key == other for other in names)
