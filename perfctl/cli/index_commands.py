"""The commands that go on from a run, or take it back, as an operator would type them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perfctl.cli.session import Session
from perfctl.indexes.draft import Manner, Selection


def resume(
    session: Session, paths: Sequence[str], selection: Selection, manner: Manner, bounds: Mapping[str, Any]
) -> str:
    """The apply that goes on from where a run stopped: it looks anew, and what is done is not touched."""
    words = [*_where(session), *_selected(selection), *_bounded(bounds)]
    words += ["--offline"] if manner.offline else []
    words += ["--replace"] if manner.replace else []
    return _line("apply", *words, *paths)


def undo(session: Session, migrations: Iterable[str | None], journal: str | None) -> str:
    """The rollback of the migrations that a run was about."""
    names = dict.fromkeys(name for name in migrations if name)
    return _line("rollback", *_where(session), *_journal(journal), *names)


def rollback(
    session: Session, migrations: Sequence[str], selection: Selection, to: int | None, bounds: Mapping[str, Any]
) -> str:
    """The rollback that goes on from where one stopped."""
    number = ["--to", str(to)] if to is not None else []
    return _line("rollback", *_where(session), *_selected(selection), *number, *_bounded(bounds), *migrations)


def _line(*words: str) -> str:
    return shlex.join(["perfctl", "indexes", *words])


def _where(session: Session) -> list[str]:
    config = ["--config", str(session.options.config)] if session.options.config else []
    target = ["--target", session.options.target] if session.options.target else []
    return [*config, *target]


def _selected(selection: Selection) -> list[str]:
    words = [word for glob in selection.only for word in ("--only", glob)]
    return words + [word for glob in selection.without for word in ("--except", glob)]


def _bounded(said: Mapping[str, Any]) -> list[str]:
    """The options that bound a run, as far as they were given."""
    words: list[str] = []
    for key, value in said.items():
        option = "--continue" if key == "go_on" else f"--{key.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [word for each in value for word in (option, each)]
        elif value:
            words += [option, str(value)]
    return words


def _journal(word: str | None) -> list[str]:
    return ["--journal", word] if word else []
