"""What a migration file says, statement by statement."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

#: Settings of a file that are sent before its statements: they bear on building or on how names are found.
BUILD_SETTINGS = frozenset({
    "maintenance_work_mem", "max_parallel_maintenance_workers", "work_mem", "search_path", "default_tablespace",
    "default_table_access_method", "gin_pending_list_limit", "synchronous_commit", "vacuum_cost_delay",
    "maintenance_io_concurrency", "effective_io_concurrency", "backend_flush_after",
})  # fmt: skip

#: Settings that perfctl bounds itself: the file's value would cut a build in its last wait.
OWN_SETTINGS = frozenset({
    "lock_timeout", "statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout",
    "idle_session_timeout", "deadlock_timeout",
})  # fmt: skip

#: What pg_dump writes at the head of its files; the file is read as UTF-8 with standard strings in any case.
DUMP_SETTINGS = frozenset({
    "client_encoding", "client_min_messages", "standard_conforming_strings", "check_function_bodies", "xmloption",
    "row_security",
})  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A relation's name as written: the schema is None where the file leaves it to ``search_path``."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Place:
    """Where a statement stands; line and column count from 1."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Statement:
    """What every statement has: its place and its text as written, without the semicolon."""

    place: Place
    text: str
    #: the ``SET`` lines that stand before it in the same file
    settings: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    @property
    def search_path(self) -> str | None:
        """The file's own search path at this statement, None where it leaves the session's."""
        return dict(self.settings).get("search_path")


@dataclass(frozen=True, slots=True)
class CreateIndex(Statement):
    """``CREATE INDEX``. ``tail`` is the text behind the table's name, exactly as written."""

    name: Name
    table: Name
    tail: str
    unique: bool
    concurrently: bool
    if_not_exists: bool
    only: bool
    method: str
    tablespace: str | None
    #: the same for two statements that define the same index, whatever its name
    definition: str
    columns: tuple[str, ...]
    partial: bool
    expression: bool


@dataclass(frozen=True, slots=True)
class DropIndex(Statement):
    """``DROP INDEX`` of one name; a statement with several names becomes several of these."""

    name: Name
    concurrently: bool
    if_exists: bool
    cascade: bool


@dataclass(frozen=True, slots=True)
class CommentOnIndex(Statement):
    """``COMMENT ON INDEX``; None takes the comment off."""

    name: Name
    comment: str | None


@dataclass(frozen=True, slots=True)
class Analyze(Statement):
    """``ANALYZE`` of one table; ``columns`` is empty for all of them."""

    table: Name
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateStatistics(Statement):
    """``CREATE STATISTICS``. ``tail`` is the text between the name and ``FROM``."""

    name: Name
    table: Name
    tail: str


@dataclass(frozen=True, slots=True)
class CreateExtension(Statement):
    """``CREATE EXTENSION``."""

    name: str


@dataclass(frozen=True, slots=True)
class SetSetting(Statement):
    """``SET`` of a setting that bears on building or on how names are found."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line that was passed over, and why."""

    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file."""

    number: int | None
    name: str
    path: Path
    sha256: str
    text: str = field(repr=False)
    statements: tuple[Statement, ...]
    notes: tuple[Note, ...] = ()
    #: the file that undoes it under plain psql
    rollback: Migration | None = None

    @property
    def indexes(self) -> tuple[CreateIndex, ...]:
        """The indexes that it creates, in the file's order."""
        return tuple(s for s in self.statements if isinstance(s, CreateIndex))


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text, with the arithmetic from the grammar's byte offsets to lines and columns."""

    path: str
    text: str
    data: bytes = field(repr=False)

    def place(self, offset: int) -> Place:
        """The place of a byte offset."""
        start = self.data.rfind(b"\n", 0, offset) + 1
        column = len(self.data[start:offset].decode("utf-8", "replace")) + 1
        return Place(self.path, self.data.count(b"\n", 0, offset) + 1, column)

    def excerpt(self, place: Place, note: str = "") -> str:
        """The source line with a caret under the column, as compilers print it."""
        line = self.text.split("\n")[place.line - 1].rstrip("\r").expandtabs(1)
        return f"  | {line}\n  | {' ' * (place.column - 1)}^ {note}".rstrip()
