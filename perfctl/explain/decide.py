"""What the plans of the hot queries are worth: one item a query. Pure: records in, items out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from perfctl.errors import BadQuery, PerfctlError, exit_code_of
from perfctl.explain.baseline import Change
from perfctl.explain.model import GENERIC, Node, Plan
from perfctl.explain.rule import BadRule, Evidence, Rule, State, Verdict, cannot_tell, human
from perfctl.explain.rules import RULES, read, unknown
from perfctl.explain.rules.forbid import Forbid
from perfctl.explain.rules.index_only import IndexOnly
from perfctl.explain.rules.join_method import METHODS, JoinMethod
from perfctl.explain.rules.no_seq_scan import READS_ALL, NoSeqScan
from perfctl.explain.rules.require import Require
from perfctl.explain.rules.rows import Rows
from perfctl.explain.rules.sort import SORTS, Sort
from perfctl.hotqueries.model import Expectation, HotQuery, Problem
from perfctl.report import Item, Status


@dataclass(frozen=True, slots=True)
class Ruled:
    """A rule of one query, and what it was made of."""

    said: Expectation
    rule: Rule


@dataclass(frozen=True, slots=True)
class Subject:
    """A query, the rules that it is held to, and those that it puts aside."""

    query: HotQuery
    rules: tuple[Ruled, ...]
    aside: tuple[Expectation, ...] = ()

    @property
    def takes_a_run(self) -> bool:
        """Some rule needs EXPLAIN ANALYZE."""
        return any(each.rule.takes_a_run for each in self.rules)


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of looking at one query: the evidence from each angle, and why an angle has none."""

    evidence: tuple[Evidence, ...] = ()
    failures: Mapping[str, PerfctlError] = field(default_factory=dict)


def subject(query: HotQuery, everybody: Sequence[Expectation]) -> Subject | Problem:
    """The query with its own rules and those of all, or what is wrong with them."""
    aside = {each.key for each in query.overrides}
    common = [each for each in everybody if each.key not in aside]
    for each in query.overrides:
        if each.key not in RULES:
            return _bad(query, each, unknown(each.key))
        if not (each.reason or "").strip():
            hint = f"-- override: {each.key}: WHY"
            return _bad(query, each, f"{each.key} is put aside without a reason", hint)
    ruled: list[Ruled] = []
    for said in (*query.rules, *common):
        try:
            ruled.append(Ruled(said, read(said.key, said.value)))
        except BadRule as bad:
            return _bad(query, said, str(bad))
    if (clash := _contradiction(ruled)) is not None:
        hint = "take one out; a rule of all is put aside by: -- override: KEY: WHY"
        return _bad(query, clash[0].said, clash[1], hint)
    return Subject(query, tuple(ruled), query.overrides)


def _bad(query: HotQuery, said: Expectation, message: str, hint: str | None = None) -> Problem:
    return Problem(query.name, message, said.file or query.file, said.line or query.line, hint)


def _contradiction(ruled: Sequence[Ruled]) -> tuple[Ruled, str] | None:
    """Two rules that no plan can hold to."""
    required = {kind: each for each in ruled if isinstance(each.rule, Require) for kind in each.rule.types}
    for each in ruled:
        if (kind := next((kind for kind in required if kind in _excluded(each.rule)), None)) is not None:
            how = "forbidden" if isinstance(each.rule, Forbid) else f"ruled out by {each.said.key}: {each.said.value}"
            return each, f"{kind} is required and {how}"
    for one, other in combinations(ruled, 2):
        match one.rule, other.rule:
            case Rows() as a, Rows() as b if max(a.low, b.low) > min(a.high, b.high):
                return one, "two ranges of rows that do not meet"
            case JoinMethod() as a, JoinMethod() as b if not set(a.allowed) & set(b.allowed):
                return one, "two methods of joining that exclude each other"
    return None


def _excluded(rule: Rule) -> frozenset[str]:
    """The types of node that no plan has which holds to the rule."""
    match rule:
        case Forbid(types=types):
            return frozenset(types)
        case IndexOnly(table="*"):
            return frozenset({*READS_ALL, "Index Scan", "Bitmap Heap Scan", "Bitmap Index Scan"})
        case Sort():
            return frozenset(SORTS)
        case NoSeqScan(table="*", over_pages=None):
            return frozenset(READS_ALL)
        case JoinMethod(allowed=allowed):
            return frozenset(METHODS.values()) - set(allowed)
        case _:
            return frozenset()


