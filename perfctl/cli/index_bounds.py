"""How far a run may go: what the options say, else the configuration, as the values that a run takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfctl.cli.session import Session, duration_s
from perfctl.errors import UsageError
from perfctl.indexes.running import Allowed, Limits

if TYPE_CHECKING:
    from perfctl.indexes.ledger import Journal
    from perfctl.indexes.model import Entry, Server, Snapshot
    from perfctl.indexes.watcher import Watcher

_DEFAULT_FILE = "perfctl-journal.jsonl"


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """Where a run writes down what it does: in the database, in a file, or nowhere."""

    kind: str
    path: Path | None = None
    #: as it was said, None when it is the default
    word: str | None = None

    @property
    def reader(self) -> Callable[[Server, str | None], tuple[Entry, ...]] | None:
        """What reads it where that is not the database."""
        if self.kind == "database":
            return None
        if self.path is None:
            return lambda _, __: ()
        path = self.path

        def read(server: Server, system_identifier: str | None) -> tuple[Entry, ...]:
            from perfctl.indexes.journal_file import FileJournal

            return FileJournal(path, _database(server, system_identifier), server.role).entries()

        return read

    def open(self, sends: Watcher, seen: Snapshot) -> Journal:
        """The journal to write."""
        from perfctl.indexes.journal_file import FileJournal
        from perfctl.indexes.ledger import DatabaseJournal, NoJournal

        if self.kind == "database":
            return DatabaseJournal(sends, exists=seen.server.has_journal)
        if self.path is None:
            return NoJournal()
        return FileJournal(self.path, _database(seen.server, seen.system_identifier), seen.server.role)

    def must_exist(self) -> None:
        """Raise UsageError for a file that is not there: a mistyped name would look as if perfctl had made nothing."""
        if self.path is not None and not self.path.exists():
            raise UsageError(
                f'journal "{self.path}" does not exist',
                hint="name the file that the apply wrote: --journal file:PATH",
            )

    def notes(self) -> list[str]:
        """What does not hold with this choice."""
        if self.kind == "file":
            return [f'journal: file "{self.path}"; a rollback, and a run after a crash, need this very file']
        if self.kind == "none":
            return [
                "journal: none; no rollback will know what this run made, and what it leaves when it is killed is"
                " told from the catalogue alone"
            ]
        return []


def _database(server: Server, system_identifier: str | None) -> dict[str, Any]:
    return {"name": server.database, "oid": server.database_oid, "system_identifier": system_identifier}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a run, and its journal."""

    journal: JournalPlace
    _limits: Limits
    jobs: int | None
    #: the options as they were given, for the command that goes on
    said: Mapping[str, Any]

    @property
    def wait_budget_s(self) -> float:
        """Seconds to wait for other transactions."""
        return self._limits.wait_budget_s

    def limits(self, default_jobs: int) -> Limits:
        """The limits, with as many jobs as were asked for, else as fit the server."""
        from dataclasses import replace

        return replace(self._limits, jobs=self.jobs or default_jobs)


def journal_place(session: Session, said: str | None) -> JournalPlace:
    """Where the journal is. Raises UsageError for what is no such place."""
    word = said or session.loaded.settings.indexes.journal
    kind, colon, path = word.partition(":")
    # "file:" is a variable that was empty where the shell put it in, not a wish for the default.
    if kind not in ("database", "file", "none") or (colon and not (path and kind == "file")):
        raise UsageError(f'--journal "{word}" is none of database, file:PATH, none')
    chosen = Path(path or _DEFAULT_FILE) if kind == "file" else None
    return JournalPlace(kind, chosen, said)


def bounds(session: Session, said: Mapping[str, Any]) -> Bounds:
    """What the options say, else the configuration."""
    settings = session.loaded.settings.indexes

    def seconds(key: str, default: float | None) -> float | None:
        given = duration_s(f"--{key.replace('_', '-')}", said.get(key))
        return default if given is None else given

    check_s = seconds("client_connection_check_interval", settings.client_connection_check_interval_s)
    lag_s = seconds("max_replica_lag", settings.max_replica_lag_s)
    kill = said.get("kill_blockers") or settings.kill_blockers
    limits = Limits(
        wait_budget_s=seconds("wait_budget", None) or settings.wait_budget_s,
        lock_timeout_s=seconds("lock_timeout", settings.lock_timeout_s),
        blocker_age_s=seconds("blocker_age", settings.blocker_age_s) or 0.0,
        go_on=bool(said.get("go_on")),
        max_replica_lag_s=lag_s or None,
        min_free_bytes=_size(said.get("min_free"), settings.min_free_bytes),
        not_after=_moment(said.get("not_after")),
        kill=tuple(_allowed(text) for text in kill),
        connection_check_s=check_s or 0.0,
    )
    return Bounds(journal_place(session, said.get("journal")), limits, said.get("jobs") or settings.jobs, said)


def _allowed(text: str) -> Allowed:
    by, _, glob = text.partition("=")
    if by not in ("role", "application") or not glob:
        raise UsageError(f'--kill-blockers "{text}" is neither role=GLOB nor application=GLOB')
    return Allowed(by, glob)


def _size(text: str | None, default: int) -> int:
    if text is None:
        return default
    from perfctl.config.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f'--min-free "{text}": {error}') from None


def _moment(text: str | None, now: datetime | None = None) -> datetime | None:
    """A time of day is the nearest one, so a window that has just passed is not taken for tomorrow's."""
    if text is None:
        return None
    now = now or datetime.now().astimezone()
    try:
        if len(text) <= 5:
            hour, minute = (int(part) for part in text.split(":"))
            moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return min((moment + timedelta(days=days) for days in (-1, 0, 1)), key=lambda m: abs(m - now))
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UsageError(
            f'--not-after "{text}" is no time', hint="write 06:00 (the nearest one) or 2026-01-31T06:00"
        ) from None
