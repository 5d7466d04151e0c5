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

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import postgast
import yaml

from perfctl.hotqueries.model import DEFAULT_SET, Expectation, HotQuery, Kind, Parameter, Problem, ValueSet
from perfctl.hotqueries.placeholders import BadText, comments, number

_NAME = re.compile(r"--\s*name:\s*([A-Za-z_][\w.\-]*)[!^$*<]?#?(?:\s+:\w+)?\s*")
_HEAD = re.compile(r"--\s*name\s*:.*", re.IGNORECASE)
_DIRECTIVE = re.compile(r"--\s*([A-Za-z]+)\s*:\s*(.*?)\s*")
_WORD = r'(?:[A-Za-z_]\w*|"[^"]+")'
_TYPE = rf"{_WORD}(?:[. ]{_WORD})*?(?:\(\s*\d+(?:\s*,\s*\d+)?\s*\))?(?:\s*with(?:out)? time zone)?(?:\[\])*"
_VALUE = r"'(?:[^']|'')*'|-?\d+(?:\.\d+)?|true|false|null"
#: a parameter is called by its name, or by its number in text that has ``$1``
_CALLED = r"[A-Za-z_]\w*|\$?[1-9]\d*"
_PARAMETER = re.compile(rf"({_CALLED})(?:\s+({_TYPE}))?(?:\s*=\s*({_VALUE}))?", re.IGNORECASE)
_SET_NAME = re.compile(r"[A-Za-z_][\w\-]*")
_SET = re.compile(rf"({_SET_NAME.pattern}):\s*(.+)")
_ASSIGNMENT = re.compile(rf"\s*({_CALLED})\s*=\s*({_VALUE})\s*(?:,|$)", re.IGNORECASE)
_KEYED = re.compile(r"([a-z_]+)\s*:\s*(\S.*)")

#: what a comment's first word may be to mean something
DIRECTIVES = ("name", "param", "set", "rule", "index", "override")

_WRITES = {"insert_stmt", "update_stmt", "delete_stmt", "merge_stmt"}
_OTHERS = {"create_table_as_stmt", "declare_cursor_stmt", "execute_stmt"}


class _Bad(Exception):
    """A problem with the query at hand, and in which line."""

    def __init__(self, message: str, line: int, hint: str | None = None) -> None:
        self.line, self.hint = line, hint
        super().__init__(message)


@dataclass(slots=True)
class _Head:
    """What stands before a statement."""

    name: str
    purpose: list[str] = field(default_factory=list)
    types: dict[str, str | None] = field(default_factory=dict)
    defaults: dict[str, str | None] = field(default_factory=dict)
    sets: list[tuple[str, dict[str, str | None], int]] = field(default_factory=list)
    rules: list[Expectation] = field(default_factory=list)
    overrides: list[Expectation] = field(default_factory=list)


def parse(text: str, *, file: str, stem: str) -> tuple[list[HotQuery], list[Problem]]:
    """The queries of a file's text, and what is no query; a file without a ``-- name:`` is one, named ``stem``."""
    lines = [*_without_psql_commands(text.split("\n"))]
    starts = [number for number, line in enumerate(lines) if _HEAD.fullmatch(line.strip())]
    queries: list[HotQuery] = []
    problems: list[Problem] = []
    if starts and any(line.strip() and not line.lstrip().startswith("--") for line in lines[: starts[0]]):
        problems.append(Problem(stem, 'a statement before the first "-- name:"', file, 1))
    for start, end in zip(starts or [0], [*starts[1:], len(lines)], strict=True):
        head, behind = _Head(stem), start + bool(starts)
        try:
            if starts:
                head.name = _name(head, lines[start].strip(), start + 1)
            queries.append(_query(head, lines[behind:end], file, behind))
        except _Bad as bad:
            problems.append(Problem(head.name, str(bad), file, bad.line, bad.hint))
    return queries, problems


def _name(head: _Head, comment: str, line: int) -> str:
    found = _NAME.fullmatch(comment)
    if found is None:
        head.name = comment.partition(":")[2].strip() or head.name
        raise _Bad(f"no name: {comment}", line, "-- name: orders_of_user, without spaces")
    return found[1]


