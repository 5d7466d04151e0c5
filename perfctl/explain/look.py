"""Brings together what is needed to judge the hot queries: which plans to ask for, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from perfctl.errors import BadQuery, NoAnswer, PerfctlError
from perfctl.explain import observe, reach
from perfctl.explain.decide import Looked, Ruled, Subject
from perfctl.explain.model import GENERIC, Catalogue, Plan
from perfctl.explain.observe import Limits, Request
from perfctl.explain.rule import SMALL_PAGES, Evidence, State
from perfctl.hotqueries.model import Kind
from perfctl.servers.postgres import Postgres

#: Can an index serve it? The scan is still there where none can.
_WITHOUT_SEQ_SCANS = {"enable_seqscan": "off"}

#: Costs a little off their values: plans that change with them were as good as each other.
_SHAKE = 1.05
_SHAKEN = ("random_page_cost", "seq_page_cost", "cpu_tuple_cost", "cpu_index_tuple_cost", "cpu_operator_cost")


@dataclass(frozen=True, slots=True)
class Manner:
    """What to look at."""

    limits: Limits = field(default_factory=Limits)
    #: run the queries that may be run
    analyze: bool = False
    #: look at the plan for any value too
    generic: bool = True


@dataclass(frozen=True, slots=True)
class _Angle:
    subject: Subject
    name: str
    values: tuple[str | None, ...] | None


def look(pg: Postgres, subjects: Sequence[Subject], manner: Manner) -> list[Looked]:
    """What there is to see of each query, in their order; why an angle has no plan is among its failures.

    Raises what the server says where the catalogue cannot be read.
    """
    # Looks into the catalogue wait for locks too, and outside of the transactions that have limits of their own.
    pg.settings(manner.limits.settings())
    angles, failures = _angles(subjects, manner)
    plain = observe.plans(pg, [Request(each.subject.query, each.values) for each in angles], manner.limits)
    planned = [(angle, plan) for angle, plan in zip(angles, plain, strict=True) if isinstance(plan, Plan)]
    for angle, error in zip(angles, plain, strict=True):
        if isinstance(error, PerfctlError):
            failures[id(angle.subject)][angle.name] = error
    facts = observe.catalogue(pg, (relation for _, plan in planned for relation in plan.relations))
    for angle, plan in planned:
        if (busy := next((r for r in sorted(plan.relations) if r in facts.locked), None)) is not None:
            failures[id(angle.subject)][angle.name] = observe.locked(busy)
    planned = [(angle, plan) for angle, plan in planned if not plan.relations & facts.locked]
    served = _served(pg, planned, facts, manner)
    ran, not_run, failed = _run(pg, planned, manner)
    for angle, _ in planned:
        if (trouble := failed.get(id(angle))) is not None:
            failures[id(angle.subject)][run_of(angle.name)] = trouble
    generic = {id(angle.subject): plan for angle, plan in planned if angle.values is None}
    evidence: dict[int, list[Evidence]] = {id(subject): [] for subject in subjects}
    for angle, plan in planned:
        evidence[id(angle.subject)].append(
            Evidence(
                angle=angle.name,
                plan=plan,
                catalogue=facts,
                ran=ran.get(id(angle)),
                why_not_run=not_run[id(angle)][0] if id(angle) in not_run else None,
                ended_after_ms=not_run[id(angle)][1] if id(angle) in not_run else None,
                served=served.get(id(angle)),
                # Without parameters there is one plan, whatever is bound.
                generic=generic.get(id(angle.subject)) if angle.subject.query.parameters else plan,
            )
        )
    return [Looked(tuple(evidence[id(subject)]), failures[id(subject)]) for subject in subjects]


def run_of(angle: str) -> str:
    """What the run with an angle's values is called among the failures."""
    return f"{angle}, run"


def requests(subject: Subject, manner: Manner) -> list[tuple[str, Request]]:
    """What would be asked for of a query at first, by angle."""
    angles, _ = _angles([subject], manner)
    found = [(angle.name, Request(subject.query, angle.values)) for angle in angles]
    if manner.analyze and subject.query.why_not_run is None:
        found += [(a.name, Request(subject.query, a.values, run=True)) for a in angles if a.values is not None]
    return found


def _angles(subjects: Sequence[Subject], manner: Manner) -> tuple[list[_Angle], dict[int, dict[str, PerfctlError]]]:
    angles: list[_Angle] = []
    failures: dict[int, dict[str, PerfctlError]] = {id(subject): {} for subject in subjects}
    for subject in subjects:
        query = subject.query
        for values in query.sets:
            try:
                angles.append(_Angle(subject, values.name, query.bound(values)))
            except KeyError as missing:
                failures[id(subject)][values.name] = BadQuery(
                    f'parameter "{missing.args[0]}" has no value',
                    file=query.file,
                    line=query.line,
                    hint=f"-- param: {missing.args[0]} TYPE = 'VALUE' above the query",
                )
        # Text without values, as pg_stat_statements keeps it, has no other plan. PREPARE takes no CREATE.
        if query.parameters and (manner.generic or not query.sets) and query.kind is not Kind.OTHER:
            angles.append(_Angle(subject, GENERIC, None))
    return angles, failures


