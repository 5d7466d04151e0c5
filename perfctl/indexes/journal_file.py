"""The journal as a file of JSON lines, for a role that may make no schema in the database.

Every line is written through to the disk before its statement is sent. A file knows what was done from where it lies
and nothing else: another machine's perfctl, and a restored database, do not see it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfctl import __version__
from perfctl.errors import Refused, UsageError
from perfctl.indexes.ledger import end_of, line_of, origin, renamed_to
from perfctl.indexes.model import Entry, Step
from perfctl.indexes.running import Outcome

VERSION = 1

#: columns of a line that are written when it ends
_LATER = {"detail": None, "build_s": None, "wait_s": None, "size_bytes": None}


class FileJournal:
    """A journal in a file that belongs to one database."""

    def __init__(self, path: Path, database: Mapping[str, Any], role: str) -> None:
        self._path = path
        self._database = dict(database)
        self._role = role
        self.run_id = 0
        self._lines = 0

    def entries(self) -> tuple[Entry, ...]:
        """What the file holds, oldest first; nothing when there is no file.

        Raises UsageError for a file that is no journal, Refused for another database's.
        """
        if not self._path.exists():
            return ()
        found: dict[int, dict[str, Any]] = {}
        for number, text in enumerate(self._read().splitlines(), 1):
            try:
                line = json.loads(text)
                self._take(line, found)
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f'"{self._path}" line {number} is not a journal\'s: {error}') from error
        self._lines = max(found, default=0)
        names = {field.name for field in fields(Entry)}
        return tuple(
            Entry(**{k: v for k, v in (_LATER | entry).items() if k in names}) for _, entry in sorted(found.items())
        )

    def _read(self) -> str:
        try:
            text = self._path.read_bytes()
        except OSError as error:
            raise UsageError(f'journal "{self._path}" cannot be read: {error.strerror}') from error
        # A line that was cut short by a crash was never acted on: its statement is sent once it is on the disk.
        return text[: text.rfind(b"\n") + 1].decode("utf-8", "replace")

    def _take(self, line: dict[str, Any], found: dict[int, dict[str, Any]]) -> None:
        match line.pop("event"):
            case "journal":
                if line["database"] != self._database:
                    raise Refused(
                        f'journal "{self._path}" is of another database: {line["database"]}',
                        hint="give this database a file of its own: --journal file:PATH",
                    )
            case "run":
                self.run_id = line["id"]
            case "start":
                line["started_at"] = datetime.fromisoformat(line["started_at"])
                found[line["id"]] = line
            case "end":
                found[line.pop("id")].update({key: value for key, value in line.items() if value is not None})
            case "renamed":
                found[line["id"]] |= {"state": "done", "detail": line["detail"], "undo": None}
            case "close":
                pass
            case other:
                raise ValueError(f'unknown event "{other}"')

    def _write(self, *lines: dict[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f'journal "{self._path}" cannot be written: {error.strerror}') from error

    def open(self, command: str, target: str | None) -> int:
        """Begin a run and return its number."""
        new = not self._path.exists()
        self.entries()
        if not new:
            os.truncate(self._path, len(self._read().encode()))
        self.run_id += 1
        run = {
            "event": "run",
            "id": self.run_id,
            "command": command,
            "target": target,
            "perfctl_version": __version__,
            "origin": origin(),
            "started_at": _now(),
        }
        head = [{"event": "journal", "version": VERSION, "database": self._database}] if new else []
        self._write(*head, run)
        return self.run_id

    def _started(self, step: Step, oid: int | None, state: str = "started") -> dict[str, Any]:
        self._lines += 1
        return {
            "event": "start",
            "id": self._lines,
            "run_id": self.run_id,
            "state": state,
            "role": self._role,
            "origin": origin(),
            "started_at": _now(),
            **line_of(step, oid),
        }

    def start(self, step: Step, oid: int | None) -> int:
        """Write down what is about to be sent; returns the line's number."""
        if step.line is not None:
            return step.line
        self._write(self._started(step, oid))
        return self._lines

    def note_oid(self, line: int, oid: int) -> None:
        """Write down what a statement is making as soon as it shows."""
        self._write({"event": "end", "id": line, "object_oid": oid})

    def finish(self, line: int, outcome: Outcome) -> None:
        """Write down what became of it."""
        self._write({"event": "end", "id": line, "object_oid": outcome.oid, "ended_at": _now(), **end_of(outcome)})

    def renamed(self, step: Step, made_as: str, oid: int, drop: Step) -> int:
        """As ``Journal.renamed``."""
        built = [
            e
            for e in self.entries()
            if e.kind == "create_index" and e.name == made_as
            if e.object_oid == oid or (e.object_oid is None and e.state == "started")
        ]
        figures = {name: getattr(built[-1], name) for name in ("build_s", "wait_s", "size_bytes")} if built else {}
        drop_line = self._started(drop, drop.oid)
        done = self._started(step, oid, "done") | figures
        gone = [{"event": "renamed", "id": e.id, "detail": renamed_to(step)} for e in built]
        self._write(drop_line, done, *gone)
        return int(drop_line["id"])

    def close(self, outcome: str) -> None:
        """End the run."""
        self._write({"event": "close", "id": self.run_id, "outcome": outcome, "ended_at": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat()
