"""The whole of a check: queries and rules in, items out; what ``explain check`` and ``verify`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfctl.errors import UsageError
from perfctl.explain import decide, look
from perfctl.explain.decide import Subject
from perfctl.explain.look import Manner, Ties
from perfctl.explain.observe import Limits
from perfctl.explain.rule import BadRule
from perfctl.explain.rules import read
from perfctl.hotqueries import files
from perfctl.hotqueries.model import Expectation, Problem
from perfctl.report import Item
from perfctl.servers.postgres import Postgres

if TYPE_CHECKING:
    from perfctl.config import Loaded


@dataclass(frozen=True, slots=True)
class Hot:
    """The hot queries with their rules, and what is wrong with some."""

    subjects: tuple[Subject, ...]
    problems: tuple[Problem, ...] = ()

    def chosen(self, names: Sequence[str]) -> Hot:
        """Those that a name or a glob takes; all for none. Raises UsageError for one that takes nothing."""
        if not names:
            return self
        known = {each.query.name for each in self.subjects} | {each.name for each in self.problems}
        for name in names:
            if not any(fnmatchcase(each, name) for each in known):
                raise UsageError(f'there is no hot query "{name}"', hint=f"known: {', '.join(sorted(known)) or 'none'}")

        def takes(name: str) -> bool:
            return any(fnmatchcase(name, wanted) for wanted in names)

        return Hot(
            tuple(each for each in self.subjects if takes(each.query.name)),
            tuple(each for each in self.problems if takes(each.name)),
        )


def hot(loaded: Loaded, paths: Sequence[Path] = ()) -> Hot:
    """What the configuration names, with ``paths`` instead of its folder where some are given. Raises UsageError."""
    settings = loaded.settings.queries
    folder = settings.dir if settings.dir.is_dir() and not paths else None
    inline = [
        (each.model_dump(), *_at(loaded.origins, f"queries.inline.{n}.name", f"queries.inline.{n}"))
        for n, each in enumerate(settings.inline)
    ]
    found = files.load(folder, inline, paths)
    everybody = [_expectation(loaded, number, rule) for number, rule in enumerate(settings.rules)]
    subjects: list[Subject] = []
    problems = list(found.problems)
    for query in found.queries:
        match decide.subject(query, everybody):
            case Problem() as problem:
                problems.append(problem)
            case made:
                subjects.append(made)
    return Hot(tuple(subjects), tuple(problems))


def _expectation(loaded: Loaded, number: int, rule: Mapping[str, Any]) -> Expectation:
    place = f"queries.rules.{number}"
    file, line = _at(loaded.origins, *(f"{place}.{key}" for key in rule), place)
    if len(rule) != 1:
        raise UsageError(f"{file}:{line}: error: {place}: a rule is one key and its value")
    ((key, value),) = rule.items()
    try:
        read(key, value)
    except BadRule as bad:
        raise UsageError(f"{file}:{line}: error: {place}: {bad}") from None
    return Expectation(key, value, file, line)


def _at(origins: Mapping[str, object], *keys: str) -> tuple[str, int]:
    """File and line of the first key that stands in the file."""
    for key in keys:
        file, colon, line = str(origins.get(key, "")).rpartition(":")
        if colon and line.isdigit():
            return file, int(line)
    return "perfctl.yaml", 1


def manner(loaded: Loaded, *, analyze: bool = False, timeout_s: float | None = None) -> Manner:
    """How the configuration wants the queries looked at."""
    settings = loaded.settings.queries
    limits = Limits(timeout_s or settings.timeout_s, settings.lock_timeout_s)
    return Manner(limits, analyze or settings.analyze, settings.generic)


def check(pg: Postgres, hot: Hot, how: Manner) -> tuple[list[Item], list[str]]:
    """One item a query, and notes about all of them."""
    looked = look.look(pg, hot.subjects, how)
    ties = Ties(pg, how)
    items = [decide.problem(each) for each in hot.problems]
    items += [decide.item(subject, seen, ties) for subject, seen in zip(hot.subjects, looked, strict=True)]
    return items, _notes(looked)


def _notes(looked: Sequence[decide.Looked]) -> list[str]:
    small = sorted({relation for each in looked for evidence in each.evidence for relation in evidence.small})
    if not small:
        return []
    names = ", ".join(map(str, small[:5])) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
    return [
        f"{len(small)} table{'s are' if len(small) != 1 else ' is'} empty or of a few pages here: {names}; there the"
        " question is whether an index can serve the query, and figures are not judged"
    ]
