"""``perfctl explain``: check, show, baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfctl.cli.options import command
from perfctl.cli.session import Session
from perfctl.report import Report

app = typer.Typer(
    name="explain",
    help="Hold the plans of hot queries to declared rules.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[QUERY]...", help="Names or globs; none = all hot queries.")
]
Files = Annotated[
    list[Path] | None,
    typer.Option("--file", metavar="PATH", help="A query file, instead of the configuration's folder (repeat)."),
]
Analyze = Annotated[
    bool,
    typer.Option(
        "--analyze",
        envvar="PERFCTL_ANALYZE",
        help="Run what may be run: EXPLAIN ANALYZE of plain SELECTs, in a read-only transaction.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print what would be sent, send nothing.")]


@command(app, "check", group="explain")
def check(
    session: Session, names: Names = None, file: Files = None, analyze: Analyze = False, dry_run: DryRun = False
) -> Report:
    """Plan the hot queries, for each of their value sets and for any value, and judge their rules."""
    from perfctl.cli import explain_work as work

    hot = work.hot(session, names, file)
    if dry_run:
        return work.shown(session, hot, analyze=analyze)
    return work.check(session, hot, analyze=analyze)


@command(app, "show", group="explain")
def show(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="QUERY", help="A hot query's name.")],
    file: Files = None,
    values: Annotated[str | None, typer.Option("--set", metavar="NAME", help="With which of its value sets.")] = None,
    generic: Annotated[bool, typer.Option("--generic", help="The plan for any value of the parameters.")] = False,
    before: Annotated[bool, typer.Option("--before", help="The accepted plan too, as it was.")] = False,
    analyze: Analyze = False,
) -> Report:
    """One query's plan as a tree; with --format json PostgreSQL's own JSON, as plan viewers take it."""
    from perfctl.cli import explain_work as work

    hot = work.hot(session, [name], file)
    return work.show(session, hot, work.Wanted(values, generic=generic, before=before, analyze=analyze))


baselines = typer.Typer(name="baseline", help="Keep the plans that are accepted.", rich_markup_mode=None)
app.add_typer(baselines)
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="QUERY", help="Names or globs; none = all hot queries (repeat).")
]


@command(baselines, "", group="explain baseline")
def baseline(
    session: Session, only: Only = None, file: Files = None, analyze: Analyze = False, dry_run: DryRun = False
) -> Report:
    """Write down the plans of queries that have no accepted plan yet; say which have another one now."""
    from perfctl.cli import explain_work as work

    return work.baseline(session, work.hot(session, only, file), analyze=analyze, reason=None, dry_run=dry_run)


@command(baselines, "accept", group="explain baseline")
def accept(
    session: Session,
    names: Annotated[list[str], typer.Argument(metavar="QUERY...", help="Names or globs.")],
    reason: Annotated[str, typer.Option("--reason", help="Why the plan as it is now is right.")],
    file: Files = None,
    analyze: Analyze = False,
    dry_run: DryRun = False,
) -> Report:
    """Accept the plans as they are now, in place of those before."""
    from perfctl.cli import explain_work as work

    return work.baseline(session, work.hot(session, names, file), analyze=analyze, reason=reason, dry_run=dry_run)
