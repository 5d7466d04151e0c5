"""``perfctl cache``: stats, keys, flush."""

from __future__ import annotations

from typing import Annotated

import typer

from perfctl.cli.options import command
from perfctl.cli.session import Session
from perfctl.report import Report

app = typer.Typer(
    name="cache",
    help="See what a Redis or Valkey holds, and delete by pattern.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="As SCAN has it: *, ?, [a-c]; \\ takes its sense.")]
Kind = Annotated[str | None, typer.Option("--type", help="Only keys of this type: string, hash, …")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="But not these (repeat).")]
Delimiter = Annotated[str, typer.Option("--delimiter", help="What stands between the parts of a key's name.")]


@command(app, "stats", group="cache")
def stats(
    session: Session,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Families by so many parts; else all.")] = None,
    delimiter: Annotated[str, typer.Option("--delimiter", help="What stands between the parts of a key's name.")] = ":",
    top: Annotated[int, typer.Option("--top", min=1, help="Families shown, and largest keys.")] = 10,
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="Keys that are looked at.")] = 10_000,
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


@command(app, "keys", group="cache")
def keys(
    session: Session,
    pattern: Pattern,
    kind: Kind = None,
    exclude: Exclude = None,
    delimiter: Delimiter = ":",
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Families by so many parts; else all.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Families shown.")] = 20,
) -> Report:
    """What a pattern matches: how many keys, in which families, types, sizes, without TTL; changes nothing."""
    from perfctl.cli import cache_work as work

    asked = work.question(pattern, kind=kind, exclude=exclude or (), delimiter=delimiter)
    return work.keys(session, asked, depth=depth, top=top)


@command(app, "flush", group="cache", writes=True)
def flush(
    session: Session,
    pattern: Pattern,
    kind: Kind = None,
    exclude: Exclude = None,
    delimiter: Delimiter = ":",
    persistent: Annotated[
        bool, typer.Option("--include-persistent", help="Keys without TTL, and lists, streams, sorted sets too.")
    ] = False,
    max_keys: Annotated[int | None, typer.Option("--max-keys", min=1, help="Refuse when more match.")] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=10, help="Keys a page, fixed; else about 500, by what a page takes.")
    ] = None,
    passes: Annotated[
        int, typer.Option("--passes", min=1, help="Walks over all keys: later ones find what came meanwhile.")
    ] = 2,
    rate: Annotated[int | None, typer.Option("--rate", min=1, help="At most so many keys a second.")] = None,
    max_latency: Annotated[
        str, typer.Option("--max-latency", metavar="DURATION", help="How much longer others may wait; 0s asks nobody.")
    ] = "2ms",
    journal: Annotated[str | None, typer.Option("--journal", metavar="PATH", help="File of JSON lines.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although another flush holds the lock.")] = False,
) -> Report:
    """Delete what a pattern matches, after a look at what that is; nobody is made to wait."""
    from perfctl.cli import cache_work as work

    asked = work.question(pattern, kind=kind, exclude=exclude or (), delimiter=delimiter)
    manner = work.manner(count=count, passes=passes, rate=rate, max_latency=max_latency)
    return work.flush(session, asked, work.Wish(manner, persistent, max_keys, journal, force))
