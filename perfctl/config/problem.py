"""What is wrong in a file, as a reader sees it: file, line, column, the line itself, the cure.

A line is only shown as far as it is known to hold no secret: the values of known keys that are not
secrets. Everything else on it, comments too, is masked or left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perfctl.config.address import CREDENTIALS, MASK

_PLAIN_NAME = re.compile(r"\w[\w.-]{0,63}")
_CONTROL = re.compile(r"[^\S\t ]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a key or a value stands; lines and columns count from 0, the end is not part of it."""

    line: int
    column: int
    end_line: int
    end_column: int
    shown: bool = True

    def on(self, line: int, length: int) -> tuple[int, int] | None:
        """Its first and last column on a line of that length, None when it has none there."""
        if not self.line <= line <= self.end_line:
            return None
        first = self.column if line == self.line else 0
        last = min(self.end_column, length) if line == self.end_line else length
        return (first, last) if first < last else None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where; without a span it is about the file as a whole."""

    text: str
    span: Span | None = None
    cures: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int]:
        """For sorting by place."""
        return (self.span.line, self.span.column) if self.span else (-1, -1)


@dataclass(frozen=True, slots=True)
class Source:
    """A file's lines, and which parts of them may be shown."""

    label: str
    lines: Sequence[str]
    spans: Sequence[Span] = ()

    def describe(self, problem: Problem) -> str:
        """The problem as a block of text: path:line:col, the line with carets, the cures."""
        cures = [f"  = {cure}" for cure in problem.cures]
        if problem.span is None:
            return "\n".join((f"{self.label}: error: {problem.text}", *cures))
        span = problem.span
        head = f"{self.label}:{span.line + 1}:{span.column + 1}: error: {problem.text}"
        return "\n".join((head, *self._excerpt(span), *cures))

    def _excerpt(self, span: Span) -> list[str]:
        if not 0 <= span.line < len(self.lines):
            return []
        line = self.lines[span.line]
        first, last = span.on(span.line, len(line)) or (span.column, span.column + 1)
        shown, marks = _masked(line, span.line, self.spans)
        first, last = _moved(first, marks, start=True), _moved(last, marks, start=False)
        first = min(first, len(shown))
        lead = "".join("\t" if character == "\t" else " " for character in shown[:first])
        return [f"  | {shown}".rstrip(), f"  | {lead}{'^' * max(1, min(last, len(shown)) - first)}"]


def plain_name(name: str) -> str:
    """A key's name in quotes, masked when it may be more than a name."""
    return f'"{name}"' if _PLAIN_NAME.fullmatch(name) else f'"{MASK}"'


def dotted(place: Iterable[str | int]) -> str:
    """The place as ``targets.production.database``, what is no plain name masked."""
    return ".".join(plain_name(str(step)).strip('"') for step in place)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, None when none is near."""
    spelled = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(word.casefold(), spelled, n=1, cutoff=0.6)
    return spelled[found[0]] if found else None


#: columns of a masked part in the file, and columns of the mask that stands for it
_Mark = tuple[int, int, int, int]


def _masked(line: str, number: int, spans: Sequence[Span]) -> tuple[str, list[_Mark]]:
    """The line as it may be shown, and which columns moved."""
    found = sorted((*columns, span.shown) for span in spans if (columns := span.on(number, len(line))))
    out, at = "", 0
    marks: list[_Mark] = []
    for first, last, may_show in found:
        if last <= at:
            continue
        out += _between(line[at:first])
        at = max(at, first)
        if may_show and not CREDENTIALS.search(line[at:last]):
            out += line[at:last]
        elif not (marks and marks[-1][1] == at):
            marks.append((at, last, len(out), len(out) + len(MASK)))
            out += MASK
        at = last
    tail = _between(line[at:])
    return _CONTROL.sub("?", out + tail).rstrip(), marks


def _between(text: str) -> str:
    """What stands between keys and values is punctuation; a comment, an anchor or a tag is left out."""
    return re.sub(r"[^\s:,{}\[\]?|>'\"-]", " ", text.split("#")[0])


def _moved(column: int, marks: Sequence[_Mark], *, start: bool) -> int:
    moved = column
    for first, last, shown_first, shown_last in marks:
        if column >= last:
            moved = column - last + shown_last
        elif column > first or (column == first and start):
            return shown_first if start else shown_last
    return moved