def from_config(given: Mapping[str, Any], *, file: str, line: int) -> HotQuery | Problem:
    """A query that stands in the configuration, its keys checked for their shape already."""
    head = _Head(str(given["name"]), purpose=[given.get("purpose") or ""])
    try:
        for key, value in (given.get("params") or {}).items():
            name = _called(key)
            said = value if isinstance(value, Mapping) else {"value": value}
            head.types[name] = _type(said, key, line)
            if "value" in said:
                head.defaults[name] = _text(said["value"], key, line)
        for name, values in (given.get("sets") or {}).items():
            if not _SET_NAME.fullmatch(name):
                raise _Bad(f'"{name}" is no name for a value set', line, "letters, digits, _ and -")
            head.sets.append((name, {_called(key): _text(value, key, line) for key, value in values.items()}, line))
        head.rules = [Expectation(*_only(rule, line), file, line) for rule in given.get("rules") or ()]
        head.overrides = [
            Expectation(key, None, file, line, reason) for key, reason in (given.get("override") or {}).items()
        ]
        found = _statement(head, str(given["sql"]), file, line - 1)
    except _Bad as bad:
        return Problem(head.name, str(bad), file, line, bad.hint)
    return replace(found, line=line)


def _called(key: object) -> str:
    """``$1`` and ``1`` are the same parameter."""
    return str(key).removeprefix("$")


def _type(said: Mapping[str, Any], name: object, line: int) -> str | None:
    if strange := sorted(set(said) - {"type", "value"}, key=str):
        raise _Bad(f'parameter "{name}" has an unknown key "{strange[0]}"', line, "known: type, value")
    found = said.get("type")
    if found is not None and not (isinstance(found, str) and re.fullmatch(_TYPE, found, re.IGNORECASE)):
        raise _Bad(f'parameter "{name}": {found!r} is no type', line)
    return found


def _text(value: object, name: object, line: int) -> str | None:
    """A value of the configuration in its type's text form."""
    if value is None:
        return None
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str):
        raise _Bad(f'parameter "{name}" has no single value', line, """write it as SQL's text: '{1,2}', '{"a": 1}'""")
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _only(rule: Mapping[str, Any], line: int) -> tuple[str, Any]:
    if len(rule) != 1:
        raise _Bad("a rule is one key and its value", line)
    return next(iter(rule.items()))


def _without_psql_commands(lines: Sequence[str]) -> list[str]:
    r"""Lines such as ``\restrict`` are psql's own, and no SQL."""
    return ["" if re.match(r"\s*\\[a-z!?]", line) else line for line in lines]


def _query(head: _Head, lines: Sequence[str], file: str, before: int) -> HotQuery:
    """``before`` is how many lines of the file stand before ``lines``."""
    at = 0
    while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("--")):
        if lines[at].strip():
            _comment(head, lines[at].strip(), file, before + at + 1)
        at += 1
    if at == len(lines):
        raise _Bad("no statement", max(1, before + len("\n".join(lines).rstrip().split("\n")) if lines else before))
    return _statement(head, "\n".join(lines[at:]), file, before + at)


def _comment(head: _Head, comment: str, file: str, line: int) -> None:
    found = _DIRECTIVE.fullmatch(comment)
    if found is None:
        head.purpose.append(comment.lstrip("-").strip())
        return
    word, rest = found[1], found[2]
    if word not in DIRECTIVES and word.lower() in DIRECTIVES:
        raise _Bad(f'unknown "-- {word}:"', line, f'did you mean "-- {word.lower()}:"?')
    match word:
        case "param":
            _parameter(head, rest, line)
        case "set":
            _set(head, rest, line)
        case "index":
            head.rules.append(Expectation("uses_index", rest, file, line))
        case "rule":
            key, value = _keyed(rest, line, "-- rule: no_seq_scan: public.orders")
            head.rules.append(Expectation(key, _yaml(value, line), file, line))
        case "override":
            key, reason = _keyed(rest, line, "-- override: cost: runs once a night")
            head.overrides.append(Expectation(key, None, file, line, reason))
        case _:
            # A word that is almost one of ours would be a promise that nobody tests.
            if near := difflib.get_close_matches(word, DIRECTIVES, 1, 0.75):
                raise _Bad(f'unknown "-- {word}:"', line, f'did you mean "-- {near[0]}:"?')
            head.purpose.append(comment.lstrip("-").strip())


def _keyed(text: str, line: int, example: str) -> tuple[str, str]:
    found = _KEYED.fullmatch(text)
    if found is None:
        raise _Bad("expected a key, a colon and a value", line, example)
    return found[1], found[2]


def _yaml(text: str, line: int) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise _Bad("the rule's value is no YAML", line, "quote it when it holds a colon or a bracket") from None


def _value(text: str) -> str | None:
    if text.lower() == "null":
        return None
    return text[1:-1].replace("''", "'") if text.startswith("'") else text.lower()


