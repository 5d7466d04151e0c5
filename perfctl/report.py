"""What a command found or did, as one value; the renderers print it and the exit code follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from perfctl.errors import EXIT_NAMES, PerfctlError, exit_code_of, worst

SCHEMA_VERSION = 1


class Status(StrEnum):
    """What became of one item."""

    OK = "ok"
    CHANGED = "changed"
    PLANNED = "planned"
    SKIPPED = "skipped"
    FINDING = "finding"
    UNKNOWN = "unknown"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was looked at, planned or done."""

    kind: str
    name: str
    status: Status
    detail: str = ""
    remedy: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """What this item alone asks the process to exit with."""
        match self.status:
            case Status.FAILED:
                return 5
            case Status.FINDING:
                return 1
            case Status.UNKNOWN:
                # Could not look is never "looked and fine"; the reason may ask for a retry instead.
                return int(self.data.get("exit_code", 1))
            case _:
                return 0


@dataclass(frozen=True, slots=True)
class Report:
    """One command on one target."""

    command: str
    target: str | None
    items: tuple[Item, ...]
    started_at: datetime
    duration_s: float
    dry_run: bool = False
    error: BaseException | None = None
    #: ``--check``: something left to do is a finding
    check: bool = False
    #: lines above the table: the server, the run, the totals
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The process's exit code; see CONTRACT in the documentation for what each means."""
        # A run that ended with an error says itself what became of it: its failed item says no more.
        ended = self.error is not None
        codes = [item.exit_code for item in self.items if not (ended and item.status is Status.FAILED)]
        if self.check and any(item.status is Status.PLANNED for item in self.items):
            codes.append(1)
        if self.error is not None:
            codes.append(exit_code_of(self.error))
        return worst(codes)

    @property
    def exit_name(self) -> str:
        """The exit code in a word."""
        return EXIT_NAMES.get(self.exit_code, "bug")

    @property
    def counts(self) -> dict[str, int]:
        """How many items have each status; absent ones are left out."""
        return dict(Counter(str(item.status) for item in self.items))

    @property
    def error_message(self) -> str | None:
        """What went wrong, in words; a bug is named by its class alone, for its text may hold anything."""
        if self.error is None:
            return None
        if isinstance(self.error, PerfctlError):
            return self.error.message
        if isinstance(self.error, KeyboardInterrupt):
            return "stopped by a signal"
        return f"{type(self.error).__name__}: this is a bug in perfctl"

    @property
    def error_hint(self) -> str | None:
        """The cure of the error, when perfctl knows one."""
        return self.error.hint if isinstance(self.error, PerfctlError) else None
