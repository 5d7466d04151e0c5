"""``perfctl indexes``: plan, apply, rollback, verify, status, lint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from perfctl.cli.options import command
from perfctl.cli.session import Session
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
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="For when nobody writes: plain CREATE INDEX, several at once on a table; refused when somebody does.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Build a differing index anew, swap it in by name, drop the old one."),
]
JournalOption = Annotated[
    str | None,
    typer.Option(
        "--journal",
        envvar="PERFCTL_JOURNAL",
        metavar="database|file:PATH|none",
        help="Where to write down what was done; for a role that may make no schema.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, max=64, envvar="PERFCTL_JOBS", help="Builds at once; else half the server's cores."
    ),
]


def _duration(name: str, help_text: str) -> Any:
    env = f"PERFCTL_{name.upper().replace('-', '_')}"
    return Annotated[str | None, typer.Option(f"--{name}", envvar=env, metavar="DURATION", help=help_text)]


#: what bounds a run, apart from what it is about
BOUNDS: dict[str, Any] = {
    "wait_budget": _duration(
        "wait-budget", "How long to wait for other transactions, in each phase; else the configuration's (15m)."
    ),
    "lock_timeout": _duration(
        "lock-timeout", "How long one try for a table's lock may take; else deadlock_timeout and 1s more."
    ),
    "blocker_age": _duration("blocker-age", "Transactions older than this are waited for before a build (10s)."),
    "jobs": Jobs,
    "go_on": Annotated[
        bool,
        typer.Option("--continue", envvar="PERFCTL_CONTINUE", help="Go on with other tables when one is stuck."),
    ],
    "not_after": Annotated[
        str | None,
        typer.Option(
            "--not-after",
            envvar="PERFCTL_NOT_AFTER",
            metavar="TIME",
            help="Start no build that would end later: 06:00.",
        ),
    ],
    "max_replica_lag": _duration("max-replica-lag", "Pause while a replica replays later than this (1m); 0s: never."),
    "min_free": Annotated[
        str | None,
        typer.Option(
            "--min-free",
            envvar="PERFCTL_MIN_FREE",
            metavar="SIZE",
            help="To stay free on the server's disk: 5GB.",
        ),
    ],
    "kill_blockers": Annotated[
        list[str] | None,
        typer.Option(
            "--kill-blockers",
            envvar="PERFCTL_KILL_BLOCKERS",
            metavar="role=GLOB|application=GLOB",
            help="End such sessions when they block (repeat); never an autovacuum.",
        ),
    ],
    "client_connection_check_interval": _duration(
        "client-connection-check-interval",
        "0s (default): a build outlives its client, and the next apply adopts it. Else it ends with its client.",
    ),
    "journal": JournalOption,
}


@command(app, "plan", group="indexes")
def plan(
    session: Session,
    migrations: Migrations = None,
    only: Only = None,
    without: Except = None,
    offline: Offline = False,
    replace: Replace = False,
    jobs: Jobs = None,
    journal: JournalOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Save the plan for apply FILE.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when there is something to do.")] = False,
) -> Report:
    """Show what apply would do, and why; changes nothing."""
    from perfctl.cli import index_bounds
    from perfctl.cli import index_work as work
    from perfctl.indexes.draft import Manner

    manner = Manner(offline, replace, jobs or session.loaded.settings.indexes.jobs)
    job = work.Job(work.load(session, migrations), work.selection(only, without), manner)
    seen, made = work.plan(session, session.postgres(), job, index_bounds.journal_place(session, journal))
    if out is not None:
        work.save(session, out, made, seen, job)
    return work.plan_report(session, made, seen, job, check=check)


@command(app, "apply", group="indexes", writes=True, bundle=("bounds", BOUNDS))
def apply(
    session: Session,
    what: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PLAN | MIGRATION...]", help="A plan saved by plan --out, or files and folders."),
    ] = None,
    only: Only = None,
    without: Except = None,
    offline: Offline = False,
    replace: Replace = False,
    *,
    bounds: Mapping[str, Any],
) -> Report:
    """Build what is missing, blocking nobody; what is right is not touched."""
    from perfctl.cli import index_bounds
    from perfctl.cli import index_work as work
    from perfctl.indexes.draft import Manner

    limits = index_bounds.bounds(session, bounds)
    saved = work.saved_plan(what)
    if saved is not None:
        if only or without or offline or replace:
            raise UsageError(
                "a saved plan already says what is to be done",
                hint="leave --only, --except, --offline and --replace out",
            )
        return work.apply(session, work.job_of(saved, limits.jobs), limits, saved)
    manner = Manner(offline, replace, limits.jobs)
    job = work.Job(work.load(session, what), work.selection(only, without), manner, tuple(map(str, what or ())))
    return work.apply(session, job, limits, None)


@command(app, "rollback", group="indexes", writes=True, bundle=("bounds", BOUNDS))
def rollback(
    session: Session,
    migrations: Annotated[
        list[str] | None, typer.Argument(metavar="[MIGRATION]...", help="Names of migrations; none = all.")
    ] = None,
    only: Only = None,
    without: Except = None,
    to: Annotated[int | None, typer.Option("--to", metavar="NUMBER", help="Keep migrations up to this one.")] = None,
    *,
    bounds: Mapping[str, Any],
) -> Report:
    """Take off what perfctl made, newest first, and put back what a migration dropped; nothing else."""
    from perfctl.cli import index_bounds
    from perfctl.cli import index_work as work

    return work.rollback(
        session, work.selection(only, without), index_bounds.bounds(session, bounds), to, migrations or []
    )


@command(app, "verify", group="indexes")
def verify(
    session: Session,
    migrations: Migrations = None,
    absent: Annotated[bool, typer.Option("--absent", help="Prove a rollback: none of perfctl's is left.")] = False,
    amcheck: Annotated[bool, typer.Option("--amcheck", help="Read every index and compare it with its table.")] = False,
    journal: JournalOption = None,
) -> Report:
    """Prove that the indexes are there, valid, as written and usable, and that no broken one is left behind."""
    from perfctl.cli import index_bounds
    from perfctl.cli import index_work as work

    return work.verify(
        session,
        work.load(session, migrations),
        index_bounds.journal_place(session, journal),
        absent=absent,
        amcheck=amcheck,
    )


@command(app, "status", group="indexes")
def status(session: Session, migrations: Migrations = None, journal: JournalOption = None) -> Report:
    """List the migrations and how much of each is applied."""
    from perfctl.cli import index_bounds
    from perfctl.cli import index_work as work

    return work.status(session, work.load(session, migrations), index_bounds.journal_place(session, journal))


@command(app, "lint", group="indexes", server=False)
def lint(session: Session, migrations: Migrations = None) -> Report:
    """Check migration files without a server."""
    from perfctl.cli import index_work as work
    from perfctl.indexes.lint import lint as decide

    found = work.load_offline(session, migrations)
    return session.report(decide(found), notes=work.notes(found))
