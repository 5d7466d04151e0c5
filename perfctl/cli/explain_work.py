"""The stages of the explain commands, put in order. Loaded only when a command runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perfctl.cli.session import Session
from perfctl.errors import UsageError, exit_code_of
from perfctl.explain import baseline_file, decide, look, observe, tree
from perfctl.explain import check as checking
from perfctl.explain.baseline import gone, keep_blocks
from perfctl.explain.check import Hot, Taken
from perfctl.explain.model import GENERIC, Plan
from perfctl.report import Item, Report, Status
from perfctl.servers.postgres import Postgres


def hot(session: Session, names: Sequence[str] | None, paths: Sequence[Path] | None) -> Hot:
    """The hot queries that are asked for."""
    found = checking.hot(session.loaded, paths or ()).chosen(names or ())
    if not found.subjects and not found.problems:
        raise UsageError(
            f'no hot queries: no .sql file in "{session.loaded.settings.queries.dir}", none under queries.inline',
            hint="perfctl explain check --file QUERY.sql looks at one",
        )
    return found


def check(session: Session, hot: Hot, *, analyze: bool) -> Report:
    """Look, and judge."""
    pg = session.postgres(bounded=False)
    how = checking.manner(session.loaded, analyze=analyze, timeout_s=session.timeout_s)
    items, notes = checking.check(pg, hot, how, session.loaded.settings.queries.baselines)
    return session.report(items, notes=[_server(pg), *notes])


def shown(session: Session, hot: Hot, *, analyze: bool) -> Report:
    """The statements that ``check`` would send, by query."""
    how = checking.manner(session.loaded, analyze=analyze, timeout_s=session.timeout_s)
    pg = session.postgres(bounded=False)
    settings = ", ".join(f"{name} = {value}" for name, value in how.limits.settings().items())
    notes = [
        _server(pg),
        f"each in BEGIN READ ONLY … ROLLBACK with {settings}; where a table is small again with enable_seqscan = off",
    ]
    if how.analyze:
        serial = ", ".join(f"{name} = {value}" for name, value in observe.SERIAL.items())
        notes.append(
            f"each EXPLAIN (ANALYZE …) twice, the second on a warm cache, with {serial}; not where the plan shows it"
            " to write or to call a volatile function"
        )
    items = [decide.problem(each) for each in hot.problems]
    for subject in hot.subjects:
        requests = look.requests(subject, how)
        statements = [_written(*each) for _, request in requests for each in request.statements()]
        items.append(
            Item("query", subject.query.name, Status.PLANNED, "explain", data={"statement": ";\n".join(statements)})
        )
    return session.report(items, notes=notes, dry_run=True)


def _written(text: str, values: Sequence[str | None]) -> str:
    """A statement below the values that go with it."""
    said = ", ".join(f"${n} = {'NULL' if value is None else _quoted(value)}" for n, value in enumerate(values, 1))
    return f"-- {said}\n{text}" if said else text


def _quoted(value: str) -> str:
    """On one line, as the comment is."""
    return "'" + value.replace("'", "''").replace("\n", "\\n") + "'"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which plan of a query is to be drawn."""

    values: str | None
    generic: bool
    #: the accepted one beside it
    before: bool
    analyze: bool


def show(session: Session, hot: Hot, wanted: Wanted) -> Report:
    """One plan, drawn."""
    if hot.problems:
        return session.report([decide.problem(each) for each in hot.problems])
    if len(hot.subjects) > 1:
        raise UsageError(f"{len(hot.subjects)} queries match; show draws one")
    if wanted.generic and wanted.analyze:
        raise UsageError("the generic plan is for no values, so it cannot be run", hint="leave one of the two out")
    (subject,) = hot.subjects
    query = subject.query
    how = checking.manner(session.loaded, analyze=wanted.analyze, timeout_s=session.timeout_s)
    angle = GENERIC if wanted.generic else wanted.values or (query.sets[0].name if query.sets else GENERIC)
    pg = session.postgres(bounded=False)
    (seen,) = look.look(pg, [subject], how)
    evidence = next((each for each in seen.evidence if each.angle == angle), None)
    if evidence is None:
        if (error := seen.failures.get(angle)) is not None:
            raise error
        known = [*(each.name for each in query.sets), *(["--generic"] if query.parameters else [])]
        raise UsageError(f'"{query.name}" has no value set "{angle}"', hint=f"known: {', '.join(known)}")
    plan = evidence.ran or evidence.plan
    notes = [_server(pg), f"{query.file}:{query.line}"]
    failed = seen.failures.get(look.run_of(angle))
    if wanted.analyze and evidence.why_not_run and failed is None:
        notes.append(f"not run: {evidence.why_not_run}")
    session.own_json = json.dumps([plan.raw], indent=2)
    items = _before(session, query.name, angle, plan) if wanted.before else []
    items.append(_drawn(f"{query.name}, {angle}", [(line.text, line.mark) for line in tree.lines(plan)]))
    if failed is not None:
        facts = {"exit_code": exit_code_of(failed), "class": type(failed).__name__}
        items.append(Item("query", query.name, Status.UNKNOWN, f"not run: {failed.message}", failed.hint, facts))
    return session.report(items, notes=notes)


