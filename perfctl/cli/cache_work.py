"""The look that the cache commands share, and `cache keys`. Loaded only when a command runs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from perfctl.cache import items, observe
from perfctl.cache.model import Look, Question
from perfctl.cli.cache_progress import Progress
from perfctl.cli.session import Session
from perfctl.errors import CommandFailed, UsageError
from perfctl.report import Item, Report
from perfctl.servers.deployment import Deployment

#: numbers of other databases that are told
_DATABASES = 8

#: a longer name moves what stands beside it
_NAME = 40


def keys(session: Session, asked: Question, *, depth: int | None, top: int) -> Report:
    """Look at every matching key, and tell."""
    deployment = session.cache()
    notes = [server(deployment)]
    if primary := deployment.primary_of_a_replica:
        notes.append(f"a replica, which may be behind; its primary is {primary}")
    prefix = session.target.cache.prefix if session.target.cache else ""
    if prefix and not asked.pattern.startswith(os.fsencode(prefix)):
        notes.append(f'the pattern reaches beyond the application\'s own keys, which begin with "{prefix}"')
    seen = look(session, deployment, asked)
    notes += elsewhere(deployment, asked)
    return session.report(items.keys(seen, asked, depth=depth, top=top), notes=notes)


def look(session: Session, deployment: Deployment, asked: Question) -> Look:
    """Every matching key counted, with a line that tells how far it is."""
    try:
        with Progress(session) as progress:
            return observe.look(deployment, asked, progress.looking)
    except CommandFailed as error:
        if asked.type and "unknown type" in error.message:
            raise UsageError(f'the server knows no type "{asked.type}"') from error
        raise


def elsewhere(deployment: Deployment, asked: Question) -> list[str]:
    """What to know of databases beside this one: the wrong number in an address is easily made."""
    found = observe.other_databases(deployment, asked)
    if not found:
        return []
    some = ", ".join(map(str, found[:_DATABASES])) + (" and others" if len(found) > _DATABASES else "")
    return [f"other databases have keys that match too, which are not looked at and stay: {some}"]


def server(deployment: Deployment) -> str:
    """What stands behind the target's address, in a line."""
    kind = "" if deployment.kind == "standalone" else f", {deployment.kind}"
    return f"{deployment.version}, {deployment.node.address}, database {deployment.seeds.login.db}{kind}"


def columns(found: Sequence[Item]) -> str:
    """Items as lines to be read before a question: names, and beside them what there is to know."""
    width = min(_NAME, max((len(item.name) for item in found), default=0))
    lines = []
    for item in found:
        remedy = [f"= {item.remedy}"] if item.remedy else []
        first, *rest = [*item.detail.splitlines(), *remedy]
        lines += [f"  {item.name:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in rest)]
    return "\n".join(lines)
