"""What was deleted, when, where and by whom: a file of JSON lines, each written through before the next step."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfctl import __version__
from perfctl.errors import UsageError


def usual_path(environ: Mapping[str, str]) -> Path:
    """Where the journal is when nobody says otherwise; see the XDG Base Directory Specification."""
    state = environ.get("XDG_STATE_HOME")
    return Path(state or Path.home() / ".local" / "state") / "perfctl" / "cache.jsonl"


class Journal:
    """Appends lines to a file that only its owner reads: keys may be of somebody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **facts: Any) -> None:
        """One line. Raises UsageError when it cannot be written."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "perfctl": __version__,
            "by": f"{getpass.getuser()}@{socket.gethostname()}",
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
