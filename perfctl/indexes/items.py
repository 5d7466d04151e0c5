"""A plan and what became of it as report items. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfctl.errors import Denied, Refused
from perfctl.figures import human_bytes, human_seconds
from perfctl.indexes.model import Plan, Refusal, Skipped, Snapshot, Step
from perfctl.indexes.running import Event, Outcome, Replica
from perfctl.report import Item, Status

_VERBS = {
    "create_index": "build",
    "adopt_index": "adopt",
    "drop_index": "drop",
    "drop_leftover": "drop the broken leftover",
    "attach_index": "attach",
    "swap_index": "swap",
    "undo_swap_index": "rename back",
    "settle": "write down",
    "comment": "comment",
    "analyze": "analyze",
    "create_statistics": "create statistics",
    "create_extension": "create extension",
    "undo_create_statistics": "drop statistics",
    "undo_create_extension": "drop extension",
    "undo_comment": "comment",
}
_RESULTS = {"changed": Status.CHANGED, "skipped": Status.SKIPPED, "failed": Status.FAILED}


def kind_of(step_kind: str) -> str:
    """The report's kind of a step: what was acted on."""
    for word in ("index", "statistics", "extension"):
        if word in step_kind:
            return word
    return "index" if step_kind in ("drop_leftover", "comment", "settle") else "table"


def planned(plan: Plan) -> list[Item]:
    """One item a step, skip and refusal, in the order in which they would be done."""
    return [
        *(_step(step) for step in plan.steps),
        *(_skipped(skip) for skip in plan.skipped),
        *(_refusal(refusal) for refusal in plan.refusals),
    ]


def done(outcomes: Sequence[Outcome], plan: Plan) -> list[Item]:
    """One item for each step that was sent, for each that was not reached, and for each skip."""
    reached = {id(outcome.step) for outcome in outcomes}
    return [
        *(_outcome(outcome) for outcome in outcomes),
        *(
            Item(kind_of(step.kind), str(step.name), Status.SKIPPED, f"{_VERBS[step.kind]}: not reached")
            for step in plan.steps
            if id(step) not in reached
        ),
        *(_skipped(skip) for skip in plan.skipped),
    ]


def refused(plan: Plan) -> Refused | Denied:
    """The error that stands for a plan's refusals, naming them all."""
    lines = [f"{refusal.place}: {refusal.name}" if refusal.place else str(refusal.name) for refusal in plan.refusals]
    reasons = [
        f"{line}: {refusal.why}" + (f"\n    = {refusal.remedy}" if refusal.remedy else "")
        for line, refusal in zip(lines, plan.refusals, strict=True)
    ]
    warnings = [f"warning: {warning}" for warning in plan.warnings]
    text = "refused; nothing was changed\n  " + "\n  ".join("\n".join([*reasons, *warnings]).splitlines())
    if all(refusal.denied for refusal in plan.refusals):
        return Denied(text)
    return Refused(text)


def totals(plan: Plan, seen: Snapshot) -> list[str]:
    """Lines above a plan: the server, and what all of it is expected to take."""
    server = seen.server
    lines = [f'PostgreSQL {server.version}, database "{server.database}", as "{server.role}"']
    estimates = [step.estimate for step in plan.steps if step.estimate]
    if estimates:
        size = sum(estimate.size_bytes for estimate in estimates)
        seconds = sum(estimate.seconds for estimate in estimates)
        lines.append(
            f"about {human_bytes(size)} of indexes in about {human_seconds(seconds)} of work, waits for others apart;"
            f" {_power(plan, seen)}"
        )
    return [*lines, *(f"warning: {warning}" for warning in plan.warnings)]


def standbys(plan: Plan, replicas: Sequence[Replica]) -> list[str]:
    """What drops do on standbys: their last lock is replayed there (index_drop, src/backend/catalog/index.c)."""
    if not any(step.kind in ("drop_index", "drop_leftover") for step in plan.steps):
        return []
    return [
        f"{replica}: DROP INDEX CONCURRENTLY replays an ACCESS EXCLUSIVE lock there;"
        " queries that hold it up longer than max_standby_streaming_delay are cancelled"
        for replica in replicas
    ]


