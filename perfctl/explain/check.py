"""The whole of a check: queries and rules in, items out; what ``explain check`` and ``verify`` share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfctl.errors import PerfctlError, UsageError
from perfctl.explain import baseline_file, decide, look, observe
from perfctl.explain.baseline import Baseline, Change, Now, compare, take
from perfctl.explain.decide import Subject
from perfctl.explain.look import Manner, Replans
from perfctl.explain.model import Access
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
    #: these are all that there are
    is_all: bool = field(default=False, compare=False)

    def chosen(self, names: Sequence[str]) -> Hot:
        """Those that a name or a glob takes; all for none. Raises UsageError for one that takes nothing."""
        if not names:
            return self
        known = {each.query.name for each in self.subjects} | {each.name for each in self.problems}
        for name in names:
            if not any(fnmatchcase(each, name) for each in known):
                near = difflib.get_close_matches(name, known, 3)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
                raise UsageError(f'there is no hot query "{name}"', hint=hint)

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
    if folder is None and not paths and "queries.dir" in loaded.origins:
        file, line = _at(loaded.origins, "queries.dir")
        raise UsageError(f'{file}:{line}: error: queries.dir: there is no folder "{settings.dir}"')
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
    return Hot(tuple(subjects), tuple(problems), is_all=not paths)


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
        # A value out of the environment says so behind its line.
        if found := re.match(r"(.+):(\d+)(?:,|$)", str(origins.get(key, ""))):
            return found[1], int(found[2])
    return "perfctl.yaml", 1


def manner(loaded: Loaded, *, analyze: bool = False, timeout_s: float | None = None) -> Manner:
    """How the configuration wants the queries looked at."""
    settings = loaded.settings.queries
    limits = Limits(timeout_s or settings.timeout_s, settings.lock_timeout_s)
    return Manner(limits, analyze or settings.analyze, settings.generic)


def check(pg: Postgres, hot: Hot, how: Manner, baselines: Path) -> tuple[list[Item], list[str]]:
    """One item a query, those that cannot be used first, and notes about all of them. Raises as ``look``.

    Each is held to its rules, and to its baseline where it has one.
    """
    looked = look.look(pg, hot.subjects, how)
    replans = Replans(pg, how)
    items = [decide.problem(each) for each in hot.problems]
    then = _baselines(baselines, hot)
    statistics = (
        observe.statistics(pg, _oids(looked)) if any(isinstance(each, Baseline) for each in then.values()) else {}
    )
    for subject, seen in zip(hot.subjects, looked, strict=True):
        match then.get(subject.query.name):
            case UsageError() as error:
                items.append(
                    decide.problem(Problem(subject.query.name, error.message, subject.query.file, 1, error.hint))
                )
            case Baseline() as baseline:
                changes = _compare(pg, baseline, subject, seen, replans, statistics)
                items.append(decide.item(subject, seen, replans.is_tie, changes))
            case _:
                items.append(decide.item(subject, seen, replans.is_tie))
    return items, [*_notes(looked), *_orphans(baselines, hot)]


def _orphans(folder: Path, hot: Hot) -> list[str]:
    """Baselines that hold no query to anything any more: it was renamed, or is gone."""
    # A file that cannot be read may hold the query.
    if not hot.is_all or hot.problems or not folder.is_dir():
        return []
    known = {baseline_file.path_of(folder, subject.query.name) for subject in hot.subjects}
    return [
        f"baseline of {path.stem}, which is no hot query any more: {path}"
        for path in sorted(folder.glob("*.yaml"))
        if path not in known
    ]


def _oids(looked: Sequence[decide.Looked]) -> set[int]:
    return {
        table.oid
        for each in looked
        for evidence in each.evidence
        for relation, table in evidence.catalogue.tables.items()
        if relation in evidence.plan.relations
    }


def _baselines(folder: Path, hot: Hot) -> dict[str, Baseline | UsageError]:
    found: dict[str, Baseline | UsageError] = {}
    if not folder.is_dir():
        return found
    for subject in hot.subjects:
        try:
            if (baseline := baseline_file.read(folder, subject.query.name)) is not None:
                found[subject.query.name] = baseline
        except UsageError as error:
            # One that cannot be read is its query's trouble and no other's.
            found[subject.query.name] = error
    return found


def _compare(
    pg: Postgres,
    then: Baseline,
    subject: Subject,
    seen: decide.Looked,
    replans: Replans,
    statistics: Mapping[int, str],
) -> list[Change]:
    def under(angle: str, settings: Mapping[str, str]) -> tuple[Access, ...] | None:
        plan = replans.under(subject, angle, settings)
        return plan.access if plan else None

    now = Now(
        server=pg.version,
        statistics=statistics,
        near=lambda angle: [plan.access for plan in replans.near(subject, angle)],
        under=under,
    )
    return compare(then, subject.query, seen.evidence, now)


@dataclass(frozen=True, slots=True)
class Taken:
    """A baseline as it would be written, and what stands in its file now."""

    subject: Subject
    baseline: Baseline | None
    before: Baseline | None
    why_not: PerfctlError | None = None


def take_all(pg: Postgres, hot: Hot, how: Manner, baselines: Path, *, on: str, reason: str) -> list[Taken]:
    """The baselines of the plans as they are now."""
    looked = look.look(pg, hot.subjects, how)
    statistics = observe.statistics(pg, _oids(looked))
    taken = []
    for subject, seen in zip(hot.subjects, looked, strict=True):
        try:
            before = baseline_file.read(baselines, subject.query.name)
        except UsageError:
            # What cannot be read is there to be written anew, by who says why.
            before = None
        error = next(iter(seen.failures.values()), None)
        made = take(subject.query, seen.evidence, statistics, server=pg.version, on=on, reason=reason)
        taken.append(Taken(subject, None if error else made, before, error))
    return taken


def _notes(looked: Sequence[decide.Looked]) -> list[str]:
    small = sorted({relation for each in looked for evidence in each.evidence for relation in evidence.small})
    if not small:
        return []
    names = ", ".join(map(str, small[:5])) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
    return [
        f"{len(small)} table{'s are' if len(small) != 1 else ' is'} empty or of a few pages here: {names}; there the"
        " question is whether an index can serve the query, and figures are judged only beside large tables"
    ]
