"""A YAML file as plain data, with the place of every key and value, and ``${…}`` expanded.

YAML 1.1 reads ``3:00`` as 180, ``010`` as 8 and ``yes`` as true; here only true, false, null and
decimal numbers are more than text, and a key that is given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from perfctl.config.expand import Expanded, expand
from perfctl.config.problem import Problem, Source, Span, dotted, plain_name
from perfctl.config.schema import Place, is_secret, is_shown
from perfctl.config.syntax import guessed_spans, syntax_problem, tabs_in, unreadable_problem

#: a section counts as absent when its address is empty and none of these says where else to go
_OTHER_ADDRESSES = frozenset({"host", "hostaddr", "service", "dbname"})
_ABSENT = object()


class Loader(yaml.SafeLoader):
    """Resolves nothing but true, false, null and decimal numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # pyyaml's own table, filled below


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(0|[1-9][0-9]*)\.[0-9]+", "-+0123456789"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), list(_first))

_MAKE: dict[str, Any] = {
    "tag:yaml.org,2002:bool": {"true": True, "false": False}.__getitem__,
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}
_NEVER_SECRET = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")


@dataclass(slots=True, repr=False)
class Document:
    """What was read, and where each thing stands. ``data`` is None when the file holds nothing."""

    label: str
    lines: list[str]
    data: Any = None
    keys: dict[Place, Span] = field(default_factory=dict)
    values: dict[Place, Span] = field(default_factory=dict)
    #: environment variables that a value was made of
    used: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    #: values as they are written, before ``${…}`` is expanded
    written: dict[Place, str] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    #: places about which a problem is already known
    told: set[Place] = field(default_factory=set)

    def add(self, place: Place, text: str, *cures: str, on_key: bool = False) -> None:
        """Records a problem at a place, or at the nearest one above it that stands in the file."""
        self.told.add(place)
        self.problems.append(Problem(text, self.span(place, on_key=on_key), tuple(filter(None, cures))))

    def blame(self, place: Place, text: str, *cures: str) -> None:
        """Records a problem with a value, by the dotted name of its key."""
        self.add(place, f"{dotted(place)}: {text}" if place else text, *cures)

    def span(self, place: Place, *, on_key: bool = False) -> Span | None:
        """Where a value stands, or its key, or what it would be a part of."""
        value = self.values.get(place)
        if on_key or value is None or value.end_line > value.line:
            value = self.keys.get(place, value)
        return value or (self.span(place[:-1], on_key=True) if place else None)

    def where(self, place: Place) -> str:
        """``perfctl.yaml:4`` for what stands in the file; empty for what does not."""
        span = self.values.get(place)
        return f"{self.label}:{span.line + 1}" if span else ""

    def message(self) -> str:
        """Every problem in the order of the file, each once."""
        source = Source(self.label, self.lines, self.spans)
        ordered = sorted(self.problems, key=lambda problem: problem.order)
        return "\n\n".join(dict.fromkeys(source.describe(problem) for problem in ordered))


def read(label: str, text: str, environ: Mapping[str, str]) -> Document:
    """The document; whatever is wrong with it is in its ``problems``."""
    document = Document(label, re.split("\r\n|[\n\r\x85\u2028\u2029]", text))
    document.spans = guessed_spans(document.lines)
    if tabs := tabs_in(document.lines):
        document.problems = tabs
        return document
    try:
        if (node := yaml.compose(text, Loader)) is not None:
            document.spans = []
            _Builder(document, environ).top(node)
    except yaml.MarkedYAMLError as error:
        document.problems = [syntax_problem(error)]
    except yaml.reader.ReaderError as error:
        document.problems = [unreadable_problem(text, error)]
    except RecursionError:
        document.problems = [Problem("nested too deeply")]
    return document


@dataclass(slots=True)
class _Builder:
    document: Document
    environ: Mapping[str, str]
    open: list[yaml.Node] = field(default_factory=list)

    def top(self, node: yaml.Node) -> None:
        data = self.build(node, ())
        self.document.data = {} if data is _ABSENT else data

    def build(self, node: yaml.Node, place: Place) -> object:
        if node in self.open:
            self.document.add(place, "an alias that contains itself", on_key=True)
            return None
        span = _span(node, shown=is_shown(place) or node.tag in _NEVER_SECRET)
        self.document.values[place] = span
        if isinstance(node, yaml.ScalarNode):
            self.document.spans.append(span)
            return self.scalar(node, place)
        if is_secret(place):
            # Not looked into: whatever stands there may be the secret.
            self.document.spans.append(span)
            return []
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            self.document.blame(place, "tags are not used in this file")
            return None
        self.open.append(node)
        made = self.mapping(node, place) if isinstance(node, yaml.MappingNode) else self.sequence(node, place)
        self.open.pop()
        return made

    def sequence(self, node: yaml.Node, place: Place) -> list[object]:
        return [self.build(each, (*place, number)) for number, each in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, place: Place) -> object:
        made: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.document.spans.append(_span(key, shown=False))
                self.document.problems.append(Problem("a key has to be a word", _span(key)))
                continue
            inner = (*place, key.value)
            span = _span(key, shown=plain_name(key.value) != plain_name(""))
            self.document.spans.append(span)
            if key.value in made:
                self.document.spans.append(_span(value, shown=False))
                self.duplicate(inner, span)
                continue
            self.document.keys[inner] = span
            made[key.value] = self.build(value, inner)
        return self.present(made, place)

    def duplicate(self, place: Place, span: Span) -> None:
        first = self.document.keys[place].line + 1
        text = f"duplicate key {plain_name(str(place[-1]))}, first given on line {first}"
        self.document.problems.append(Problem(text, span))

    def present(self, made: dict[str, object], place: Place) -> object:
        """The section without keys that expand to nothing; ``_ABSENT`` when that leaves it no address."""
        for key in [key for key, value in made.items() if value is _ABSENT]:
            del made[key]
        for key in ("dsn", "url"):
            if isinstance(made.get(key), Expanded) and not made[key] and (*place, key) not in self.document.told:
                del made[key]
                if not _OTHER_ADDRESSES & made.keys():
                    return _ABSENT
        return made

    def scalar(self, node: yaml.ScalarNode, place: Place) -> object:
        text: str = node.value
        if node.tag not in _MAKE:
            self.document.blame(place, "tags are not used in this file")
            return None
        self.document.written[place] = text
        if "$" not in text:
            try:
                return _MAKE[node.tag](text)
            except (ValueError, KeyError):
                self.document.blame(place, "tags are not used in this file")
                return None
        found = expand(text, self.environ)
        self.document.used[place] = tuple(dict.fromkeys(found.used))
        for problem in dict.fromkeys(found.problems):
            self.document.blame(place, problem)
        if not found.text and found.empty and place[-1:] in (("dsn",), ("url",)):
            self.empty_address(place, found.empty[0])
        return Expanded(found.text) if found.has_reference else found.text

    def empty_address(self, place: Place, name: str) -> None:
        """In CI a secret that is not handed to a job is empty, not unset: nothing would be checked, and pass."""
        cure = f"write ${{{name}:-}} if it may be, and the section then counts as absent"
        self.document.blame(place, f'environment variable "{name}" is empty', cure)


def _span(node: yaml.Node, *, shown: bool = True) -> Span:
    start, end = node.start_mark, node.end_mark
    return Span(start.line, start.column, end.line, end.column, shown)
