"""The stages of the index commands, put in order: load, observe, decide, ask, act, look again.

Loaded only when a command runs; everything heavy is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perfctl.cli.session import Session
from perfctl.errors import PlanMoved, Refused, UsageError
from perfctl.indexes import act, decide, items, judge, observe, savedplan, undo
from perfctl.indexes.decide import Selection
from perfctl.indexes.model import Limits, Plan, Snapshot
from perfctl.migrations.files import load as load_files
from perfctl.migrations.model import Migration
from perfctl.report import Item, Report, Status
from perfctl.servers.postgres import Postgres


@dataclass(frozen=True, slots=True)
class Job:
    """What a plan is to be made of."""

    migrations: tuple[Migration, ...]
    selection: Selection = field(default_factory=Selection)
    concurrently: bool = True


def load(session: Session, paths: Sequence[Path] | None) -> tuple[Migration, ...]:
    """The migrations of the given paths, or those that the configuration names."""
    return load_files(list(paths) if paths else [session.loaded.settings.indexes.migrations])


def load_offline(session: Session, paths: Sequence[Path] | None) -> tuple[Migration, ...]:
    """As ``load``, and without any configuration the folder where migrations stand by default."""
    from perfctl.config import find

    if not paths and find(session.options.config, os.environ, Path.cwd()) is None:
        paths = [Path("sql/migrations")]
        if not paths[0].is_dir():
            raise UsageError(
                "no migrations named, no perfctl.yaml, and no folder sql/migrations here",
                hint="perfctl indexes lint FILE_OR_FOLDER",
            )
    return load(session, paths)


def notes(migrations: Sequence[Migration]) -> list[str]:
    """What was passed over in the files."""
    return [f"{note.place}: note: {note.text}" for migration in migrations for note in migration.notes]


def selection(only: Sequence[str] | None, without: Sequence[str] | None) -> Selection:
    """The selection that --only and --except make."""
    return Selection(tuple(only or ()), tuple(without or ()))


def limits(session: Session, wait_budget_s: float | None) -> Limits:
    """The limits of a run: the option, else the configuration."""
    return Limits(wait_budget_s=wait_budget_s or session.loaded.settings.indexes.wait_budget_s)


def scope(session: Session) -> tuple[str, ...]:
    """The schemas whose broken indexes count; none = those of the migrations' tables."""
    return session.target.database.schemas if session.target.database else ()


def plan(session: Session, pg: Postgres, job: Job, *, estimate: bool = False) -> tuple[Snapshot, Plan]:
    """Look, and decide."""
    seen = observe.snapshot(pg, job.migrations, scope=scope(session), estimate=estimate)
    made = decide.steps(
        job.migrations, observe.wanted(job.migrations, seen), seen, job.selection, concurrently=job.concurrently
    )
    if job.selection.only and not (made.steps or made.skipped or made.refusals):
        raise UsageError(
            f"nothing matches --only {' '.join(job.selection.only)}", hint="perfctl indexes status lists all"
        )
    return seen, made


def save(session: Session, path: Path, made: Plan, seen: Snapshot, job: Job) -> None:
    """Write the plan to a file."""
    text = savedplan.dump(
        made,
        seen,
        target=session.target.name,
        migrations=job.migrations,
        selection=job.selection,
        concurrently=job.concurrently,
    )
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f'plan "{path}" cannot be written: {error.strerror}') from error


def plan_report(session: Session, made: Plan, seen: Snapshot, job: Job, *, check: bool) -> Report:
    """What ``plan`` prints; a refusal makes it a finding."""
    lines = [*items.totals(made, seen), *notes(job.migrations)]
    if not made.steps and not made.refusals:
        lines.append("nothing to do: everything is there and right")
    if seen.server.in_recovery:
        lines.append("this is a standby: apply will be refused here")
    return session.report(items.planned(made), notes=lines, dry_run=True, check=check)


def saved_plan(what: Sequence[Path] | None) -> savedplan.SavedPlan | None:
    """The plan that ``apply FILE`` names, None when it names migrations."""
    if not what or not any(path.suffix == ".json" for path in what):
        return None
    if len(what) > 1:
        raise UsageError("a saved plan stands alone", hint="perfctl indexes apply plan.json")
    return savedplan.read(what[0])


def job_of(saved: savedplan.SavedPlan) -> Job:
    """The job that the plan was made of."""
    return Job(saved.migrations, saved.selection, saved.concurrently)


