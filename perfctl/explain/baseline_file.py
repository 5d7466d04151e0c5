"""Baselines as small files that people read and git keeps: one a query, in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from perfctl.errors import UsageError
from perfctl.explain.baseline import Accepted, Baseline, Read, TableThen

VERSION = 1
_HEAD = "# The accepted plan of a hot query: perfctl explain baseline writes it, explain check holds the plan to it.\n"


class _Dumper(yaml.SafeDumper):
    """Trees as blocks, reads as one line each."""


class _Line(list):  # type: ignore[type-arg]
    """A list that stands on one line."""


_Dumper.add_representer(
    _Line, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)
_Dumper.add_representer(
    str,
    lambda dumper, data: dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None),
)


def path_of(folder: Path, query: str) -> Path:
    """Where a query's baseline stands."""
    return folder / f"{query}.yaml"


def write(folder: Path, baseline: Baseline) -> Path:
    """Write it, whole or not at all. Raises UsageError."""
    path = path_of(folder, baseline.query)
    temporary = path.with_suffix(".yaml.new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(dump(baseline), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f'baseline "{path}" cannot be written: {error.strerror}') from error
    return path


def dump(baseline: Baseline) -> str:
    """The file's text: the same for the same baseline."""
    plans = {}
    for angle, plan in baseline.plans.items():
        plans[angle] = {
            "rows": plan.rows,
            "cost": plan.cost,
            **({"blocks": plan.blocks} if plan.blocks is not None else {}),
            **({"settings": dict(plan.settings)} if plan.settings else {}),
            **({"values": plan.values} if plan.values else {}),
            "reads": [_Line([read.node, read.table, read.index, read.rows]) for read in plan.reads],
            "plan": "\n".join(plan.tree) + "\n",
        }
    document = {
        "version": VERSION,
        "query": baseline.query,
        "accepted": baseline.on,
        "reason": baseline.reason,
        "server": baseline.server,
        "sql": baseline.sql,
        "tables": {name: asdict(table) for name, table in baseline.tables.items()},
        "plans": plans,
    }
    return _HEAD + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read(folder: Path, query: str) -> Baseline | None:
    """The query's baseline; None without one. Raises UsageError for a file that is none."""
    path = path_of(folder, query)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'baseline "{path}" cannot be read: {error}') from error
    try:
        return load(yaml.safe_load(text))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'"{path}" is no baseline: {type(error).__name__} {error}',
            hint=f"perfctl explain baseline accept {query} --reason '…' writes it anew",
        ) from error


def load(document: Mapping[str, Any]) -> Baseline:
    """The baseline in a file's document. Raises KeyError, TypeError or ValueError for another document."""
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']}")
    return Baseline(
        query=str(document["query"]),
        sql=str(document["sql"]),
        server=str(document["server"]),
        on=str(document["accepted"]),
        reason=str(document["reason"]),
        tables={name: TableThen(**table) for name, table in document["tables"].items()},
        plans={
            str(angle): Accepted(
                values=str(plan.get("values", "")),
                reads=tuple(Read(node, table, index, rows) for node, table, index, rows in plan["reads"]),
                tree=tuple(plan["plan"].splitlines()),
                rows=plan["rows"],
                cost=plan["cost"],
                settings=plan.get("settings", {}),
                blocks=plan.get("blocks"),
            )
            for angle, plan in document["plans"].items()
        },
    )