def _power(plan: Plan, seen: Snapshot) -> str:
    """What the builds get: the server's settings, and how far some of them go beyond."""
    server = seen.server
    own = {
        "maintenance_work_mem": human_bytes(server.maintenance_work_mem_kb * 1024).replace(" ", ""),
        "max_parallel_maintenance_workers": str(server.max_parallel_maintenance_workers),
    }
    words = []
    for name, default in own.items():
        chosen = sorted({dict(s.settings).get(name, default) for s in plan.steps if s.estimate}, key=_by_size)
        words.append(f"{name} {' to '.join(dict.fromkeys((chosen[0], chosen[-1])))}")
    return ", ".join(words)


def _by_size(value: str) -> tuple[int, str]:
    return len(value), value


def event_facts(event: Event) -> dict[str, Any]:
    """An event as plain values, for a stream of JSON lines."""
    facts: dict[str, Any] = {
        "event": event.kind,
        "step": event.step.kind,
        "name": str(event.step.name),
        "number": event.number,
        "total": event.total,
        "elapsed_s": round(event.elapsed_s, 3),
        "detail": event.detail,
    }
    if event.kind == "start":
        facts["statement"] = event.step.sql
    if event.progress is not None:
        facts |= {
            "phase": event.progress.phase,
            "fraction": event.progress.fraction,
            "waiting": event.progress.is_waiting,
            "xmin_age": event.progress.xmin_age,
            "blocker": event.progress.blocker,
        }
    return facts


def _data(step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {"action": step.kind, "statement": step.sql, "undo": step.undo}
    if step.table:
        data["table"] = str(step.table)
    if step.migration:
        data["migration"] = step.migration
    if step.place:
        data |= {"file": step.place.path, "line": step.place.line}
    if step.estimate:
        data |= {"estimated_bytes": step.estimate.size_bytes, "estimated_s": round(step.estimate.seconds, 1)}
    if step.settings:
        data["settings"] = dict(step.settings)
    if step.locks:
        data["locks"] = [str(name) for name in step.locks]
    if step.waits_for:
        data["waits_for"] = list(step.waits_for)
    return data


def _step(step: Step) -> Item:
    detail = f"{_VERBS[step.kind]}: {step.why}"
    if step.estimate:
        detail += f"; about {human_bytes(step.estimate.size_bytes)}, {human_seconds(step.estimate.seconds)}"
    if step.locks:
        detail += f"; locks {', '.join(map(str, step.locks))} against readers and writers for a moment"
    return Item(kind_of(step.kind), str(step.name), Status.PLANNED, detail, None, _data(step))


def _skipped(skip: Skipped) -> Item:
    data: Mapping[str, Any] = {
        "action": skip.kind,
        **({"state": str(skip.state)} if skip.state else {}),
        **({"file": skip.place.path, "line": skip.place.line} if skip.place else {}),
    }
    return Item(kind_of(skip.kind), str(skip.name), Status.SKIPPED, skip.why, None, data)


def _refusal(refusal: Refusal) -> Item:
    data = {"file": refusal.place.path, "line": refusal.place.line} if refusal.place else {}
    # A plan is read by people: what cannot be done is a finding there, and the error of the command that would do it.
    return Item("index", str(refusal.name), Status.FINDING, f"refused: {refusal.why}", refusal.remedy, data)


def _outcome(outcome: Outcome) -> Item:
    step = outcome.step
    words = [f"{_VERBS[step.kind]}"]
    if outcome.detail:
        words = [f"{_VERBS[step.kind]}: {outcome.detail}"]
    elif step.kind == "create_index":
        words = [f"built in {human_seconds(outcome.build_s)}"]
    elif step.kind in ("drop_index", "drop_leftover"):
        words = [f"dropped in {human_seconds(outcome.build_s)}"]
    elif step.kind == "attach_index":
        words = [f"attached to {step.parent}"]
    if outcome.wait_s >= 0.1:
        words.append(f"waited {human_seconds(outcome.wait_s)}")
    if outcome.size_bytes:
        words.append(human_bytes(outcome.size_bytes))
    data = {
        **{key: value for key, value in _data(step).items() if key not in ("statement", "undo", "waits_for")},
        "sql": step.sql,
        "build_s": round(outcome.build_s, 3),
        "wait_s": round(outcome.wait_s, 3),
        "size_bytes": outcome.size_bytes,
        "oid": outcome.oid,
    }
    return Item(kind_of(step.kind), str(step.name), _RESULTS[outcome.result], ", ".join(words), None, data)
