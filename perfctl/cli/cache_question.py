"""Which keys a cache command is about: the question that its options come to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perfctl.errors import Refused, UsageError

if TYPE_CHECKING:
    from perfctl.cache.model import Question, Ttl
    from perfctl.cli.session import Session


def question(session: Session, pattern: str | None, choice: Mapping[str, Any]) -> Question:
    """What the command line asks for; its bytes as the shell gave them. Raises Refused, UsageError."""
    from perfctl.cache import glob
    from perfctl.cache.model import Question
    from perfctl.cli.session import duration_s

    refuse_empty(choice, but=("family", "id"))
    if choice["type"] is not None and not choice["type"].isascii():
        raise UsageError("--type: no type has a name of such letters")
    delimiter = os.fsencode(":" if choice["delimiter"] is None else choice["delimiter"])
    shape = None
    if choice["family"] is not None:
        if pattern is not None:
            raise UsageError("a pattern and --family are two ways to say the same", hint="leave one out")
        words, shape = glob.of_family(_family(session, choice["family"]), _ids(choice["id"] or ()), delimiter)
    elif choice["id"]:
        raise UsageError("--id says which of a --family")
    elif pattern is None:
        raise UsageError("which keys? name a pattern, or a --family")
    elif not pattern:
        raise Refused("the pattern is empty: it names no key", hint="'*' means all keys")
    else:
        words = os.fsencode(pattern)
        words = glob.escape(words) if choice["literal"] else words
    without = tuple(os.fsencode(each) for each in choice["exclude"] or ())
    for each in without:
        try:
            glob.compiled(each)
        except ValueError as error:
            raise UsageError(f"--exclude: {error}") from None
    return Question(
        words,
        choice["type"],
        without,
        delimiter,
        shape,
        None if choice["ttl"] is None else _ttl(choice["ttl"]),
        duration_s("--idle", choice["idle"]),
        None if choice["larger"] is None else size_bytes("--larger", choice["larger"]),
    )


def refuse_empty(said: Mapping[str, Any], but: Sequence[str] = ()) -> None:
    """Raise UsageError for an option whose value is empty: a variable that is not set must not take a guard away."""
    for key, value in said.items():
        if key not in but and (value == "" or (isinstance(value, list) and "" in value)):
            raise UsageError(f"--{key.replace('_', '-')} is empty", hint="is a variable of the script unset?")


def size_bytes(option: str, text: str) -> int:
    """Bytes of a size given as an option. Raises UsageError."""
    from perfctl.config.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f'{option} "{text}": {error}') from None


def _family(session: Session, name: str) -> bytes:
    """Its name with what the application's keys begin with."""
    if not name:
        raise Refused("the family is empty: it names no key")
    prefix = session.target.cache.prefix if session.target.cache else ""
    return os.fsencode(name if name.startswith(prefix) else prefix + name)


def _ids(values: Sequence[str]) -> list[bytes]:
    if not all(values):
        raise Refused("an --id is empty: it would stand for every one", hint="is a variable of the script unset?")
    return [os.fsencode(each) for each in values]


def _ttl(text: str) -> Ttl:
    from perfctl.cache.model import Ttl
    from perfctl.config.units import parse_duration

    if text == "none":
        return Ttl(none=True)
    least, dots, most = text.partition("..")
    try:
        if not dots or not (least or most):
            raise ValueError("expected ..5m, 1h.., 5m..1h, or none")
        found = Ttl(
            round(parse_duration(least) * 1000) if least else 0, round(parse_duration(most) * 1000) if most else None
        )
        if found.most_ms is not None and found.least_ms > found.most_ms:
            raise ValueError("its ends are the wrong way round")
    except ValueError as error:
        raise UsageError(f'--ttl "{text}": {error}') from None
    return found
