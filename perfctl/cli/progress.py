"""The progress of a run: a bar on a terminal, a line an event elsewhere, JSON lines when they are asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perfctl.cli.session import Session
from perfctl.figures import human_seconds
from perfctl.indexes.items import event_facts
from perfctl.indexes.running import Event
from perfctl.render.plain import escape

#: events after which nothing more is heard of a step
ENDINGS = ("done", "failed", "unreached", "retry")

#: a silent build says that it lives this often
HEARTBEAT_S = 10.0


@contextmanager
def reporter(session: Session) -> Iterator[Callable[[Event], None]]:
    """The function that an act calls with each event."""
    if session.streams_events:
        yield lambda event: session.event(**event_facts(event))
    elif session.options.quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        from perfctl.cli.bar import bar

        with bar(session.stderr()) as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """One line an event; of progress, one now and then."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.held = ""

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind in ("progress", "waiting", "held"):
            # What a step waits for before it is sent is said at once the first time.
            news = event.kind == "held" and event.detail and not self.held
            self.held = event.detail if event.kind == "held" else self.held
            if (not news and now - self.last < HEARTBEAT_S) or (event.kind == "held" and not event.detail):
                return
            text = f"{event.kind}: {phase(event)} after {human_seconds(event.elapsed_s)}"
        elif event.kind == "start":
            text = event.step.sql.split("\n", 1)[0]
        elif event.kind in ("cleanup", "ended", "denied"):
            text = event.detail
        elif event.kind in ("retry", "unreached"):
            text = f"{event.kind}: {event.detail}"
        else:
            text = f"{event.kind} in {human_seconds(event.elapsed_s)}" + (f": {event.detail}" if event.detail else "")
        self.last = now
        sys.stderr.write(f"[{event.number}/{event.total}] {escape(str(event.step.name))}: {escape(text)}\n")
        sys.stderr.flush()


def phase(event: Event) -> str:
    """What a step is doing, how far it is, and whom it waits for."""
    progress = event.progress
    if progress is None:
        return event.detail or "working"
    # What the run itself says of it comes round its waits: "dropping …, waits for …; a second Ctrl-C leaves it".
    doing, _, more = event.detail.partition("; ")
    at = progress.phase or (progress.wait_phase if progress.is_waiting and not doing else "")
    words = [word for word in (doing, at) if word] or ["working"]
    if progress.fraction is not None:
        words.append(f"{progress.fraction:.0%}")
    if progress.blocker:
        words.append(f"waits for {progress.blocker}")
    return ", ".join(words) + (f"; {more}" if more else "")


def left(event: Event) -> str:
    """How long the phase will still take, where its pace tells."""
    done = share(event)
    if event.progress is None or not event.progress.fraction or done <= 0.02 or event.elapsed_s <= 2:
        return ""
    return f", {human_seconds(event.elapsed_s / done - event.elapsed_s)} left in this phase"


def share(event: Event) -> float:
    """How much of this step is done, roughly: the phase's own share is all that the server tells."""
    if event.progress is None or event.progress.fraction is None:
        return 0.0
    return event.progress.fraction