#: judges a rule once more on plans that were made with slightly other costs; True when some of them hold
Tie = Callable[[Subject, Evidence, Ruled], bool]


def item(subject: Subject, looked: Looked, tie: Tie, changes: Sequence[Change] = ()) -> Item:
    """What is to be said of a query; ``changes`` are those since its baseline.

    A finding where a rule fails from some angle or a change gates; else unknown where an angle has no plan or its
    run failed, with the exit code of the first cause; else skipped where no rule can tell; else ok.
    """
    query = subject.query
    found: list[tuple[str, Ruled, Verdict]] = []
    for evidence in looked.evidence:
        for ruled in subject.rules:
            if ruled.rule.takes_generic and evidence.angle == GENERIC and len(looked.evidence) > 1:
                continue
            verdict = ruled.rule.judge(evidence)
            may_tie = verdict.state is State.FAILS and ruled.rule.may_tie and not verdict.certain
            if may_tie and tie(subject, evidence, ruled):
                verdict = cannot_tell(f"{verdict.saw}: a tie, for with costs 5 % off the plan is another one")
            found.append((evidence.angle, ruled, verdict))
    data: dict[str, Any] = {
        "file": query.file,
        "line": query.line,
        "angles": [_angle(each) for each in looked.evidence],
        "rules": [_rule(angle, ruled, verdict) for angle, ruled, verdict in found],
    }
    if changes:
        data["changes"] = [{"angle": c.angle, "state": str(c.state), "what": c.what} for c in changes]
    failing = [each for each in found if each[2].state is State.FAILS]
    drifted = [each for each in changes if each.state is State.FAILS]
    unsure = [each for each in found if each[2].state is State.CANNOT_TELL]
    lines = _failures(looked)
    seen = [Finding(ruled.said.key, v.saw, angle, v.part) for angle, ruled, v in failing]
    seen += [Finding("baseline", each.what.removeprefix("baseline: "), each.angle, each.part) for each in drifted]
    lines += _findings(seen, several=len(looked.evidence) > 1)
    lines += dict.fromkeys(f"cannot tell: {ruled.said.key}: {verdict.saw}" for _, ruled, verdict in unsure)
    lines += [f"{each.key} put aside: {each.reason}" for each in subject.aside]
    lines += dict.fromkeys(
        f"{'cannot tell: ' if each.state is State.CANNOT_TELL else ''}{each.what}"
        for each in changes
        if each.state is not State.FAILS
    )
    if failing or drifted:
        cures = _cures(verdict.cure for _, _, verdict in failing if verdict.cure)
        if drifted:
            cures.append(f"perfctl explain baseline accept {query.name} --reason '…' where that is meant")
        return Item("query", query.name, Status.FINDING, _placed(query, lines), "; ".join(cures) or None, data)
    if looked.failures:
        error = next(iter(looked.failures.values()))
        data |= {"exit_code": exit_code_of(error), "class": type(error).__name__}
        if isinstance(error, BadQuery):
            data["line"] = error.line
        return Item("query", query.name, Status.UNKNOWN, _placed(query, lines), error.hint, data)
    holding = [each for each in found if each[2].state is State.HOLDS]
    status = Status.SKIPPED if found and not holding else Status.OK
    return Item("query", query.name, status, "\n".join([*_good(looked, holding), *lines]), None, data)


def _placed(query: HotQuery, lines: Sequence[str]) -> str:
    """The lines behind the query's place, where the first does not begin with one of its own."""
    text = "\n".join(lines)
    return text if text.startswith(f"{query.file}:") else f"{query.file}:{query.line}: {text}"


#: a value as a plan for it prints it, or the parameter that stands there in the plan for any value
_VALUE = re.compile(r"(?:'(?:[^']|'')*'|\(?\$\d+\)?|(?<![\w$.\"])-?\d+(?:\.\d+)?(?![\w\"]))(?:::[\w ]+(?:\[\])?)?")


def _cures(said: Iterable[str]) -> list[str]:
    """Each cure once, whatever values stand in it: one index serves them all."""
    found: dict[str, str] = {}
    for cure in said:
        found.setdefault(_VALUE.sub("?", cure).replace("(?)", "?").replace("?)", "?"), cure)
    return list(found.values())


