"""``--fault-table PATH``: writes what became of each fault's tests as a page in Markdown."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.tally import Fault, Outcome, Tally, Tried
from tests.faults.uncovered import UNCOVERED

OPTION = "--fault-table"
_PROPERTY = "fault"
_IN_ID = re.compile(r"(?:^|-)pg(\d+)(?:-|$)")
_IN_FIXTURE = re.compile(r"^pg(\d\d)_|(1\d|[2-9]\d)$")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the page's path."""
    parser.addoption(OPTION, metavar="PATH", type=Path, default=None, help="write the page of faults to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Have the page written where the reports of all workers come together."""
    path = config.getoption(OPTION, default=None)
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FaultTable(config.rootpath / path), "fault-table")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each report carry what its test declares: the one who writes has no tests, only reports."""
    for item in items:
        for mark in item.iter_markers("fault"):
            fault = Fault(*mark.args, **mark.kwargs)
            item.user_properties.append((_PROPERTY, [*astuple(fault), major_of(item)]))


def major_of(item: pytest.Item) -> int | None:
    """The PostgreSQL that a test runs on: by its parameter's id or by its fixtures' names."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and (found := _IN_ID.search(callspec.id)):
        return int(found[1])
    named = (_IN_FIXTURE.search(name) for name in getattr(item, "fixturenames", ()))
    return max((int(found[1] or found[2]) for found in named if found), default=None)


@dataclass(slots=True, eq=False)
class _Test:
    """What has been heard of one test."""

    location: tuple[str, int | None, str]
    faults: list[list[Any]] = field(default_factory=list)
    phases: dict[str, Outcome] = field(default_factory=dict)
    reason: str = ""

    @property
    def outcome(self) -> Outcome:
        """Passed only if all of it passed: of a worker that died, the rest is never heard of."""
        ended = set(self.phases.values())
        if "failed" not in ended and "skipped" in ended:
            return "skipped"
        return "passed" if ended == {"passed"} and "call" in self.phases else "failed"


class FaultTable:
    """Hears the reports and writes the page."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, _Test] = {}
        self._said = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        test = self._tests.setdefault(report.nodeid, _Test(report.location))
        told = [list(value) for name, value in report.user_properties if name == _PROPERTY and isinstance(value, list)]
        # The report of a worker's death has none, and is about a test that has been heard of.
        test.faults = told or test.faults
        # An expected failure is a failure of perfctl all the same.
        test.phases[report.when or ""] = "failed" if hasattr(report, "wasxfail") else report.outcome
        if report.skipped and isinstance(report.longrepr, tuple | list):
            test.reason = str(report.longrepr[2]).removeprefix("Skipped: ")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page, unless tests are missing because the run was cut short."""
        if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or session.shouldfail:
            self._said = "not written: the run did not come to its end"
            return
        tally = Tally()
        for test in self._tests.values():
            file, line, name = test.location
            for number, what, does, major in test.faults:
                tried = Tried(file, line or 0, name.partition("[")[0], major, test.outcome, test.reason)
                tally.add(Fault(number, what, does), tried)
        self._path.write_text(tally.page(UNCOVERED), encoding="utf-8")
        self._said = f"{self._path}: {len(tally.rows)} rows, {len(UNCOVERED)} not covered"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was written."""
        terminalreporter.write_line(f"fault table {self._said}")
