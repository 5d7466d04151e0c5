"""The progress of a run on a terminal: one bar for the run, and a line under it for each step that is under way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from perfctl.cli.progress import ENDINGS, left, phase, share
from perfctl.figures import human_seconds
from perfctl.indexes.running import Event
from perfctl.render.plain import escape

#: how wide the bar is, by what the terminal has at least: the words say more than it does
_BARS = ((100, 24), (60, 10))
#: Left free on the right: a terminal echoes Ctrl-C where the cursor stands, and in the last column that begins a line
#: of its own, which nothing would take away again.
_ECHO = 4


class _Progress(Progress):
    """Figures first and whole; the words get the room that is left, and lose their end where it is too little."""

    def __init__(self, console: Console) -> None:
        # Progress asks for its lines before it has a console of its own.
        self._terminal = console
        super().__init__(console=console, transient=True, expand=True)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The lines, made for the terminal's width as it is now."""
        width = self._terminal.width
        bars = (BarColumn(bar_width=size) for least, size in _BARS if width >= least)
        bar: tuple[ProgressColumn, ...] = tuple(bars)[:1]
        self.columns = (
            TextColumn("{task.fields[count]}", markup=False),
            *bar,
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TimeElapsedColumn(),
            TextColumn(
                "{task.fields[what]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
        )
        for table in super().get_renderables():
            yield Constrain(table, max(1, width - _ECHO))


@contextmanager
def bar(console: Console) -> Iterator[Callable[[Event], None]]:
    """The function that shows an event; the lines go away when the block ends."""
    with _Progress(console) as lines:
        yield _Show(lines, console)


class _Show:
    def __init__(self, lines: Progress, console: Console) -> None:
        self._bar = lines
        self._console = console
        self._whole = lines.add_task("", total=1.0, count="", what="")
        self._held = lines.add_task("", total=1.0, count="  held", what="", visible=False)
        self._lines: dict[int, TaskID] = {}
        self._shares: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "held":
            what = escape(f"{event.step.name.name}: {event.detail}")
            self._bar.update(self._held, visible=bool(event.detail), what=what)
            return
        if event.kind == "denied":
            self._bar.console.print(Text(f"{escape(str(event.step.name))}: {escape(event.detail)}", style="yellow"))
            return
        if event.kind in ENDINGS:
            self._shares.pop(event.number, None)
            if (line := self._lines.pop(event.number, None)) is not None:
                self._bar.remove_task(line)
        else:
            self._go_on(event)
        done = (event.finished + sum(self._shares.values())) / event.total
        self._bar.update(self._whole, completed=done, count=f"{event.finished} of {event.total}")
        self._keep(event)

    def _go_on(self, event: Event) -> None:
        if event.number not in self._lines:
            self._lines[event.number] = self._bar.add_task("", total=1.0, count=f"  {event.number}", what="")
        self._shares[event.number] = share(event)
        doing = "starting" if event.kind == "start" else phase(event)
        what = escape(f"{event.step.name.name}: {doing}") + left(event)
        self._bar.update(self._lines[event.number], completed=share(event), what=what)

    def _keep(self, event: Event) -> None:
        """What stays on the terminal above the lines."""
        name = escape(str(event.step.name))
        if event.kind == "cleanup":
            # It may take long, and the line below may be too short to say how to leave it.
            self._console.print(Text(f"{name}: {escape(event.detail)}"))
        # The table at the end says it too, unless it goes to a file.
        elif event.kind in ("done", "failed") and not sys.stdout.isatty():
            style = "green" if event.kind == "done" else "bold red"
            mark = "✓" if event.kind == "done" else "✗"
            detail = f" {escape(event.detail)}" if event.detail else ""
            self._console.print(Text(f"{mark} {name} {human_seconds(event.elapsed_s)}{detail}", style=style))
