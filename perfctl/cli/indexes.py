"""``perfctl indexes``: plan, apply, rollback, verify, status, lint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfctl.cli.options import command
from perfctl.cli.session import Session, duration_s
from perfctl.errors import UsageError
from perfctl.report import Report

app = typer.Typer(
    name="indexes",
    help="Put a migration's indexes on a live database, prove them, take them off again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Migrations = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[MIGRATION]...", help="Files or folders; none = the configuration's indexes.migrations."),
]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="GLOB", help="Only what matches (repeat).")]
Except = Annotated[list[str] | None, typer.Option("--except", metavar="GLOB", help="All but what matches (repeat).")]
Plain = Annotated[
    bool, typer.Option("--no-concurrently", help="Plain CREATE and DROP INDEX: faster, and writes wait meanwhile.")
]
WaitBudget = Annotated[
    str | None,
    typer.Option(
        "--wait-budget",
        envvar="PERFCTL_WAIT_BUDGET",
        metavar="DURATION",
        help="How long one statement may wait for other transactions; else the configuration's (15m).",
    ),
]


@command(app, "plan", group="indexes")
def plan(
    session: Session,
    migrations: Migrations = None,
    only: Only = None,
    without: Except = None,
    no_concurrently: Plain = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Save the plan for apply FILE.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when there is something to do.")] = False,
) -> Report:
    """Show what apply would do, and why; changes nothing."""
    from perfctl.cli import index_work as work

    job = work.Job(work.load(session, migrations), work.selection(only, without), not no_concurrently)
    seen, made = work.plan(session, session.postgres(), job, estimate=True)
    if out is not None:
        work.save(session, out, made, seen, job)
    return work.plan_report(session, made, seen, job, check=check)


@command(app, "apply", group="indexes", writes=True)
def apply(
    session: Session,
    what: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PLAN | MIGRATION...]", help="A plan saved by plan --out, or files and folders."),
    ] = None,
    only: Only = None,
    without: Except = None,
    no_concurrently: Plain = False,
    wait_budget: WaitBudget = None,
) -> Report:
    """Build what is missing, one index at a time, blocking nobody; what is right is not touched."""
    from perfctl.cli import index_work as work

    limits = work.limits(session, duration_s("--wait-budget", wait_budget))
    saved = work.saved_plan(what)
    if saved is not None and (only or without or no_concurrently):
        raise UsageError(
            "a saved plan already says what is selected", hint="leave --only, --except and --no-concurrently out"
        )
    job = work.job_of(saved) if saved else work.Job(
        work.load(session, what), work.selection(only, without), not no_concurrently
    )  # fmt: skip
    return work.apply(session, job, limits, saved)


@command(app, "rollback", group="indexes", writes=True)
def rollback(
    session: Session,
    migrations: Annotated[
        list[str] | None, typer.Argument(metavar="[MIGRATION]...", help="Names of migrations; none = all.")
    ] = None,
    only: Only = None,
    without: Except = None,
    to: Annotated[int | None, typer.Option("--to", metavar="NUMBER", help="Keep migrations up to this one.")] = None,
    wait_budget: WaitBudget = None,
) -> Report:
    """Take off what perfctl made, newest first, and put back what a migration dropped; nothing else."""
    from perfctl.cli import index_work as work

    limits = work.limits(session, duration_s("--wait-budget", wait_budget))
    return work.rollback(session, work.selection(only, without), limits, to, migrations or [])


@command(app, "verify", group="indexes")
def verify(
    session: Session,
    migrations: Migrations = None,
    absent: Annotated[bool, typer.Option("--absent", help="Prove a rollback: none of perfctl's is left.")] = False,
    amcheck: Annotated[bool, typer.Option("--amcheck", help="Read every index and compare it with its table.")] = False,
) -> Report:
    """Prove that the indexes are there, valid, as written and usable, and that no broken one is left behind."""
    from perfctl.cli import index_work as work

    return work.verify(session, work.load(session, migrations), absent=absent, amcheck=amcheck)


@command(app, "status", group="indexes")
def status(session: Session, migrations: Migrations = None) -> Report:
    """List the migrations and how much of each is applied."""
    from perfctl.cli import index_work as work

    return work.status(session, work.load(session, migrations))


@command(app, "lint", group="indexes", server=False)
def lint(session: Session, migrations: Migrations = None) -> Report:
    """Check migration files without a server."""
    from perfctl.cli import index_work as work
    from perfctl.indexes.lint import lint as decide

    found = work.load_offline(session, migrations)
    return session.report(decide(found), notes=work.notes(found))
