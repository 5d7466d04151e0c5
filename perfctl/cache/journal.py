"""What was deleted, when, where and by whom: a file of JSON lines, each written through before the next step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfctl import __version__
from perfctl.cache.owner import whoami
from perfctl.errors import UsageError


def usual_path(environ: Mapping[str, str]) -> Path:
    """Where the journal is when nobody says otherwise; see the XDG Base Directory Specification."""
    try:
        state = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:
        raise UsageError("nobody knows where this user's files are", hint="--journal PATH names one") from None
    return state / "perfctl" / "cache.jsonl"


class Journal:
    """Appends lines to a file that only its owner reads: keys may be of somebody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def noted(self, event: str, **facts: Any) -> list[str]:
        """One line, once something was changed: what is wrong with the journal is a note and no reason to end."""
        try:
            self.write(event, **facts)
        except UsageError as error:
            return [f"warning: {error.message}"]
        return []

    def write(self, event: str, **facts: Any) -> None:
        """One line. Raises UsageError when it cannot be written."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "perfctl": __version__,
            "by": whoami(),
            "pid": os.getpid(),
            **facts,
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(
                f'the journal "{self._path}" cannot be written: {error.strerror}; nothing more is deleted',
                hint="--journal PATH names another",
            ) from error
