"""docs/faults.md and the tests of faults tell of the same faults, and of all in the project's list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import OPTION
from tests.faults.tally import COMMAND, Fault, Outcome, Tally, Tried, cell, cells, versions
from tests.faults.uncovered import UNCOVERED
from tests.fix_perfctl import ROOT

FOLDER = Path(__file__).parent
NUMBERS = set(range(1, 61))


def declared_in(text: str) -> Iterator[Fault]:
    """Every call of ``fault`` in a source, in the order of its lines; its words may be constants of the module."""
    tree = ast.parse(text)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def said(node: ast.expr) -> Any:
        return ast.literal_eval(constants[node.id] if isinstance(node, ast.Name) else node)

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name == "fault":
            named = {keyword.arg or "": said(keyword.value) for keyword in call.keywords}
            yield Fault(*(said(argument) for argument in call.args), **named)


@pytest.fixture(scope="module")
def declared() -> list[Fault]:
    """What the tests of faults declare, in the order of files and lines."""
    files = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "declare.py", Path(__file__)})
    return [fault for file in files for fault in declared_in(file.read_text(encoding="utf-8"))]


@pytest.fixture
def page(request: pytest.FixtureRequest) -> dict[str, list[list[str]]]:
    """The tables of docs/faults.md."""
    if request.config.getoption(OPTION, default=None) is not None:
        pytest.skip("the page is being written")
    path = ROOT / "docs" / "faults.md"
    if not path.exists():
        pytest.fail(f"docs/faults.md is not there; run {COMMAND}")
    return dict(cells(path.read_text(encoding="utf-8")))


def test_the_page_has_a_row_for_each_declared_fault_and_no_other(
    page: dict[str, list[list[str]]], declared: list[Fault]
) -> None:
    first: dict[tuple[str, str], str] = {}
    for fault in declared:
        first.setdefault((str(fault.number), cell(fault.what)), cell(fault.does))
    assert {(row[0], row[1]): row[2] for row in page["Faults"]} == first
    assert len(page["Faults"]) == len(first)


def test_the_page_names_what_is_not_covered(page: dict[str, list[list[str]]]) -> None:
    missing = [[str(number), cell(what), cell(why)] for number, what, why in sorted(UNCOVERED)]
    assert page.get("Not covered", []) == missing


def test_the_page_tells_of_no_failure(page: dict[str, list[list[str]]]) -> None:
    assert [row[:4] for row in page["Faults"] if "FAILED" in row[3]] == []


def test_every_fault_of_the_list_is_either_declared_or_not_covered(declared: list[Fault]) -> None:
    tried, not_tried = {fault.number for fault in declared}, {number for number, _, _ in UNCOVERED}
    assert tried & not_tried == set()
    assert tried | not_tried == NUMBERS


def ended(outcome: Outcome, major: int | None = 15, reason: str = "", line: int = 1, test: str = "test_a") -> Tried:
    return Tried("tests/faults/test_x.py", line, test, major, outcome, reason)


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([ended("passed", 18), ended("passed", 15)], "15, 18"),
        ([ended("passed"), ended("failed"), ended("passed", 16)], "16; FAILED on 15"),
        ([ended("passed"), ended("skipped", 18, "not here")], "15; not tried on 18 (not here)"),
        ([ended("skipped", reason="no root"), ended("failed")], "FAILED on 15"),
        ([ended("passed", None)], "needs none"),
        ([ended("passed", None), ended("passed")], "15"),
        ([ended("failed", None), ended("passed")], "15; FAILED"),
    ],
)
def test_a_version_is_listed_only_where_all_tests_of_the_row_passed(tests: list[Tried], said: str) -> None:
    assert versions(tests) == said


def test_tests_share_a_row_and_the_first_one_says_what_perfctl_does() -> None:
    tally = Tally()
    tally.add(Fault(2, "a|b", "second"), ended("passed", line=9, test="test_b"))
    tally.add(Fault(2, "a|b", "first"), ended("passed"))
    tally.add(Fault(1, "c", "d"), ended("passed"))
    assert cells(tally.page([(3, "e", "f")])) == {
        "Faults": [
            ["1", "c", "d", "15", "`test_x.py::test_a`"],
            ["2", r"a\|b", "first", "15", "`test_x.py::test_a`, `test_x.py::test_b`"],
        ],
        "Not covered": [["3", "e", "f"]],
    }
