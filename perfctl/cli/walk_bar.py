"""How far a walk over keys is: a bar on a terminal, a line now and then elsewhere, events in a stream."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from perfctl.cli.session import Session

#: how often it is told, where lines are kept and in a stream
_LINE_S = 10.0
_EVENT_S = 1.0

Watch = Callable[[int, int], None]


@contextmanager
def shown(session: Session) -> Iterator[Watch]:
    """The function that is told of keys walked and of how many there are; what it drew goes away at the end."""
    if session.streams_events:
        yield _Now(_EVENT_S, lambda done, of: session.event(event="looking", walked=done, keys=of))
    elif session.options.quiet:
        yield lambda *_: None
    elif not sys.stderr.isatty():
        yield _Now(_LINE_S, lambda done, of: session.say(f"looked at {done:,} of {of:,} keys"), at_once=False)
    else:
        columns = (
            TextColumn("{task.fields[count]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=session.stderr(), transient=True) as bar:
            task = bar.add_task("", total=None, count="")

            def draw(done: int, of: int) -> None:
                # Keys come and expire meanwhile: there may be more than there were.
                bar.update(task, completed=done, total=max(done, of), count=f"{done:,} of {of:,} keys")

            yield draw


class _Now:
    """Tells now and then; several servers are walked side by side."""

    def __init__(self, every_s: float, tell: Callable[[int, int], None], *, at_once: bool = True) -> None:
        self._every_s = every_s
        self._tell = tell
        self._last = float("-inf") if at_once else time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, done: int, of: int) -> None:
        with self._lock:
            if time.monotonic() - self._last < self._every_s:
                return
            self._last = time.monotonic()
            self._tell(done, of)