def _failures(looked: Looked) -> list[str]:
    """Why there is no plan: each reason once, with the angles that it holds for where others have one."""
    reasons: dict[str, list[str]] = {}
    for angle, error in looked.failures.items():
        reasons.setdefault(error.message, []).append(angle)
    everywhere = len(looked.failures) + len(looked.evidence)
    return [
        reason if len(angles) == everywhere else f"{reason} ({', '.join(angles)})" for reason, angles in reasons.items()
    ]


def _good(looked: Looked, holding: Sequence[tuple[str, Ruled, Verdict]]) -> list[str]:
    said = dict.fromkeys(verdict.saw for _, ruled, verdict in holding if verdict.saw)
    if said:
        return ["; ".join(said)]
    reads = dict.fromkeys(line for each in looked.evidence for line in _reads(each))
    return ["; ".join(reads) or "reads no table"]


def _reads(evidence: Evidence) -> list[str]:
    """Its scans; those of several partitions of one table, read alike, as one with their number."""
    alike: dict[tuple[str, str, str], list[Node]] = {}
    for node in evidence.plan.nodes():
        if node.relation is not None:
            table = evidence.table_of(node.relation)
            index = evidence.catalogue.index(node.index, node.relation) if node.index else None
            used = (index.part_of if index else None) or node.index or ""
            alias = "" if table != node.relation else node.alias or ""
            alike.setdefault((node.type, f"{table} {alias}", used), []).append(node)
    return [
        str(nodes[0])
        if len({node.relation for node in nodes}) == 1
        else f"{kind}{f' using {used}' if used else ''} on {table.strip()} ({len(nodes)} partitions)"
        for (kind, table, used), nodes in alike.items()
    ]


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not hold from one angle."""

    key: str
    saw: str
    angle: str
    part: Node | None


def _findings(found: Sequence[Finding], *, several: bool) -> list[str]:
    """Lines for them: what is seen from several angles, and in one part of the plan, is said once."""
    angles: dict[tuple[str, str], list[str]] = {}
    parts: dict[tuple[str, str], list[str]] = {}
    told: set[str] = set()
    for each in found:
        key = (each.key, each.saw)
        angles.setdefault(key, []).append(each.angle)
        line = f"  {node_line(each.part)}" if each.part else ""
        if line and line not in told and key not in parts:
            parts[key] = [line]
            told.add(line)
    return [
        line
        for (rule, saw), where in angles.items()
        for line in (_said(rule, where if several else (), saw), *parts.get((rule, saw), ()))
    ]


def _said(rule: str, where: Sequence[str], saw: str) -> str:
    return f"{rule} ({', '.join(where)}): {saw}" if where else f"{rule}: {saw}"


def node_line(node: Node) -> str:
    """A node with its figures and conditions, in a line."""
    figures = f"cost {human(node.cost)}, rows {human(node.rows)}"
    if node.actual_rows is not None:
        figures += f", came {human(node.actual_rows)} × {human(node.loops or 0)}"
    words = "; ".join(f"{key}: {text}" for key, text in node.conditions)
    return f"{node} ({figures})" + (f" {words}" if words else "")


def _angle(evidence: Evidence) -> dict[str, Any]:
    plan = evidence.plan
    return {
        "name": evidence.angle,
        "access": [" ".join(filter(None, access)) for access in plan.access],
        "cost": plan.root.cost,
        "rows": plan.root.rows,
        "planning_ms": plan.planning_ms,
        **({"small_tables": [str(relation) for relation in evidence.small]} if evidence.small else {}),
        **(_ran(evidence.ran) if evidence.ran else {}),
    }


def _ran(plan: Plan) -> dict[str, Any]:
    root = plan.root
    return {
        "actual_rows": root.actual_rows,
        "blocks": root.blocks,
        "temp_blocks": root.temp_blocks,
        "execution_ms": plan.execution_ms,
    }


def _rule(angle: str, ruled: Ruled, verdict: Verdict) -> dict[str, Any]:
    return {
        "rule": ruled.said.key,
        "value": ruled.said.value,
        "angle": angle,
        "state": str(verdict.state),
        "saw": verdict.saw,
        "node": node_line(verdict.part) if verdict.part else None,
        "file": ruled.said.file,
        "line": ruled.said.line,
    }


def problem(found: Problem) -> Item:
    """A query that cannot be looked at as it is written: something to mend in the repository."""
    message = f"{found.file}:{found.line}: {found.message}"
    data = {"file": found.file, "line": found.line, "exit_code": 2, "class": "UsageError"}
    return Item("query", found.name, Status.UNKNOWN, message, found.hint, data)
