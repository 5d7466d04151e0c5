"""The progress of a run: a bar on a terminal, a line an event elsewhere, JSON lines when they are asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perfctl.cli.session import Session
from perfctl.indexes.figures import human_seconds
from perfctl.indexes.items import event_facts
from perfctl.indexes.model import Event
from perfctl.render.plain import escape

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
        with _bar(session) as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """One line an event; of progress, one now and then."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind in ("progress", "waiting"):
            if now - self.last < HEARTBEAT_S:
                return
            text = f"{event.kind}: {_phase(event)} after {human_seconds(event.elapsed_s)}"
        elif event.kind == "start":
            text = event.step.sql.split("\n", 1)[0]
        elif event.kind == "cleanup":
            text = event.detail
        else:
            text = f"{event.kind} in {human_seconds(event.elapsed_s)}" + (f": {event.detail}" if event.detail else "")
        self.last = now
        sys.stderr.write(f"[{event.number}/{event.total}] {escape(str(event.step.name))}: {escape(text)}\n")
        sys.stderr.flush()


def _phase(event: Event) -> str:
    progress = event.progress
    if progress is None:
        return event.detail or "working"
    words = [progress.phase or ("waiting for the table's lock" if progress.is_waiting else "working")]
    if progress.fraction is not None:
        words.append(f"{progress.fraction:.0%}")
    if progress.blocker:
        words.append(f"waits for {progress.blocker}")
    return ", ".join(words)


@contextmanager
def _bar(session: Session) -> Iterator[Callable[[Event], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = session.stderr()
    bar = Progress(
        TextColumn("{task.fields[count]}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}", markup=False),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=1.0, count="", what="")

        def show(event: Event) -> None:
            count = f"{event.number} of {event.total}"
            what = escape(f"{event.step.name.name}: {'starting' if event.kind == 'start' else _phase(event)}")
            share = _share(event)
            eta = f", {human_seconds(event.elapsed_s / share - event.elapsed_s)} left in this phase" if (
                event.progress is not None and event.progress.fraction and share > 0.02 and event.elapsed_s > 2
            ) else ""  # fmt: skip
            bar.update(task, completed=(event.number - 1 + share) / event.total, count=count, what=what + eta)
            # The table at the end says it too, unless it goes to a file.
            if event.kind in ("done", "failed") and not sys.stdout.isatty():
                style = "green" if event.kind == "done" else "bold red"
                mark = "✓" if event.kind == "done" else "✗"
                detail = f" {event.detail}" if event.detail else ""
                line = f"{mark} {escape(str(event.step.name))} {human_seconds(event.elapsed_s)}{escape(detail)}"
                console.print(Text(line, style=style))

        yield show


def _share(event: Event) -> float:
    """How much of this step is done, roughly: the phase's own share is all that the server tells."""
    if event.kind == "done":
        return 1.0
    if event.progress is None or event.progress.fraction is None:
        return 0.0
    return event.progress.fraction
