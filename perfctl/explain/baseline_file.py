"""Baselines as small files that people read and git keeps: one a query, in YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TypeVar

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
    except (yaml.YAMLError, UsageError) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f'"{path}" is no baseline: {said}',
            hint=f"perfctl explain baseline accept {query} --reason '…' writes it anew",
        ) from error


def load(document: object) -> Baseline:
    """The baseline in a file's document. Raises UsageError, with the key's name, for another document."""
    top = _Keys(document, "")
    if (version := top.take("version", int)) != VERSION:
        raise UsageError(f"version: {version} is not known to this perfctl, which reads {VERSION}")
    return Baseline(
        query=top.take("query", str),
        sql=top.text("sql"),
        server=top.text("server"),
        # YAML takes a date for a date.
        on=str(top.take("accepted", str, date)),
        reason=top.take("reason", str),
        tables={name: _table(keys) for name, keys in top.below("tables")},
        plans={angle: _accepted(keys) for angle, keys in top.below("plans")},
    )


def _table(keys: _Keys) -> TableThen:
    return TableThen(
        pages=keys.take("pages", int),
        rows=keys.take("rows", float, int),
        statistics=keys.text("statistics"),
        indexes=keys.texts("indexes"),
    )


def _accepted(keys: _Keys) -> Accepted:
    return Accepted(
        values=keys.text("values") if keys.has("values") else "",
        reads=tuple(_read(keys.name("reads"), each) for each in keys.take("reads", list)),
        tree=tuple(keys.take("plan", str).splitlines()),
        rows=keys.take("rows", float, int),
        cost=keys.take("cost", float, int),
        settings=keys.texts("settings") if keys.has("settings") else {},
        blocks=keys.take("blocks", int) if keys.has("blocks") else None,
    )


def _read(name: str, given: object) -> Read:
    match given:
        case [str(node), str(table), str(index), float() | int() as rows] if not isinstance(rows, bool):
            return Read(node, table, index, rows)
        case _:
            raise UsageError(f"{name}: expected lists of a node, a table, an index and a number of rows")


_Value = TypeVar("_Value")
_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", list: "a list", date: "a date"}


class _Keys:
    """A mapping of the document, read key by key; each refusal names the key with those above it."""

    def __init__(self, given: object, above: str) -> None:
        if not isinstance(given, dict):
            raise UsageError(f"{above}: expected keys and values" if above else "expected keys and values")
        self._given = given
        self._above = above

    def has(self, key: str) -> bool:
        """The key stands there."""
        return key in self._given

    def name(self, key: str) -> str:
        """The key with those above it."""
        return f"{self._above}.{key}" if self._above else key

    def take(self, key: str, *kinds: type[_Value]) -> _Value:
        """The value, of one of these kinds."""
        if key not in self._given:
            raise UsageError(f"{self.name(key)} is missing")
        value = self._given[key]
        finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, kinds) or isinstance(value, bool) or not finite:
            raise UsageError(f"{self.name(key)}: expected {_WORDS[kinds[0]]}")
        return value

    def text(self, key: str) -> str:
        """A hash or a version: of digits alone YAML makes a number where a hand has taken the quotes away."""
        return str(self.take(key, str, int, float))

    def texts(self, key: str) -> dict[str, str]:
        """Texts by name."""
        inner = self.inner(key)
        return {name: inner.text(name) for name in inner.names()}

    def names(self) -> list[str]:
        """The keys. Raises UsageError for one that is no text."""
        if strange := [key for key in self._given if not isinstance(key, str)]:
            raise UsageError(f"{self.name(str(strange[0]))}: expected a text for the key")
        return list(self._given)

    def inner(self, key: str) -> _Keys:
        """The mapping under a key."""
        if key not in self._given:
            raise UsageError(f"{self.name(key)} is missing")
        return _Keys(self._given[key], self.name(key))

    def below(self, key: str) -> list[tuple[str, _Keys]]:
        """The mappings under a key, by name."""
        inner = self.inner(key)
        return [(name, inner.inner(name)) for name in inner.names()]
