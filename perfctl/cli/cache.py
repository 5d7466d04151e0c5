"""``perfctl cache``: stats, keys, flush, restore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from perfctl.cli.cache_options import CHOICE, FLUSH
from perfctl.cli.options import command
from perfctl.cli.session import Session
from perfctl.report import Report

app = typer.Typer(
    name="cache",
    help="See what a Redis or Valkey holds, and delete by pattern.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Pattern = Annotated[
    str | None, typer.Argument(metavar="[PATTERN]", help="As SCAN has it: *, ?, [a-c]; \\ takes its sense.")
]


@command(app, "stats", group="cache")
def stats(
    session: Session,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Families by so many parts; else all.")] = None,
    delimiter: Annotated[str, typer.Option("--delimiter", help="What stands between the parts of a key's name.")] = ":",
    top: Annotated[int, typer.Option("--top", min=1, help="Families shown, and largest keys.")] = 10,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="N", help="Keys that are looked at, else 10,000.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Look at all keys.")] = False,
    watch: Annotated[
        str | None, typer.Option("--watch", metavar="DURATION", help="Then a line each DURATION, as 2s.")
    ] = None,
    times: Annotated[int | None, typer.Option("--times", min=1, help="So many lines; else until Ctrl-C.")] = None,
) -> Report:
    """Hit ratio, memory, evictions, slow commands, and what the keys are, from a sample; changes nothing."""
    from perfctl.cli import cache_stats as work

    asked = work.wish(depth=depth, delimiter=delimiter, top=top, sample=sample, exact=exact, watch=watch, times=times)
    return work.run(session, asked)


@command(app, "keys", group="cache", bundle=("choice", CHOICE))
def keys(
    session: Session,
    choice: Mapping[str, Any],
    pattern: Pattern = None,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Families by so many parts; else all.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Families shown.")] = 20,
) -> Report:
    """What a pattern matches: how many keys, in which families, types, sizes, without TTL; changes nothing."""
    from perfctl.cli import cache_work as work
    from perfctl.cli.cache_question import question

    return work.keys(session, question(session, pattern, choice), depth=depth, top=top)


@command(app, "flush", group="cache", writes=True, bundle=("said", {**CHOICE, **FLUSH}))
def flush(session: Session, said: Mapping[str, Any], pattern: Pattern = None) -> Report:
    """Delete what a pattern matches, after a look at what that is; nobody is made to wait."""
    from perfctl.cli import cache_flush as work
    from perfctl.cli.cache_wish import wish

    return work.flush(session, wish(session, pattern, said))


@command(app, "restore", group="cache", writes=True)
def restore(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What cache flush --backup has written.")],
    overwrite: Annotated[
        bool, typer.Option("--replace", help="Also keys that are there again; else these stay.")
    ] = False,
    journal: Annotated[str | None, typer.Option("--journal", metavar="PATH", help="File of JSON lines.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although a flush holds the lock.")] = False,
) -> Report:
    """Bring back what a flush took away, from its backup; what has expired since or is there again is left."""
    from perfctl.cli import cache_restore as work

    return work.restore(session, file, overwrite=overwrite, journal=journal, force=force)
