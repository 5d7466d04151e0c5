"""What the show says on stdout: coloured on a terminal, plain aligned lines in a pipe, nothing when JSON is wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perfctl.render.plain import escape

if TYPE_CHECKING:
    from rich.console import Console

INDENT = "   "


@dataclass(slots=True)
class Screen:
    """Lines, numbered steps and one table."""

    #: a terminal's; None for a pipe
    console: Console | None
    #: shows on stderr that something is under way
    busy: Callable[[str], AbstractContextManager[object]]
    silent: bool = False
    steps: int = field(default=0, init=False)

    def title(self, text: str) -> None:
        """The first line, or the last part's."""
        self._line([(text, "bold")])

    def step(self, text: str) -> None:
        """The heading of the next step."""
        self.steps += 1
        self._line([])
        self._line([(f"{self.steps}. {text}", "bold cyan")])

    def say(self, text: str, style: str = "") -> None:
        """A line under the heading."""
        self._line([(INDENT + text, style)])

    def fact(self, name: str, text: str, style: str = "") -> None:
        """A line with a name in front."""
        self._line([(f"{INDENT}{name:<13}", "dim"), (text, style)])

    def table(self, header: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> None:
        """Rows of cells, each row with a style; all but the first and the last column are figures."""
        cells = [list(header), *(list(row) for row, _ in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        for row, style in zip(cells, ["dim", *(style for _, style in rows)], strict=True):
            first, *figures, last = row
            texts = [
                f"{first:<{widths[0]}}",
                *(f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=False)),
                last,
            ]
            line = INDENT + "  ".join(texts)
            # A row that wraps breaks the columns; whatever is cut off here is in the JSON.
            if self.console is not None and len(line) > self.console.width:
                line = line[: self.console.width - 1] + "…"
            self._line([(line, style)])

    def _line(self, parts: Sequence[tuple[str, str]]) -> None:
        if self.silent:
            return
        if self.console is None:
            sys.stdout.write("".join(escape(text) for text, _ in parts).rstrip() + "\n")
            sys.stdout.flush()
            return
        for text, style in parts:
            # The terminal wraps what is too long, so that a command can be copied as one line.
            self.console.print(escape(text), style=style or None, end="", soft_wrap=True)
        self.console.print()
