"""Carries a plan out: each step looked at before and after, each in the journal, each beside its undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from perfctl.errors import (
    Busy,
    ConnectionLost,
    Denied,
    Incomplete,
    Interrupted,
    PerfctlError,
    Refused,
    StatementFailed,
    StopRequested,
)
from perfctl.indexes.ledger import Journal
from perfctl.indexes.run import Ground, OnEvent, Run
from perfctl.indexes.running import Limits, Outcome, WaitedTooLong
from perfctl.indexes.watcher import Watcher
from perfctl.servers.postgres import Postgres
from perfctl.stop import Stop


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did; ``error`` is why it stopped before its end."""

    run_id: int
    outcomes: tuple[Outcome, ...]
    error: PerfctlError | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ways:
    """The commands that go on from a run that stopped, and that take back what it did."""

    resume: str
    undo: str | None = None


def apply(
    pg: Postgres,
    ground: Ground,
    limits: Limits,
    on_event: OnEvent,
    stop: Stop,
    *,
    journal: Callable[[Watcher], Journal],
    command: str,
    target: str | None,
    ways: Ways,
) -> Result:
    """Send the steps; what is done stays, whatever becomes of the rest.

    Raises Busy when another perfctl is at work and Refused or Denied before anything was touched; whatever goes
    wrong later is the Result's error, beside what was done.
    """
    with Watcher(pg, ground.connect, limits, stop) as watcher:
        book = journal(watcher)
        run_id = book.open(command, target)
        run = Run(ground, watcher, book, limits, on_event, stop)
        run.all()
        error = _error(run, ways)
        # Where the server is gone for good: what the journal lacks, the next run reads off the catalogue.
        with suppress(PerfctlError, StopRequested):
            book.close("done" if error is None else error.message)
        return Result(run_id, tuple(run.outcomes), error, tuple(run.notes))


def _error(run: Run, ways: Ways) -> PerfctlError | None:
    """What the run has to say for itself: the first cause, how much is done, what stays behind, what to do next."""
    changed = [each for each in run.outcomes if each.result == "changed"]
    left = len(run.ground.steps) - sum(1 for each in run.outcomes if each.result != "failed")
    if run.stopped_by is None and not run.errors:
        return None
    # Where nothing was changed nothing is left half done either.
    trees = run.tasks.unfinished_trees() if changed else {}
    stays = [f'"{name}": {what}' for name, what in (run.leftovers | trees).items()]
    hints = [f"to go on: {ways.resume}"]
    if ways.undo and changed:
        hints.append(f"to undo: {ways.undo}")
    if run.stopped_by is not None:
        at = f' at "{run.errors[0][0].actual}"' if run.errors else ""
        message = "\n".join([f"stopped{at}: {len(changed)} done, {left} left", *stays])
        return Interrupted(run.stopped_by, message, hint="\n".join(hints))
    causes = [f'"{step.actual}": {_words(error)}' for step, error in run.errors]
    first = run.errors[0][1]
    if not changed and not stays and (unchanged := _nothing_changed(run.errors[0][1], causes)) is not None:
        return unchanged
    hint = first.hint if isinstance(first, PerfctlError) else None
    return Incomplete(
        "\n".join(
            [
                *causes,
                *(s for s in stays if s not in causes),
                f"{len(changed)} of {len(run.ground.steps)} done, {left} left",
            ]
        ),
        hint="\n".join(part for part in (hint, *hints) if part),
    )


def _nothing_changed(first: BaseException, causes: Sequence[str]) -> PerfctlError | None:
    """The error of a run that left everything as it was; None where that is not certain."""
    hint = first.hint if isinstance(first, PerfctlError) else None
    text = "\n".join([*causes[:-1], f"{causes[-1]}; nothing was changed"])
    match first:
        case WaitedTooLong():
            return Busy(text, hint=hint)
        case StatementFailed() | Refused():
            return Refused(text, hint=hint)
        case Denied():
            return Denied(text, hint=hint)
        case ConnectionLost():
            # Who lost the connection cannot swear to it.
            return None
    return None


def _words(error: BaseException) -> str:
    if not isinstance(error, PerfctlError):
        return "stopped"
    detail = f"; {error.detail.rstrip('.')}" if isinstance(error, StatementFailed) and error.detail else ""
    return f"{error.message}{detail}"
