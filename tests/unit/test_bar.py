"""The lines on a terminal: the figures are whole at every width, and what is too long loses its end."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from perfctl.cli.bar import bar
from perfctl.cli.progress import phase
from perfctl.indexes.model import Step
from perfctl.indexes.running import Event, Progress
from perfctl.migrations.model import Name

STEP = Step("create_index", Name("public", "orders_by_customer"), "CREATE INDEX …", None, "")
WAITING = Progress(
    pid=1,
    application="perfctl",
    state="active",
    idle_s=None,
    index_oid=200,
    phase="waiting for writers before build",
    lockers_total=1,
    lockers_done=0,
    blocks_total=0,
    blocks_done=0,
    tuples_total=0,
    tuples_done=0,
    xmin_age=None,
    wait_lock="virtualxid",
    blocker_pid=4711,
    blocker_role="app",
    blocker_application="web",
    blocker_state="idle in transaction",
    blocker_age_s=12.0,
    blocker_query="SELECT 1",
    blocker_started_at=datetime(2026, 1, 1, tzinfo=UTC),
    blocker_is_client=True,
    prepared=None,
)
DROPPING = "dropping what the build left; a second Ctrl-C leaves it"


def event(kind: str, **facts: object) -> Event:
    return replace(Event(kind, STEP, 1, 27), **facts)  # type: ignore[arg-type]


def shown(width: int, *events: Event) -> list[str]:
    """The lines that the terminal showed, the last state of each last."""
    out = io.StringIO()
    with bar(Console(file=out, width=width, height=25, force_terminal=True, markup=False, highlight=False)) as show:
        for each in events:
            show(each)
    return [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())) if line]


@pytest.mark.parametrize("width", [40, 50, 60, 80, 110, 120])
def test_the_figures_are_whole_and_the_words_are_cut(width: int) -> None:
    lines = shown(width, event("start"), event("progress", progress=WAITING, elapsed_s=3.0))
    whole = next(line for line in reversed(lines) if "of 27" in line)
    step = next(line for line in reversed(lines) if line.startswith("  1"))
    for line in (whole, step):
        assert re.search(r"  0% \d:\d\d:\d\d", line), line
        # Ctrl-C is echoed behind it.
        assert len(line.rstrip()) <= width - 4
    assert step.rstrip().endswith("…")
    assert ("━" in step) == (width >= 60)


def test_a_wide_terminal_shows_who_is_waited_for() -> None:
    lines = shown(200, event("start"), event("progress", progress=WAITING))
    said = "waiting for writers before build, waits for pid 4711 (app, web, idle in transaction, open for 12 s)"
    assert any(f"orders_by_customer: {said}" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_drop_of_a_leftover_says_what_it_is(width: int) -> None:
    dropping = event("progress", progress=replace(WAITING, phase=None), detail=DROPPING)
    lines = shown(width, event("start"), event("cleanup", detail=DROPPING), dropping)
    assert "a second Ctrl-C leaves it" in "".join(lines)
    assert "orders_by_customer: d" in lines[-1]


def test_a_drop_says_whom_it_waits_for_and_how_to_leave_it() -> None:
    said = phase(event("progress", progress=replace(WAITING, phase=None), detail=DROPPING))
    assert said == (
        "dropping what the build left, waits for pid 4711 (app, web, idle in transaction, open for 12 s);"
        " a second Ctrl-C leaves it"
    )
