"""What became of each fault's tests, and the page that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]
COMMAND = "python -m pytest -n 2 tests/faults --fault-table docs/faults.md"
HEAD = f"""# Faults

What can go wrong around perfctl, what perfctl does then, and the tests that bring it about on real servers.
Each version in a row is one on which all tests of that row passed.

This page is generated: `{COMMAND}`
"""
_CELL_END = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as a test declares it; the row it stands in is named by number and what."""

    number: int
    what: str
    does: str


@dataclass(frozen=True, slots=True, order=True)
class Tried:
    """How one test ended; without a major version when it needs no PostgreSQL."""

    file: str
    line: int
    test: str
    major: int | None
    outcome: Outcome
    reason: str = ""


@dataclass(slots=True)
class Tally:
    """The tests that ran, row by row."""

    rows: dict[tuple[int, str], list[tuple[Tried, str]]] = field(default_factory=dict)

    def add(self, fault: Fault, tried: Tried) -> None:
        """Count one test for a fault's row."""
        self.rows.setdefault((fault.number, fault.what), []).append((tried, fault.does))

    def page(self, uncovered: Iterable[tuple[int, str, str]]) -> str:
        """The page in Markdown."""
        rows = [_row(number, what, sorted(self.rows[number, what])) for number, what in sorted(self.rows)]
        missing = [(str(number), what, why) for number, what, why in sorted(uncovered)]
        covered = _table(("#", "fault", "what perfctl does", "PostgreSQL", "test"), rows)
        return f"{HEAD}\n{covered}\n## Not covered\n\n{_table(('#', 'fault', 'why'), missing)}"


def _row(number: int, what: str, tests: Sequence[tuple[Tried, str]]) -> tuple[str, ...]:
    names = dict.fromkeys(f"`{tried.file.rpartition('/')[2]}::{tried.test}`" for tried, _ in tests)
    return (str(number), what, tests[0][1], versions([tried for tried, _ in tests]), ", ".join(names))


def versions(tests: Iterable[Tried]) -> str:
    """On which versions all tests passed, and what became of the others."""
    by_major: dict[int | None, list[Tried]] = {}
    for tried in tests:
        by_major.setdefault(tried.major, []).append(tried)
    ordered = sorted(by_major.items(), key=lambda each: each[0] or 0)
    passed = [major for major, found in ordered if all(tried.outcome == "passed" for tried in found)]
    said = [", ".join(str(major) for major in passed if major)]
    if passed == [None]:
        said = ["needs none"]
    said += [_not_passed(major, found) for major, found in ordered if major not in passed]
    return "; ".join(word for word in said if word)


def _not_passed(major: int | None, tests: Iterable[Tried]) -> str:
    where = f" on {major}" if major else ""
    reasons = dict.fromkeys(tried.reason for tried in tests if tried.outcome == "skipped")
    if any(tried.outcome == "failed" for tried in tests):
        return f"FAILED{where}"
    return f"not tried{where} ({', '.join(reasons)})"


def cell(text: str) -> str:
    """A text as it stands in a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def cells(page: str) -> Mapping[str, list[list[str]]]:
    """The rows of the tables of a page, without their heads, by the page's headings."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            found.setdefault(heading, []).append([part.strip() for part in _CELL_END.split(line)[1:-1]])
    return {heading: rows[2:] for heading, rows in found.items()}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell(text) for text in line)} |\n" for line in lines)
