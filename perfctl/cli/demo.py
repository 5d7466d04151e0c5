"""``perfctl demo``: the whole way on throw-away servers, or a folder with the same to play in."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfctl.cli.options import Options, command
from perfctl.cli.session import Session
from perfctl.errors import PerfctlError, UsageError, exit_code_of
from perfctl.report import Item, Report, Status

if TYPE_CHECKING:
    from perfctl.demo.screen import Screen

#: Below this, some tables are a few pages, and a seq scan is right where the demo promises an index.
SMALLEST = 0.05

app = typer.Typer(name="demo", no_args_is_help=False, rich_markup_mode=None)

Scale = Annotated[
    float, typer.Option("--scale", envvar="PERFCTL_SCALE", help=f"Times a million rows; at least {SMALLEST}.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR")]


@command(app, "", group="demo", server=False, config=False)
def show(session: Session, scale: Scale = 1.0) -> Report:
    """Watch 27 indexes go onto a live database and off again, on servers made for it and gone after it."""
    from perfctl.demo import show

    _check(scale)
    items: list[Item] = []
    return _told(session, items, lambda screen: show.run(screen, scale, items, lambda path: _Commands(session, path)))


@command(app, "up", group="demo", server=False, config=False)
def up(session: Session, folder: Folder, scale: Scale = 1.0) -> Report:
    """Start the servers with the data in DIR, to play with; they stay on."""
    from perfctl.demo import place

    _check(scale)
    items: list[Item] = []

    def tell(screen: Screen) -> None:
        dsn = place.up(folder, screen, scale, items)
        screen.title("")
        screen.title("Try next")
        for line, what in _next(folder, dsn):
            screen.say(f"{line:<26}# {what}")

    return _told(session, items, tell)


@command(app, "down", group="demo", server=False, config=False)
def down(session: Session, folder: Folder) -> Report:
    """End the servers in DIR, and remove what `up` made there; your own files stay."""
    from perfctl.demo import place

    ended = place.down(folder)
    items = [Item("server", kind, Status.CHANGED, "stopped, its data removed") for kind in ended.stopped]
    items.append(Item("file", str(folder), Status.CHANGED, f"{ended.removed} files removed"))
    items += [
        Item("file", str(folder / name), Status.SKIPPED, "stays: changed since, or not the demo's")
        for name in ended.left
    ]
    return session.report(items)


def _next(folder: Path, dsn: str) -> list[tuple[str, str]]:
    psql = [(f"psql {shlex.quote(dsn)}", "look for yourself")] if shutil.which("psql") else []
    return [
        (f"cd {shlex.quote(str(folder))}", "perfctl.yaml is here, and the SQL to change"),
        ("perfctl indexes plan", "what would be built, and why"),
        ("perfctl indexes apply", "build it; blocks nobody"),
        ("perfctl verify", "is everything there and right?"),
        ("perfctl indexes rollback", "take off what perfctl built"),
        *((f"{line}  ", what) for line, what in psql),
        (f"perfctl demo down {shlex.quote(str(folder.absolute()))}  ", "end it"),
    ]


class _Commands:
    """The commands of ``perfctl indexes`` themselves, in this process, on the demo's configuration."""

    def __init__(self, outer: Session, config: Path) -> None:
        given = outer.options
        self._options = Options(config=config, format=given.format, color=given.color, quiet=given.quiet, yes=True)

    def plan(self) -> Report:
        from perfctl.cli import indexes

        return self._run("plan", indexes.plan)

    def apply(self) -> Report:
        from perfctl.cli import indexes

        return self._run("apply", lambda session: indexes.apply(session, bounds={}))

    def verify(self, *, absent: bool) -> Report:
        from perfctl.cli import indexes

        return self._run("verify", lambda session: indexes.verify(session, absent=absent))

    def rollback(self) -> Report:
        from perfctl.cli import indexes

        return self._run("rollback", lambda session: indexes.rollback(session, bounds={}))

    def _run(self, name: str, body: Callable[[Session], Report]) -> Report:
        with closing(Session(f"indexes {name}", self._options)) as session:
            report = body(session)
        if report.error is not None:
            raise report.error
        return report


def _told(session: Session, items: list[Item], tell: Callable[[Screen], None]) -> Report:
    """Run what tells its story as it goes; the report holds what it came to, also when it was stopped."""
    try:
        with _own_servers_only():
            tell(_screen(session))
    except (PerfctlError, KeyboardInterrupt) as error:
        if exit_code_of(error) > 128:
            session.say("the demo's servers are stopped, and what it had made is removed")
        return session.report(items, error=error)
    return session.report(items)


def _screen(session: Session) -> Screen:
    from perfctl.demo.screen import Screen

    options = session.options
    session.told = options.format == "text"
    terminal = session.told and (sys.stdout.isatty() or options.color == "always")

    def busy(text: str) -> AbstractContextManager[object]:
        if not options.quiet and sys.stderr.isatty():
            return session.stderr().status(text)
        session.say(f"{text} …")
        return nullcontext()

    return Screen(session.stdout() if terminal else None, busy, silent=not session.told)


@contextmanager
def _own_servers_only() -> Iterator[None]:
    """Without the PG* variables, which are about other servers than the demo's."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(taken)


def _check(scale: float) -> None:
    if not (math.isfinite(scale) and SMALLEST <= scale <= 1000):
        raise UsageError(f"--scale {scale:g} is not between {SMALLEST} and 1000", hint="1 is a million rows, 258 MB")
