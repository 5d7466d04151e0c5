"""What stands above a statement: its name, purpose, parameters, values and rules, in comments or in YAML. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from perfctl.hotqueries.model import Expectation

_CALLED_SO = r"[A-Za-z_][\w.\-]*"
_NAME = re.compile(rf"--\s*name:\s*({_CALLED_SO})[!^$*<]?#?(?:\s+:\w+)?\s*")
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


class Bad(Exception):
    """A problem with the query at hand, and in which line."""

    def __init__(self, message: str, line: int, hint: str | None = None) -> None:
        self.line, self.hint = line, hint
        super().__init__(message)


@dataclass(slots=True)
class Head:
    """What stands before a statement."""

    name: str
    purpose: list[str] = field(default_factory=list)
    types: dict[str, str | None] = field(default_factory=dict)
    defaults: dict[str, str | None] = field(default_factory=dict)
    sets: list[tuple[str, dict[str, str | None], int]] = field(default_factory=list)
    rules: list[Expectation] = field(default_factory=list)
    overrides: list[Expectation] = field(default_factory=list)


def begins(line: str) -> bool:
    """The line is the head of a query, well written or not."""
    return _HEAD.fullmatch(line.strip()) is not None


def take_name(head: Head, comment: str, line: int) -> None:
    """Give the head the name that its first comment says. Raises Bad for one that is none."""
    found = _NAME.fullmatch(comment)
    if found is None:
        head.name = comment.partition(":")[2].strip() or head.name
        raise Bad(f"no name: {comment}", line, "-- name: orders_of_user, without spaces")
    head.name = found[1]


def directive(comment: str) -> str | None:
    """The directive that a comment holds, such as ``rule``."""
    found = _DIRECTIVE.fullmatch(comment.strip())
    return found[1] if found and found[1] in DIRECTIVES else None


def from_settings(given: Mapping[str, Any], file: str, line: int) -> Head:
    """The head of a query in the configuration. Raises Bad."""
    if not re.fullmatch(_CALLED_SO, str(given["name"])):
        # The name is also that of the file that the accepted plan is in.
        raise Bad(f'"{given["name"]}" is no name', line, "letters, digits, _, - and dots, such as orders_of_user")
    head = Head(str(given["name"]), purpose=[given.get("purpose") or ""])
    for key, value in (given.get("params") or {}).items():
        name = _called(key)
        said = value if isinstance(value, Mapping) else {"value": value}
        head.types[name] = _type(said, key, line)
        if "value" in said:
            head.defaults[name] = _text(said["value"], key, line)
    for name, values in (given.get("sets") or {}).items():
        if not _SET_NAME.fullmatch(name):
            raise Bad(f'"{name}" is no name for a value set', line, "letters, digits, _ and -")
        head.sets.append((name, {_called(key): _text(value, key, line) for key, value in values.items()}, line))
    head.rules = [Expectation(*_only(rule, line), file, line) for rule in given.get("rules") or ()]
    head.overrides = [
        Expectation(key, None, file, line, reason) for key, reason in (given.get("override") or {}).items()
    ]
    return head


def _called(key: object) -> str:
    """``$1`` and ``1`` are the same parameter."""
    return str(key).removeprefix("$")


def _type(said: Mapping[str, Any], name: object, line: int) -> str | None:
    if strange := sorted(set(said) - {"type", "value"}, key=str):
        raise Bad(f'parameter "{name}" has an unknown key "{strange[0]}"', line, "known: type, value")
    found = said.get("type")
    if found is not None and not (isinstance(found, str) and re.fullmatch(_TYPE, found, re.IGNORECASE)):
        raise Bad(f'parameter "{name}": {found!r} is no type', line)
    return found


def _text(value: object, name: object, line: int) -> str | None:
    """A value of the configuration in its type's text form."""
    if value is None:
        return None
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str):
        raise Bad(f'parameter "{name}" has no single value', line, """write it as SQL's text: '{1,2}', '{"a": 1}'""")
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _only(rule: Mapping[str, Any], line: int) -> tuple[str, Any]:
    if len(rule) != 1:
        raise Bad("a rule is one key and its value", line)
    return next(iter(rule.items()))


def take_comment(head: Head, comment: str, file: str, line: int) -> None:
    """Add to the head what a comment says. Raises Bad for what is almost a directive, or a wrong one."""
    found = _DIRECTIVE.fullmatch(comment)
    if found is None:
        head.purpose.append(comment.lstrip("-").strip())
        return
    word, rest = found[1], found[2]
    if word not in DIRECTIVES and word.lower() in DIRECTIVES:
        raise Bad(f'unknown "-- {word}:"', line, f'did you mean "-- {word.lower()}:"?')
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
                raise Bad(f'unknown "-- {word}:"', line, f'did you mean "-- {near[0]}:"?')
            head.purpose.append(comment.lstrip("-").strip())


def _keyed(text: str, line: int, example: str) -> tuple[str, str]:
    found = _KEYED.fullmatch(text)
    if found is None:
        raise Bad("expected a key, a colon and a value", line, example)
    return found[1], found[2]


def _yaml(text: str, line: int) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise Bad("the rule's value is no YAML", line, "quote it when it holds a colon or a bracket") from None


def _value(text: str) -> str | None:
    if text.lower() == "null":
        return None
    return text[1:-1].replace("''", "'") if text.startswith("'") else text.lower()


def _parameter(head: Head, text: str, line: int) -> None:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise Bad("no parameter", line, "-- param: user_id bigint = '42'")
    name = _called(found[1])
    if name in head.types:
        raise Bad(f'parameter "{name}" is said twice', line)
    head.types[name] = found[2]
    if found[3] is not None:
        head.defaults[name] = _value(found[3])


def _set(head: Head, text: str, line: int) -> None:
    found = _SET.fullmatch(text)
    values: dict[str, str | None] = {}
    at = 0
    while found and at < len(found[2]):
        each = _ASSIGNMENT.match(found[2], at)
        if each is None:
            found = None
            break
        if _called(each[1]) in values:
            raise Bad(f'parameter "{each[1]}" is said twice', line)
        values[_called(each[1])] = _value(each[2])
        at = each.end()
    if found is None:
        raise Bad("no value set", line, "-- set: busy: user_id = '7', since = '2026-01-01'")
    head.sets.append((found[1], values, line))
