"""The stages of the explain commands, put in order. Loaded only when a command runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from perfctl.cli.session import Session
from perfctl.errors import UsageError
from perfctl.explain import check as checking
from perfctl.explain import decide, look, tree
from perfctl.explain.check import Hot
from perfctl.explain.model import GENERIC
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
    items, notes = checking.check(pg, hot, how)
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
    items = [decide.problem(each) for each in hot.problems]
    for subject in hot.subjects:
        requests = look.requests(subject, how)
        statements = [text for _, request in requests for text, _ in request.statements()]
        items.append(
            Item("query", subject.query.name, Status.PLANNED, "explain", data={"statement": ";\n".join(statements)})
        )
    return session.report(items, notes=notes, dry_run=True)


def show(session: Session, hot: Hot, *, values: str | None, generic: bool, analyze: bool) -> Report:
    """One plan, drawn."""
    if hot.problems:
        return session.report([decide.problem(each) for each in hot.problems])
    if len(hot.subjects) > 1:
        raise UsageError(f"{len(hot.subjects)} queries match; show draws one")
    (subject,) = hot.subjects
    how = checking.manner(session.loaded, analyze=analyze, timeout_s=session.timeout_s)
    if generic and analyze:
        raise UsageError("the generic plan is for no values, so it cannot be run", hint="leave one of the two out")
    wanted = GENERIC if generic else values or (subject.query.sets[0].name if subject.query.sets else GENERIC)
    pg = session.postgres(bounded=False)
    (seen,) = look.look(pg, [subject], how)
    evidence = next((each for each in seen.evidence if each.angle == wanted), None)
    if evidence is None:
        if (error := seen.failures.get(wanted)) is not None:
            raise error
        known = ", ".join(
            [*(each.name for each in subject.query.sets), "--generic" if subject.query.parameters else ""]
        )
        raise UsageError(f'"{subject.query.name}" has no value set "{wanted}"', hint=f"known: {known}")
    plan = evidence.ran or evidence.plan
    notes = [_server(pg), f"{subject.query.file}:{subject.query.line}"]
    if analyze and evidence.why_not_run:
        notes.append(f"not run: {evidence.why_not_run}")
    session.own_json = json.dumps([plan.raw], indent=2)
    drawn = [{"text": line.text, "mark": line.mark} for line in tree.lines(plan)]
    return session.report(
        [Item("plan", f"{subject.query.name}, {wanted}", Status.OK, "", data={"lines": drawn})], notes=notes
    )


def _server(pg: Postgres) -> str:
    major, minor = divmod(pg.version_num, 10000)
    return f"PostgreSQL {major}.{minor}, {pg.label}"
