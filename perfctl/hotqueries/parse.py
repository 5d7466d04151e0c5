"""The queries of a text: ``-- name:`` heads, parameters, values and rules in comments, one statement each. Pure.

::

    -- name: newest_analyses_of_user
    -- What it is for, in a line or two.
    -- param: user_id bigint = '42'
    -- set: busy: user_id = '7'
    -- rule: no_seq_scan: production.analysis_sessions
    -- index: idx_analysis_sessions_user_created
    -- override: cost: a report that runs once a day
    SELECT … WHERE user_id = :user_id;
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfctl.hotqueries.head import Bad, Head, begins, directive, from_settings, take_comment, take_name
from perfctl.hotqueries.model import DEFAULT_SET, HotQuery, Parameter, Problem, ValueSet
from perfctl.hotqueries.placeholders import BadText, comments, inside, number
from perfctl.hotqueries.statement import kind_of


def parse(text: str, *, file: str, stem: str) -> tuple[list[HotQuery], list[Problem]]:
    """The queries of a file's text, and what is no query; a file without a ``-- name:`` is one, named ``stem``."""
    within = inside(text)
    lines = _without_psql_commands(text.split("\n"), within)
    starts = [number for number, line in enumerate(lines) if number not in within and begins(line)]
    queries: list[HotQuery] = []
    problems: list[Problem] = []
    if starts and any(line.strip() and not line.lstrip().startswith("--") for line in lines[: starts[0]]):
        problems.append(Problem(stem, 'a statement before the first "-- name:"', file, 1))
    for start, end in zip(starts or [0], [*starts[1:], len(lines)], strict=True):
        head, behind = Head(stem), start + bool(starts)
        try:
            if starts:
                take_name(head, lines[start].strip(), start + 1)
            queries.append(_query(head, lines[behind:end], file, behind))
        except Bad as bad:
            problems.append(Problem(head.name, str(bad), file, bad.line, bad.hint))
    return queries, problems


def from_config(given: Mapping[str, Any], *, file: str, line: int) -> HotQuery | Problem:
    """A query that stands in the configuration, its keys checked for their shape already."""
    try:
        head = from_settings(given, file, line)
        found = _statement(head, str(given["sql"]), file, line - 1)
    except Bad as bad:
        return Problem(str(given["name"]), str(bad), file, line, bad.hint)
    return replace(found, line=line, inline=True)


def _without_psql_commands(lines: Sequence[str], within: Container[int]) -> list[str]:
    r"""Lines such as ``\restrict`` are psql's own, and no SQL; those ``within`` a string are a part of it."""
    return [
        "" if number not in within and re.match(r"\s*\\[a-z!?]", line) else line for number, line in enumerate(lines)
    ]


def _query(head: Head, lines: Sequence[str], file: str, before: int) -> HotQuery:
    """``before`` is how many lines of the file stand before ``lines``."""
    at = 0
    while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("--")):
        if lines[at].strip():
            take_comment(head, lines[at].strip(), file, before + at + 1)
        at += 1
    if at == len(lines):
        raise Bad("no statement", max(1, before + len("\n".join(lines).rstrip().split("\n")) if lines else before))
    return _statement(head, "\n".join(lines[at:]), file, before + at)


def _statement(head: Head, text: str, file: str, before: int) -> HotQuery:
    try:
        numbered = number(text, head.types)
    except BadText as bad:
        raise Bad(str(bad), before + bad.line, bad.hint) from None
    for line, comment in comments(text):
        if (said := directive(comment)) is not None:
            # It would be a promise that nobody tests.
            raise Bad(f'"-- {said}:" stands inside the statement', before + line, "move it above the statement")
    if unused := [name for name in head.types if name not in numbered.names]:
        raise Bad(f'parameter "{unused[0]}" is not used', before + 1)
    kind = kind_of(numbered.sql, before)
    sets = [
        ValueSet(name, {**head.defaults, **_known(values, numbered.names, line)}) for name, values, line in head.sets
    ]
    # Where the named sets fill in what has no default, the defaults alone are no set.
    if not numbered.names or (head.defaults and (not sets or set(numbered.names) <= set(head.defaults))):
        sets.insert(0, ValueSet(DEFAULT_SET, head.defaults))
    if twice := _twice([each.name for each in sets]):
        raise Bad(f'two value sets are called "{twice}"', before + 1)
    return HotQuery(
        name=head.name,
        sql=numbered.sql,
        file=file,
        line=before + 1 + text[: len(text) - len(text.lstrip())].count("\n"),
        kind=kind,
        purpose=" ".join(filter(None, head.purpose)),
        parameters=tuple(Parameter(name, head.types.get(name)) for name in numbered.names),
        sets=tuple(sets),
        rules=tuple(head.rules),
        overrides=tuple(head.overrides),
    )


def _known(values: dict[str, str | None], names: Sequence[str], line: int) -> dict[str, str | None]:
    if strange := [name for name in values if name not in names]:
        raise Bad(f'there is no parameter "{strange[0]}"', line)
    return values


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


@dataclass(frozen=True, slots=True)
class Queries:
    """What was read: the queries by name, in the order of files and names, and what could not be read."""

    queries: tuple[HotQuery, ...]
    problems: tuple[Problem, ...] = ()


def together(queries: Sequence[HotQuery], problems: Sequence[Problem]) -> Queries:
    """All of them; of several with one name none is taken, for a rule or a baseline must not mean another one."""
    by_name: dict[str, list[HotQuery]] = {}
    for query in queries:
        by_name.setdefault(query.name, []).append(query)
    found = [*problems]
    for name, same in by_name.items():
        if len(same) > 1:
            first = same[0]
            message = f"{len(same)} queries have this name; the first is at {first.file}:{first.line}"
            found += [Problem(name, message, each.file, each.line, "rename one") for each in same[1:]]
    return Queries(tuple(same[0] for same in by_name.values() if len(same) == 1), tuple(found))