def apply(session: Session, job: Job, bounds: Limits, saved: savedplan.SavedPlan | None) -> Report:
    """Look, decide, ask, act."""
    if saved is not None and saved.target != session.target.name:
        raise Refused(
            f'the plan was made for target "{saved.target}", this is "{session.target.name}"',
            hint=f"say --target {saved.target}",
        )
    watcher = _direct(session)
    seen, made = plan(session, watcher, job, estimate=session.options.dry_run)
    _refuse_standby(seen)
    if saved is not None and (moved := savedplan.differences(saved, made, seen)):
        raise PlanMoved(moved, hint="make a new plan: perfctl indexes plan --out FILE")
    if made.refusals:
        raise items.refused(made)
    if session.options.dry_run:
        return plan_report(session, made, seen, job, check=False)
    return _carry_out(session, watcher, made, seen, bounds, ask=saved is None, extra=notes(job.migrations))


def rollback(session: Session, chosen: Selection, bounds: Limits, to: int | None, migrations: Sequence[str]) -> Report:
    """Look at the journal, decide, ask, act."""
    watcher = _direct(session)
    seen = observe.snapshot(watcher, (), scope=scope(session))
    _refuse_standby(seen)
    names = [Path(name).stem for name in migrations]
    unknown = set(names) - {entry.migration for entry in seen.journal}
    if unknown:
        raise UsageError(f"not in the journal: {', '.join(sorted(unknown))}", hint="perfctl indexes status lists them")
    made = undo.steps(seen, chosen, to=to, migrations=names)
    if chosen.only and not (made.steps or made.skipped or made.refusals):
        raise UsageError(
            f"perfctl made nothing here that matches --only {' '.join(chosen.only)}",
            hint="rollback takes off only what the journal says perfctl made",
        )
    if made.refusals:
        raise items.refused(made)
    if session.options.dry_run:
        return session.report(items.planned(made), notes=items.totals(made, seen), dry_run=True)
    return _carry_out(session, watcher, made, seen, bounds, ask=True, extra=[])


def verify(session: Session, migrations: Sequence[Migration], *, absent: bool, amcheck: bool) -> Report:
    """Look, and judge."""
    pg = session.postgres(bounded=not amcheck)
    seen = observe.snapshot(pg, migrations, scope=scope(session))
    wanted = observe.wanted(migrations, seen)
    corruption = observe.amcheck(pg, wanted, seen) if amcheck else None
    judged = judge.verify(migrations, wanted, seen, absent=absent, corruption=corruption)
    if amcheck and corruption is None:
        judged.append(Item("extension", "amcheck", Status.UNKNOWN, "not installed here", "CREATE EXTENSION amcheck"))
    return session.report(judged, notes=items.totals(Plan(()), seen))


def status(session: Session, migrations: Sequence[Migration]) -> Report:
    """Look, and count."""
    seen = observe.snapshot(session.postgres(), migrations, scope=scope(session))
    judged = judge.status(migrations, observe.wanted(migrations, seen), seen)
    return session.report(judged, notes=items.totals(Plan(()), seen))


def _direct(session: Session) -> Postgres:
    return session.postgres(bounded=False)


def _refuse_standby(seen: Snapshot) -> None:
    if seen.server.in_recovery:
        raise Refused(
            f'database "{seen.server.database}" is on a standby, which is read-only; nothing was changed',
            hint="point the target at the primary; with several hosts set target_session_attrs: read-write",
        )


def _carry_out(
    session: Session, watcher: Postgres, made: Plan, seen: Snapshot, bounds: Limits, *, ask: bool, extra: list[str]
) -> Report:
    from perfctl.cli.progress import reporter

    lines = [*items.totals(Plan(()), seen), *extra]
    if not made.steps:
        return session.report(items.done((), made), notes=[*lines, "nothing to do: everything is as it should be"])
    if ask:
        session.confirm(_question(session, watcher, made))
    elif session.target.protected:
        session.confirm(f"Carry out the reviewed plan on {watcher.label}?")
    worker = session.postgres(bounded=False)
    with reporter(session) as on_event:
        result = act.apply(
            watcher,
            worker,
            made.steps,
            bounds,
            on_event,
            command=session.command,
            target=session.target.name,
            journal_exists=seen.server.has_journal,
        )
    return session.report(items.done(result.outcomes, made), notes=lines, error=result.error)


def _question(session: Session, watcher: Postgres, made: Plan) -> str:
    builds = sum(1 for step in made.steps if step.kind == "create_index")
    drops = sum(1 for step in made.steps if step.kind == "drop_index")
    others = len(made.steps) - builds - drops
    parts = [
        f"build {builds} index{'es' if builds != 1 else ''}" if builds else "",
        f"drop {drops} index{'es' if drops != 1 else ''}" if drops else "",
        f"send {others} other statement{'s' if others != 1 else ''}" if others else "",
    ]
    what = ", ".join(part for part in parts if part)
    return f'{what[0].upper()}{what[1:]} on {watcher.label} (target "{session.target.name}")?'