def _before(session: Session, name: str, angle: str, plan: Plan) -> list[Item]:
    """The accepted plan, marked where the one of now differs."""
    folder = session.loaded.settings.queries.baselines
    then = baseline_file.read(folder, name)
    if then is None or (accepted := then.plans.get(angle)) is None:
        raise UsageError(f'no plan of "{name}", {angle}, is accepted in "{folder}"', hint="perfctl explain baseline")
    figures = f"cost {accepted.cost:g}, rows {accepted.rows:g}"
    if accepted.blocks is not None:
        figures += f", blocks {accepted.blocks}"
    lines = [
        (f"{line}  ◀ not so now", "heavy") if differs else (line, "")
        for line, differs in zip(accepted.tree, gone(accepted, plan), strict=True)
    ]
    lines.append((f"{figures}; PostgreSQL {then.server}: {then.reason}", ""))
    return [_drawn(f"{name}, {angle}, accepted {then.on}", lines)]


def _drawn(name: str, lines: Sequence[tuple[str, str]]) -> Item:
    return Item("plan", name, Status.OK, data={"lines": [{"text": text, "mark": mark} for text, mark in lines]})


def baseline(session: Session, hot: Hot, *, analyze: bool, reason: str | None, dry_run: bool) -> Report:
    """Write the plans as they are now down; with a ``reason`` also where another one is accepted already."""
    if reason is not None and not reason.strip():
        raise UsageError("--reason is empty", hint="say why the plan as it is now is right: who reads it asks that")
    pg = session.postgres(bounded=False)
    how = checking.manner(session.loaded, analyze=analyze, timeout_s=session.timeout_s)
    folder = session.loaded.settings.queries.baselines
    today = datetime.now().astimezone().date().isoformat()
    taken = checking.take_all(pg, hot, how, folder, on=today, reason=reason or "first look")
    items = [decide.problem(each) for each in hot.problems]
    items += [_taken(each, folder, accept=reason is not None, dry_run=dry_run) for each in taken]
    return session.report(items, notes=[_server(pg)], dry_run=dry_run)


def _taken(taken: Taken, folder: Path, *, accept: bool, dry_run: bool) -> Item:
    name = taken.subject.query.name
    path = baseline_file.path_of(folder, name)
    if taken.baseline is None:
        error = taken.why_not
        assert error is not None
        facts = {"exit_code": exit_code_of(error), "class": type(error).__name__}
        return Item("query", name, Status.UNKNOWN, f"no plan to write down: {error.message}", error.hint, facts)
    if not taken.baseline.plans:
        # What is accepted stays: it was made where the tables are large.
        return Item("query", name, Status.SKIPPED, "too small here to accept a plan: its tables are empty or nearly so")
    if path.exists() and not accept:
        same = taken.before is not None and {a: p.access for a, p in taken.before.plans.items()} == {
            a: p.access for a, p in taken.baseline.plans.items()
        }
        if same:
            return Item("query", name, Status.SKIPPED, f"accepted already: {path}")
        cure = f"perfctl explain baseline accept {name} --reason '…'"
        return Item("query", name, Status.FINDING, f"another plan is accepted: {path}", cure)
    made, lost = keep_blocks(taken.baseline, taken.before)
    if not dry_run:
        baseline_file.write(folder, made)
    reads = "; ".join(dict.fromkeys(str(read) for plan in taken.baseline.plans.values() for read in plan.reads))
    status = Status.PLANNED if dry_run else Status.CHANGED
    detail = f"{path}: {reads}"
    if lost:
        detail += f"\nblocks are not kept ({', '.join(lost)}), for it is read otherwise now: say --analyze"
    return Item("query", name, status, detail, data={"file": str(path)})


def _server(pg: Postgres) -> str:
    return f"PostgreSQL {pg.version}, {pg.label}"
