"""The stages of the index commands, put in order: load, observe, decide, ask, act, look again.

Loaded only when a command runs; everything heavy is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from perfctl.cli import index_commands as commands
from perfctl.cli.index_bounds import Bounds, JournalPlace
from perfctl.cli.session import Session
from perfctl.errors import PlanMoved, Refused, UsageError
from perfctl.indexes import (
    act,
    decide,
    items,
    judge,
    observe,
    patience,
    resources,
    rights,
    run,
    savedplan,
    undo,
    writers,
)
from perfctl.indexes.draft import Manner, Selection
from perfctl.indexes.model import Plan, Snapshot
from perfctl.indexes.running import Replica
from perfctl.migrations.files import load as load_files
from perfctl.migrations.model import Migration, Name
from perfctl.report import Item, Report, Status
from perfctl.servers.disk import free_bytes
from perfctl.servers.postgres import Postgres

#: plain builds of a table that take longer are not begun while anybody is seen to write there at all
_LONG_OFFLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a plan is to be made of."""

    migrations: tuple[Migration, ...]
    selection: Selection = field(default_factory=Selection)
    manner: Manner = field(default_factory=Manner)
    #: the files as they were named, for the command that goes on
    paths: tuple[str, ...] = ()


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


def scope(session: Session) -> tuple[str, ...]:
    """The schemas whose broken indexes count; none = those of the migrations' tables."""
    return session.target.database.schemas if session.target.database else ()


def plan(
    session: Session, pg: Postgres, job: Job, where: JournalPlace, budget_s: float | None = None
) -> tuple[Snapshot, Plan]:
    """Look, and decide."""
    seen = _look(session, pg, job.migrations, where, budget_s, estimate=True)
    made = decide.steps(
        job.migrations,
        observe.wanted(job.migrations, seen),
        seen,
        job.selection,
        replace(job.manner, journal=where.kind == "database"),
    )
    if job.selection.only and not (made.steps or made.skipped or made.refusals):
        raise UsageError(
            f"nothing matches --only {' '.join(job.selection.only)}", hint="perfctl indexes status lists all"
        )
    return seen, made


def _look(
    session: Session,
    pg: Postgres,
    migrations: Sequence[Migration],
    where: JournalPlace,
    budget_s: float | None = None,
    *,
    estimate: bool = False,
) -> Snapshot:
    """The database as it is; a table that is locked against readers is waited for as long as the budget allows."""
    schemas = scope(session)
    return patience.look(
        pg,
        lambda: observe.snapshot(pg, migrations, scope=schemas, estimate=estimate, journal=where.reader),
        # Half of what a bounded session's statement is given, or that would be ended before it can be told why.
        budget_s or (session.timeout_s or 60.0) / 2,
        session.say,
    )


def save(session: Session, path: Path, made: Plan, seen: Snapshot, job: Job) -> None:
    """Write the plan to a file."""
    text = savedplan.dump(
        made,
        seen,
        target=session.target.name,
        migrations=job.migrations,
        selection=job.selection,
        manner=job.manner,
    )
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f'plan "{path}" cannot be written: {error.strerror}') from error


def plan_report(session: Session, made: Plan, seen: Snapshot, job: Job, *, check: bool) -> Report:
    """What ``plan`` prints; a refusal makes it a finding."""
    lines = [
        *items.totals(made, seen),
        f"jobs {job.manner.jobs or resources.default_jobs(seen.cores)}",
        *notes(job.migrations),
    ]
    lines += rights.unseen(made.steps, seen.server)
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


def job_of(saved: savedplan.SavedPlan, jobs: int | None) -> Job:
    """The job that the plan was made of."""
    paths = tuple(str(migration.path) for migration in saved.migrations)
    return Job(saved.migrations, saved.selection, replace(saved.manner, jobs=jobs), paths)


def apply(session: Session, job: Job, bounds: Bounds, saved: savedplan.SavedPlan | None) -> Report:
    """Look, decide, ask, act."""
    if saved is not None and saved.target != session.target.name:
        raise Refused(
            f'the plan was made for target "{saved.target}", this is "{session.target.name}"',
            hint=f"say --target {saved.target}",
        )
    watcher = _direct(session)
    seen, made = plan(session, watcher, job, bounds.journal, bounds.wait_budget_s)
    _refuse_standby(seen)
    if saved is not None and (moved := savedplan.differences(saved, made, seen)):
        raise PlanMoved(moved, hint="make a new plan: perfctl indexes plan --out FILE")
    if made.refusals:
        raise items.refused(made)
    if job.manner.offline:
        writers.refuse_writers(watcher, seen, _built_offline(made, seen))
    if session.options.dry_run:
        return plan_report(session, made, seen, job, check=False)
    ways = act.Ways(
        resume=commands.resume(session, job.paths, job.selection, job.manner, bounds.said),
        undo=commands.undo(session, [step.migration for step in made.steps], bounds.journal.word),
    )
    return _carry_out(session, watcher, made, seen, bounds, ways, ask=saved is None, extra=notes(job.migrations))


