"""The progress of a run: a bar on a terminal, a line an event elsewhere, JSON lines when they are asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perfctl.cli.session import Session
from perfctl.indexes.figures import human_seconds
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
        with _bar(session) as show:
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
            text = f"{event.kind}: {_phase(event)} after {human_seconds(event.elapsed_s)}"
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
    """One bar for the run, and a line under it for each step that is under way."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
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
        whole = bar.add_task("", total=1.0, count="", what="")
        held = bar.add_task("", total=1.0, count="  held", what="", visible=False)
        lines: dict[int, TaskID] = {}
        shares: dict[int, float] = {}

        def show(event: Event) -> None:
            ended = event.kind in ENDINGS
            if event.kind == "held":
                bar.update(held, visible=bool(event.detail), what=escape(f"{event.step.name.name}: {event.detail}"))
                return
            if event.kind == "denied":
                console.print(Text(f"{escape(str(event.step.name))}: {escape(event.detail)}", style="yellow"))
                return
            if event.number not in lines and not ended:
                lines[event.number] = bar.add_task("", total=1.0, count=f"  {event.number}", what="")
            shares[event.number] = _share(event)
            if ended:
                shares.pop(event.number, None)
                if (line := lines.pop(event.number, None)) is not None:
                    bar.remove_task(line)
            else:
                what = escape(f"{event.step.name.name}: {'starting' if event.kind == 'start' else _phase(event)}")
                bar.update(lines[event.number], completed=_share(event), what=what + _left(event))
            done = (event.finished + sum(shares.values())) / event.total
            bar.update(whole, completed=done, count=f"{event.finished} of {event.total}")
            # The table at the end says it too, unless it goes to a file.
            if event.kind in ("done", "failed") and not sys.stdout.isatty():
                style = "green" if event.kind == "done" else "bold red"
                mark = "✓" if event.kind == "done" else "✗"
                detail = f" {event.detail}" if event.detail else ""
                line_text = f"{mark} {escape(str(event.step.name))} {human_seconds(event.elapsed_s)}{escape(detail)}"
                console.print(Text(line_text, style=style))

        yield show


def _left(event: Event) -> str:
    """How long the phase will still take, where its pace tells."""
    share = _share(event)
    if event.progress is None or not event.progress.fraction or share <= 0.02 or event.elapsed_s <= 2:
        return ""
    return f", {human_seconds(event.elapsed_s / share - event.elapsed_s)} left in this phase"


def _share(event: Event) -> float:
    """How much of this step is done, roughly: the phase's own share is all that the server tells."""
    if event.progress is None or event.progress.fraction is None:
        return 0.0
    return event.progress.fraction
