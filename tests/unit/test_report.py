"""The exit code follows from the items and the error, the worst first."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from perfctl import errors
from perfctl.errors import EXIT_NAMES, WORST_FIRST, exit_code_of, worst
from perfctl.report import Item, Report, Status

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)


def report(*statuses: Status, error: BaseException | None = None, check: bool = False) -> Report:
    items = tuple(Item("index", "i", status) for status in statuses)
    return Report("indexes apply", "test", items, AT, 1.0, error=error, check=check)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.OK, 0),
        (Status.CHANGED, 0),
        (Status.PLANNED, 0),
        (Status.SKIPPED, 0),
        (Status.FINDING, 1),
        (Status.UNKNOWN, 1),
        (Status.FAILED, 5),
    ],
)
def test_one_item_gives_its_code(status: Status, code: int) -> None:
    assert report(status).exit_code == code


def test_no_item_is_ok() -> None:
    assert (report().exit_code, report().exit_name) == (0, "ok")


def test_check_makes_something_to_do_a_finding() -> None:
    assert report(Status.PLANNED, check=True).exit_code == 1


def test_check_with_nothing_to_do_is_ok() -> None:
    assert report(Status.SKIPPED, check=True).exit_code == 0


def test_what_could_not_be_looked_at_may_ask_for_a_retry() -> None:
    item = Item("indexes", "test", Status.UNKNOWN, data={"exit_code": 3})
    assert Report("verify", "test", (item,), AT, 1.0).exit_code == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError(), 2),
        (errors.ConfigError(), 2),
        (errors.MigrationError(), 2),
        (errors.Unreachable(), 3),
        (errors.ConnectionLost(), 3),
        (errors.Refused(), 4),
        (errors.NotConfirmed(), 4),
        (errors.PlanMoved(["x"]), 4),
        (errors.Incomplete(), 5),
        (errors.StatementFailed(), 70),
        (errors.Busy(), 6),
        (errors.Denied(), 7),
        (errors.Interrupted(2), 130),
        (errors.Interrupted(15), 143),
        (errors.StopRequested(15), 143),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 70),
        (errors.PerfctlError(), 70),
    ],
)
def test_an_error_gives_its_code(error: BaseException, code: int) -> None:
    assert (exit_code_of(error), report(error=error).exit_code) == (code, code)


def test_several_give_the_worst_in_the_promised_order() -> None:
    promised = [70, 5, 4, 7, 3, 6, 2, 1, 0]
    assert [code for code in WORST_FIRST if code in promised] == promised
    assert all(worst([low, high]) == high for high, low in pairwise(promised))


def test_every_code_has_a_name_and_a_place() -> None:
    assert set(EXIT_NAMES) == set(WORST_FIRST)


def test_an_error_beside_good_items_is_not_ok() -> None:
    assert report(Status.CHANGED, error=errors.Incomplete()).exit_code == 5


def test_counts_leave_out_what_there_is_none_of() -> None:
    assert report(Status.OK, Status.OK, Status.FAILED).counts == {"ok": 2, "failed": 1}


def test_a_class_says_its_default_message() -> None:
    assert report(error=errors.Busy()).error_message == "a lock was not obtained in time; nothing was changed"


def test_a_bug_is_named_by_its_class_and_shows_no_text() -> None:
    said = report(error=ValueError("password=hunter2"))
    assert said.error_message == "ValueError: this is a bug in perfctl"
    assert said.error_hint is None


def test_a_hint_is_handed_on() -> None:
    assert report(error=errors.Refused(hint="say --yes")).error_hint == "say --yes"