def rollback(session: Session, chosen: Selection, bounds: Bounds, to: int | None, migrations: Sequence[str]) -> Report:
    """Look at the journal, decide, ask, act."""
    if bounds.journal.kind == "none":
        raise UsageError(
            "a rollback takes off what a journal says perfctl made; there is none to read",
            hint="name the file with --journal file:PATH, or drop the indexes by hand",
        )
    bounds.journal.must_exist()
    watcher = _direct(session)
    seen = _look(session, watcher, (), bounds.journal, bounds.wait_budget_s)
    _refuse_standby(seen)
    names = [Path(name).stem for name in migrations]
    unknown = set(names) - {entry.migration for entry in seen.journal}
    if unknown:
        raise UsageError(f"not in the journal: {', '.join(sorted(unknown))}", hint="perfctl indexes status lists them")
    made = undo.steps(seen, chosen, to=to, migrations=names, journal=bounds.journal.kind == "database")
    if chosen.only and not (made.steps or made.skipped or made.refusals):
        raise UsageError(
            f"perfctl made nothing here that matches --only {' '.join(chosen.only)}",
            hint="rollback takes off only what the journal says perfctl made",
        )
    if made.refusals:
        raise items.refused(made)
    standbys = items.standbys(made, watcher.fetch("replicas", Replica))
    if session.options.dry_run:
        return session.report(items.planned(made), notes=[*items.totals(made, seen), *standbys], dry_run=True)
    ways = act.Ways(resume=commands.rollback(session, migrations, chosen, to, bounds.said))
    return _carry_out(session, watcher, made, seen, bounds, ways, ask=True, extra=standbys)


def verify(
    session: Session, migrations: Sequence[Migration], where: JournalPlace, *, absent: bool, amcheck: bool
) -> Report:
    """Look, and judge."""
    if absent:
        where.must_exist()
    pg = session.postgres(bounded=not amcheck)
    seen = _look(session, pg, migrations, where)
    wanted = observe.wanted(migrations, seen)
    corruption = observe.amcheck(pg, wanted, seen) if amcheck else None
    judged = judge.verify(migrations, wanted, seen, absent=absent, corruption=corruption)
    if amcheck and corruption is None:
        judged.append(Item("extension", "amcheck", Status.UNKNOWN, "not installed here", "CREATE EXTENSION amcheck"))
    return session.report(judged, notes=items.totals(Plan(()), seen))


def status(session: Session, migrations: Sequence[Migration], where: JournalPlace) -> Report:
    """Look, and count."""
    seen = _look(session, session.postgres(), migrations, where)
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


def _built_offline(made: Plan, seen: Snapshot) -> list[int]:
    """The tables that plain builds would keep writers off for long; short builds are over before a look is."""
    oids = _oids(seen)
    seconds: dict[Name, float] = {}
    for step in made.steps:
        if step.kind == "create_index" and not step.concurrent and step.table:
            seconds[step.table] = seconds.get(step.table, 0.0) + (step.estimate.seconds if step.estimate else 0.0)
    return [oids[name] for name, work_s in seconds.items() if name in oids and work_s > _LONG_OFFLINE_S]


def _carry_out(
    session: Session,
    watcher: Postgres,
    made: Plan,
    seen: Snapshot,
    bounds: Bounds,
    ways: act.Ways,
    *,
    ask: bool,
    extra: list[str],
) -> Report:
    from perfctl.cli.progress import reporter

    lines = [*items.totals(Plan((), warnings=made.warnings), seen), *bounds.journal.notes(), *extra]
    if not made.steps:
        return session.report(items.done((), made), notes=[*lines, "nothing to do: everything is as it should be"])
    limits = bounds.limits(resources.default_jobs(seen.cores))
    powerless = [*rights.unseen(made.steps, seen.server), *(rights.unended(seen.server) if limits.kill else ())]
    for note in powerless:
        # Before anything is asked or sent: by the report's time it is too late to mend.
        session.say(note)
    if ask:
        session.confirm(_question(session, watcher, made))
    elif session.target.protected:
        session.confirm(f"Carry out the reviewed plan on {watcher.label}?")
    ground = run.Ground(
        steps=made.steps,
        tables=_oids(seen),
        deadlock_timeout_s=seen.server.deadlock_timeout_s,
        connect=lambda: session.postgres(bounded=False),
        free_bytes=free_bytes(watcher, seen.server.data_directory),
        now=lambda: datetime.now().astimezone(),
    )
    with reporter(session) as on_event, session.gentle_stop() as stop:
        result = act.apply(
            watcher,
            ground,
            limits,
            on_event,
            stop,
            journal=lambda sends: bounds.journal.open(sends, seen),
            command=session.command,
            target=session.target.name,
            ways=ways,
        )
    return session.report(
        items.done(result.outcomes, made), notes=[*lines, *powerless, *result.notes], error=result.error
    )


def _oids(seen: Snapshot) -> dict[Name, int]:
    """The OIDs of the tables that steps are about, by name."""
    found = {Name(index.table_schema, index.table_name): index.table_oid for index in seen.indexes}
    found |= {partition.full_name: partition.oid for partition in seen.partitions}
    return found | {name: table.oid for name, table in seen.tables.items()}


def _question(session: Session, watcher: Postgres, made: Plan) -> str:
    builds = sum(1 for step in made.steps if step.kind == "create_index")
    drops = sum(1 for step in made.steps if step.kind in ("drop_index", "drop_leftover"))
    noted = sum(1 for step in made.steps if step.kind == "settle")
    others = len(made.steps) - builds - drops - noted
    parts = [
        f"build {builds} index{'es' if builds != 1 else ''}" if builds else "",
        f"drop {drops} index{'es' if drops != 1 else ''}" if drops else "",
        f"send {others} other statement{'s' if others != 1 else ''}" if others else "",
        f"write down {noted} step{'s' if noted != 1 else ''} that cancel each other out" if noted else "",
    ]
    what = ", ".join(part for part in parts if part)
    return f'{what[0].upper()}{what[1:]} on {watcher.label} (target "{session.target.name}")?'
