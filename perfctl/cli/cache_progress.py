"""How far a walk over a cache's keys is: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time

from perfctl.cli.session import Session
from perfctl.figures import human_seconds

#: how often a walk tells how far it is, where its lines are kept
_EVERY_S = 10.0


class Progress:
    """Told of each page; says something now and then."""

    def __init__(self, session: Session, *, of: int | None = None) -> None:
        """``of`` is how many keys are to be expected, where that is known."""
        self._session = session
        self._of = of
        self._on = not session.options.quiet and not session.streams_events
        self._live = self._on and sys.stderr.isatty()
        self._every_s = 1.0 if session.streams_events else _EVERY_S
        self._began = time.monotonic()
        # Of a stream the first page is told at once: whoever reads it knows that it goes.
        self._last = 0.0 if session.streams_events else self._began

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def looking(self, walked: int, matched: int) -> None:
        """Told after each page of a look."""
        text = f"walked past {walked:,} keys, {matched:,} match"
        self._tell(text, event="looking", walked=walked, matched=matched)

    def deleting(self, matched: int, deleted: int, verb: str = "deleted") -> None:
        """Told after each page of a flush, or of what takes one back."""
        of = f" of about {self._of:,}" if self._of else ""
        text = f"{matched:,}{of} keys found, {deleted:,} {verb}{self._left(matched)}"
        self._tell(text, event=verb if verb != "deleted" else "deleting", matched=matched, deleted=deleted)

    def _left(self, matched: int) -> str:
        """How long it takes still, once there is something to reckon with."""
        past = time.monotonic() - self._began
        if not self._of or past < 1 or not 0 < matched < self._of:
            return ""
        return f", about {human_seconds(past * (self._of - matched) / matched)} left"

    def _tell(self, text: str, **facts: object) -> None:
        """Tell it, unless something was told just now."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._live else self._every_s):
            return
        self._last = now
        if self._session.streams_events:
            self._session.event(**facts)
        if not self._on:
            return
        # A line that is folded is not overwritten by the next.
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}" if self._live else f"{text}\n")
        sys.stderr.flush()
