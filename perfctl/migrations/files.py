"""Migration files on disk: which there are, in which order, and which undoes which."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from perfctl.errors import MigrationError
from perfctl.migrations.model import Migration, Source
from perfctl.migrations.parse import parse

_NUMBERED = re.compile(r"(\d+)[_\-.]?(.*)")
_UNDO = re.compile(r"(?:[_\-.](?:rollback|down|undo|revert))$")
_UP = re.compile(r"[_\-.]up$")


def load(paths: tuple[Path, ...] | list[Path]) -> tuple[Migration, ...]:
    """The migrations of folders and files, by number, each with the file that undoes it where there is one.

    Raises MigrationError for a folder without migrations, for two with one number, and for what a file holds.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.glob("*.sql") if not _UNDO.search(p.stem))
            if not found:
                raise MigrationError(
                    f'no migrations in "{path}"',
                    hint="put NNN_name.sql files there, or name the folder in perfctl.yaml",
                )
            files |= dict.fromkeys(found)
        else:
            files[path] = None
    migrations = sorted((load_file(path, with_rollback=True) for path in files), key=_order)
    _refuse_same_number(migrations)
    return tuple(migrations)


def load_file(path: Path, *, with_rollback: bool = False) -> Migration:
    """One migration file. Raises MigrationError."""
    text, digest = _read(path)
    rollback = _rollback_of(path, _stem(path)) if with_rollback else None
    return from_text(path, text, digest, load_file(rollback) if rollback else None)


def from_text(path: Path, text: str, sha256: str, rollback: Migration | None = None) -> Migration:
    """A migration from a text that was read before, as a saved plan holds it. Raises MigrationError."""
    statements, notes = parse(Source(str(path), text, text.encode()))
    if not statements:
        raise MigrationError(
            f"{path}:1:1: error: the file holds no statement",
            hint="was it cut short? delete it if it is meant to be empty",
        )
    numbered = _NUMBERED.match(_stem(path))
    return Migration(
        number=int(numbered[1]) if numbered else None,
        name=_stem(path),
        path=path,
        sha256=sha256,
        text=text,
        statements=statements,
        notes=notes,
        rollback=rollback,
    )


def _stem(path: Path) -> str:
    return _UP.sub("", path.stem)


def _order(migration: Migration) -> tuple[bool, int, str]:
    return (migration.number is None, migration.number or 0, migration.name)


def _rollback_of(path: Path, stem: str) -> Path | None:
    candidates = (
        f"{stem}{separator}{word}.sql" for separator in "_.-" for word in ("rollback", "down", "undo", "revert")
    )
    return next((path.with_name(name) for name in candidates if path.with_name(name).is_file()), None)


def _refuse_same_number(migrations: list[Migration]) -> None:
    seen: dict[int, Migration] = {}
    for migration in migrations:
        if migration.number is None:
            continue
        if other := seen.get(migration.number):
            raise MigrationError(
                f'"{other.path}" and "{migration.path}" have one number, {migration.number}',
                hint="give one of them the next free number: the order of migrations must be certain",
            )
        seen[migration.number] = migration


def _read(path: Path) -> tuple[str, str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MigrationError(
            f'migration "{path}" does not exist', hint="name a .sql file or a folder of them"
        ) from None
    except OSError as error:
        raise MigrationError(f'migration "{path}" cannot be read: {error.strerror}') from error
    digest = hashlib.sha256(data).hexdigest()
    if b"\x00" in data:
        line = data[: data.index(b"\x00")].count(b"\n") + 1
        raise MigrationError(
            f"{path}:{line}: error: the file holds a NUL byte",
            hint="save it as plain UTF-8 text (not UTF-16)",
        )
    try:
        # A byte order mark and CRLF are how some editors save; neither is part of any statement.
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise MigrationError(
            f"{path}:{line}: error: byte 0x{data[error.start]:02x} is not UTF-8",
            hint="save the file as UTF-8",
        ) from None
    return text, digest