def _parameter(head: _Head, text: str, line: int) -> None:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise _Bad("no parameter", line, "-- param: user_id bigint = '42'")
    name = _called(found[1])
    if name in head.types:
        raise _Bad(f'parameter "{name}" is said twice', line)
    head.types[name] = found[2]
    if found[3] is not None:
        head.defaults[name] = _value(found[3])


def _set(head: _Head, text: str, line: int) -> None:
    found = _SET.fullmatch(text)
    values: dict[str, str | None] = {}
    at = 0
    while found and at < len(found[2]):
        each = _ASSIGNMENT.match(found[2], at)
        if each is None:
            found = None
            break
        if _called(each[1]) in values:
            raise _Bad(f'parameter "{each[1]}" is said twice', line)
        values[_called(each[1])] = _value(each[2])
        at = each.end()
    if found is None:
        raise _Bad("no value set", line, "-- set: busy: user_id = '7', since = '2026-01-01'")
    head.sets.append((found[1], values, line))


def _statement(head: _Head, text: str, file: str, before: int) -> HotQuery:
    try:
        numbered = number(text, head.types)
    except BadText as bad:
        raise _Bad(str(bad), before + bad.line, bad.hint) from None
    for line, comment in comments(text):
        said = _DIRECTIVE.fullmatch(comment.strip())
        if said and said[1] in DIRECTIVES:
            # It would be a promise that nobody tests.
            raise _Bad(f'"-- {said[1]}:" stands inside the statement', before + line, "move it above the statement")
    if unused := [name for name in head.types if name not in numbered.names]:
        raise _Bad(f'parameter "{unused[0]}" is not used', before + 1)
    kind, functions = _look_into(numbered.sql, before)
    sets = [
        ValueSet(name, {**head.defaults, **_known(values, numbered.names, line)}) for name, values, line in head.sets
    ]
    # Where the named sets fill in what has no default, the defaults alone are no set.
    if not numbered.names or (head.defaults and (not sets or set(numbered.names) <= set(head.defaults))):
        sets.insert(0, ValueSet(DEFAULT_SET, head.defaults))
    if twice := _twice([each.name for each in sets]):
        raise _Bad(f'two value sets are called "{twice}"', before + 1)
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
        functions=functions,
    )


def _known(values: dict[str, str | None], names: Sequence[str], line: int) -> dict[str, str | None]:
    if strange := [name for name in values if name not in names]:
        raise _Bad(f'there is no parameter "{strange[0]}"', line)
    return values


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _look_into(sql: str, before: int) -> tuple[Kind, frozenset[tuple[str | None, str]]]:
    """What the statement does and which functions it calls, by PostgreSQL's own grammar."""
    try:
        tree = postgast.parse(sql)
    except postgast.PgQueryError as error:
        at = max(0, (error.cursorpos or 1) - 1)
        hint = "give each parameter a name: :name or %(name)s" if re.search(r"%s\b|=\s*\?", sql) else None
        raise _Bad(error.message, before + 1 + sql.count("\n", 0, at), hint) from None
    if len(tree.stmts) != 1:
        raise _Bad("more than one statement", before + 1)
    statement = tree.stmts[0].stmt
    (top,) = [descriptor.name for descriptor, _ in statement.ListFields()]
    functions = frozenset(_function(call) for call in _nodes(statement, "FuncCall"))
    if top in _WRITES:
        return Kind.WRITE, functions
    if top in _OTHERS:
        return Kind.OTHER, functions
    if top != "select_stmt":
        _refuse_kind(top, before)
    if any(_nodes(statement, "IntoClause")):
        return Kind.OTHER, functions
    inner = ("LockingClause", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")
    writes = any(True for name in inner for _ in _nodes(statement, name))
    return (Kind.WRITE if writes else Kind.SELECT), functions


def _refuse_kind(top: str, before: int) -> NoReturn:
    what = top.removesuffix("_stmt").replace("_", " ").upper()
    raise _Bad(f"{what} has no plan", before + 1, "a hot query is a SELECT, INSERT, UPDATE, DELETE or MERGE")


def _nodes(message: Any, kind: str) -> Any:
    """Every part of the tree of that kind."""
    if message.DESCRIPTOR.name == kind:
        yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for each in value if descriptor.is_repeated else (value,):
            yield from _nodes(each, kind)


def _function(call: Any) -> tuple[str | None, str]:
    words = [part.string.sval for part in call.funcname]
    return (words[-2] if len(words) > 1 else None, words[-1])


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
