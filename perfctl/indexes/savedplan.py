"""A plan in a file: what was reviewed is what is applied, and only on the database it was made for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfctl import __version__
from perfctl.errors import UsageError
from perfctl.indexes.draft import Manner, Selection
from perfctl.indexes.model import Plan, Snapshot
from perfctl.migrations.files import from_text
from perfctl.migrations.model import Migration

PLAN_VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What the file holds: the migrations' own text, what was selected, and the steps that were shown."""

    target: str | None
    migrations: tuple[Migration, ...]
    selection: Selection
    manner: Manner
    database: Mapping[str, Any]
    facts: Mapping[str, str]


def dump(
    plan: Plan,
    seen: Snapshot,
    *,
    target: str | None,
    migrations: Sequence[Migration],
    selection: Selection,
    manner: Manner,
) -> str:
    """The plan as JSON text, fit for a review."""
    return json.dumps(
        {
            "perfctl_plan": PLAN_VERSION,
            "perfctl": __version__,
            "target": target,
            "database": database(seen),
            "offline": manner.offline,
            "replace": manner.replace,
            "only": list(selection.only),
            "except": list(selection.without),
            "facts": facts(plan, seen),
            "migrations": [{"path": str(m.path), "sha256": m.sha256, "text": m.text} for m in migrations],
        },
        indent=2,
        ensure_ascii=False,
    )


def read(path: Path) -> SavedPlan:
    """The plan in a file. Raises UsageError for whatever is not one."""
    hint = "make one with: perfctl indexes plan --out FILE"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("perfctl_plan") != PLAN_VERSION:
            raise UsageError(f'"{path}" is not a plan that this perfctl reads', hint=hint)
        return SavedPlan(
            target=data["target"],
            migrations=tuple(from_text(Path(m["path"]), m["text"], m["sha256"]) for m in data["migrations"]),
            selection=Selection(tuple(data["only"]), tuple(data["except"])),
            manner=Manner(offline=data["offline"], replace=data["replace"]),
            database=data["database"],
            facts=data["facts"],
        )
    except OSError as error:
        raise UsageError(f'plan "{path}" cannot be read: {error.strerror}', hint=hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'"{path}" is not a plan: {error}', hint=hint) from error


def database(seen: Snapshot) -> dict[str, Any]:
    """What tells this database from every other."""
    return {
        "name": seen.server.database,
        "oid": seen.server.database_oid,
        "system_identifier": seen.system_identifier,
    }


def facts(plan: Plan, seen: Snapshot) -> dict[str, str]:
    """What the plan rests on, one line an object: the statement to send, or why there is none."""
    found: dict[str, str] = {}
    for step in plan.steps:
        table = seen.tables.get(step.table) if step.table else None
        on = f" [table {table.oid}]" if table else ""
        replaced = f" [index {step.oid}]" if step.oid else ""
        found[f"{step.kind} {step.name}"] = f"{step.sql}{on}{replaced}"
    for skipped in plan.skipped:
        found[f"{skipped.kind} {skipped.name}"] = f"nothing: {skipped.why}"
    return found


def differences(saved: SavedPlan, plan: Plan, seen: Snapshot) -> list[str]:
    """What is no longer as it was when the plan was made, a line each; empty when nothing moved."""
    now = database(seen)
    moved = [
        f"database {key}: the plan was made for {value}, this is {now.get(key)}"
        for key, value in saved.database.items()
        if now.get(key) != value
    ]
    present = facts(plan, seen)
    for key, was in saved.facts.items():
        if (is_now := present.get(key, "not to be done any more")) != was:
            moved.append(f"{key}\n    planned: {was}\n    now:     {is_now}")
    moved += [
        f"{key}\n    planned: -\n    now:     {value}" for key, value in present.items() if key not in saved.facts
    ]
    moved += [f"{refusal.name}: {refusal.why}" for refusal in plan.refusals]
    return moved
