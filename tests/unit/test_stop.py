"""Two signals: the first asks, the second leaves, and neither cuts off what tells of the work."""

from __future__ import annotations

import signal

import pytest

from perfctl.errors import LeaveNow
from perfctl.stop import Stop


def test_a_first_signal_is_noted() -> None:
    stop = Stop()
    assert stop() is None
    stop.may_leave = True
    stop.heard(signal.SIGINT)
    assert stop() == signal.SIGINT


def test_a_second_one_leaves_the_work() -> None:
    stop = Stop()
    stop.may_leave = True
    stop.heard(signal.SIGINT)
    with pytest.raises(LeaveNow) as left:
        stop.heard(signal.SIGTERM)
    assert left.value.signum == signal.SIGTERM


def test_one_that_comes_when_the_work_is_over_cuts_off_nothing() -> None:
    stop = Stop()
    stop.heard(signal.SIGINT)
    stop.heard(signal.SIGTERM)
    assert stop() == signal.SIGINT
