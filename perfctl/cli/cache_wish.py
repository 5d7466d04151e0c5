"""What a flush may do, and how: what its options come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perfctl.cache import decide
from perfctl.cache.backup import LARGEST_BYTES
from perfctl.cache.model import Manner, Question
from perfctl.cache.observe import COUNT
from perfctl.cli.cache_options import CHOICE
from perfctl.cli.cache_question import question, refuse_empty, size_bytes
from perfctl.cli.session import Session, duration_s
from perfctl.errors import UsageError


@dataclass(frozen=True, slots=True)
class Wish:
    """What a flush may do, and how."""

    asked: Question
    manner: Manner
    #: the whole database at once
    everything: bool = False
    persistent: bool = False
    max_keys: int | None = None
    plan: decide.Plan | None = None
    backup: Path | None = None
    journal: str | None = None
    force: bool = False


def wish(session: Session, pattern: str | None, said: Mapping[str, Any]) -> Wish:
    """What the command line says. Raises UsageError, Refused."""
    refuse_empty(said, but=("family", "id"))
    soft_s = duration_s("--soft", said["soft"])
    if soft_s is not None and soft_s < 0.001:
        raise UsageError("--soft of less than 1ms would be to delete them", hint="give it a span such as 30s")
    if soft_s is not None and (said["passes"] or 1) > 1:
        raise UsageError("--soft takes one pass: until they expire, keys are still there to be found")
    manner = Manner(
        said["count"] or COUNT,
        said["count"] is not None,
        1 if soft_s is not None else said["passes"] or 2,
        said["rate"],
        duration_s("--max-latency", said["max_latency"] or "2ms") or None,
        soft_s,
    )
    asked = _everything(pattern, said) if said["all"] else question(session, pattern, said)
    backup = Path(said["backup"]) if said["backup"] is not None else None
    largest = LARGEST_BYTES if backup else None
    if said["max_key_size"] is not None:
        largest = size_bytes("--max-key-size", said["max_key_size"])
    if backup is not None and backup.exists():
        raise UsageError(f'the backup "{backup}" is there already', hint="name another file")
    plan = decide.read_plan(said["plan"]) if said["plan"] is not None else None
    if said["plan"] is not None and plan is None:
        raise UsageError(f'--plan "{said["plan"]}" is no plan\'s id', hint="--dry-run gives one")
    return Wish(
        replace(asked, smaller_bytes=largest),
        manner,
        said["all"],
        said["include_persistent"],
        said["max_keys"],
        plan,
        backup,
        said["journal"],
        said["force"],
    )


def _everything(pattern: str | None, said: Mapping[str, Any]) -> Question:
    """All keys of a database, which FLUSHDB takes away without looking at any."""
    if pattern is not None:
        raise UsageError("--all and a pattern contradict each other", hint="leave one out")
    narrower = [key for key in CHOICE if said[key] not in (None, False) and key != "delimiter"]
    narrower += [key for key in ("soft", "backup", "max_key_size", "rate", "count", "passes") if said[key] is not None]
    if narrower:
        option = f"--{narrower[0].replace('_', '-')}"
        raise UsageError(f"--all empties the database at once; {option} takes a walk over its keys: say '*' for that")
    return Question(b"*")