def _served(pg: Postgres, planned: Sequence[tuple[_Angle, Plan]], facts: Catalogue, manner: Manner) -> dict[int, Plan]:
    """The plans without sequential scans of what reads a small table."""
    small = {relation for relation, table in facts.tables.items() if table.pages <= SMALL_PAGES}
    asked = [angle for angle, plan in planned if plan.relations & small]
    requests = [Request(each.subject.query, each.values, _WITHOUT_SEQ_SCANS) for each in asked]
    answers = observe.plans(pg, requests, manner.limits)
    return {id(angle): plan for angle, plan in zip(asked, answers, strict=True) if isinstance(plan, Plan)}


def _run(
    pg: Postgres, planned: Sequence[tuple[_Angle, Plan]], manner: Manner
) -> tuple[dict[int, Plan], dict[int, tuple[str, float | None]], dict[int, PerfctlError]]:
    """The runs that were asked for, each warmed by one before it; why others were not made, or not to their end; and
    which of these failed, where that was not meant."""
    if not manner.analyze:
        return {}, {}, {}
    failed: dict[int, PerfctlError] = {}
    ran: dict[int, Plan] = {}
    why: dict[int, tuple[str, float | None]] = {}
    chosen = [(angle, plan) for angle, plan in planned if angle.values is not None]
    # The plan has what planning made of the text, the text what EXPLAIN does not show, such as LIMIT and VALUES.
    with observe.no_query():
        volatile = reach.volatile(pg, ["\n".join((angle.subject.query.sql, *plan.texts())) for angle, plan in chosen])
    for (angle, plan), calls in zip(chosen, volatile, strict=True):
        query = angle.subject.query
        if (reason := _must_not_run(angle, plan) or calls) is not None:
            why[id(angle)] = reason, None
            continue
        request = Request(query, angle.values, run=True)
        for _ in range(2):
            (answer,) = observe.plans(pg, [request], manner.limits)
            if isinstance(answer, PerfctlError):
                ended = isinstance(answer, NoAnswer)
                after_ms = manner.limits.statement_timeout_s * 1000 if ended else None
                why[id(angle)] = answer.message, after_ms
                failed[id(angle)] = answer
                ran.pop(id(angle), None)
                break
            ran[id(angle)] = answer
    return ran, why, failed


def _must_not_run(angle: _Angle, plan: Plan) -> str | None:
    if (reason := angle.subject.query.why_not_run) is not None:
        return reason
    writes = {"Insert", "Update", "Delete", "Merge", "ModifyTable", "LockRows"}
    if any(node.type in writes for node in plan.nodes()):
        return "its plan writes or locks rows"
    return None


class Replans:
    """Plans a query once more under other settings: with costs a little off, or with settings as they were."""

    def __init__(self, pg: Postgres, manner: Manner) -> None:
        self._pg = pg
        self._manner = manner
        self._costs: dict[str, float] | None = None
        self._plans: dict[tuple[str, str], list[Plan]] = {}

    def is_tie(self, subject: Subject, evidence: Evidence, ruled: Ruled) -> bool:
        """True when the rule holds in one of the plans that are as good as the one at hand."""
        return any(
            ruled.rule.judge(replace(evidence, plan=plan)).state is State.HOLDS
            for plan in self.near(subject, evidence.angle)
            if plan.shape != evidence.plan.shape
        )

    def near(self, subject: Subject, angle: str) -> list[Plan]:
        """The plans of that angle with each cost a little up, and a little down."""
        key = (subject.query.name, angle)
        if key not in self._plans:
            costs = self._now().items()
            shaken = [{name: f"{value * by:.6g}"} for name, value in costs for by in (_SHAKE, 1 / _SHAKE)]
            self._plans[key] = self._under(subject, angle, shaken)
        return self._plans[key]

    def under(self, subject: Subject, angle: str, settings: Mapping[str, str]) -> Plan | None:
        """The plan under some settings; an empty value is the server's built-in default."""
        if unset := [name for name, value in settings.items() if not value]:
            rows = self._pg.values(
                "SELECT name, boot_val FROM pg_catalog.pg_settings WHERE name = ANY(%s::text[])", (unset,)
            )
            settings = {**settings, **dict(rows)}
        return next(iter(self._under(subject, angle, [settings])), None)

    def _under(self, subject: Subject, angle: str, settings: Sequence[Mapping[str, str]]) -> list[Plan]:
        values = None
        if angle != GENERIC:
            values = subject.query.bound(next(each for each in subject.query.sets if each.name == angle))
        asked = [Request(subject.query, values, each) for each in settings]
        return [plan for plan in observe.plans(self._pg, asked, self._manner.limits) if isinstance(plan, Plan)]

    def _now(self) -> dict[str, float]:
        if self._costs is None:
            self._costs = {name: float(value) for name, value in self._pg.current(_SHAKEN).items()}
        return self._costs
