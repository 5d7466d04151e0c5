"""The commands, put together. Importing this loads Typer and no driver."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from types import FrameType

import typer

from perfctl.cli import verify
from perfctl.cli.session import stop_signals
from perfctl.errors import StopRequested

_EPILOG = (
    "Exit codes: 0 ok, 1 findings, 2 usage, 3 unreachable, 4 refused, 5 incomplete, 6 busy, 7 denied, 70 bug, "
    "129/130/143 stopped."
)

#: the nouns, in the order of the help; each is a module here with its commands in ``app``
GROUPS = ("indexes", "explain", "cache", "config", "demo")


def application(first: str | None = None) -> typer.Typer:
    """The commands; where ``first`` names a group of them, that group alone, for Typer takes its time over each."""
    app = typer.Typer(
        name="perfctl",
        help="Put indexes on a live PostgreSQL and take them off again; prove that they are there and right.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for group in [first] if first in GROUPS else GROUPS:
        app.add_typer(import_module(f"perfctl.cli.{group}").app)
    verify.add_to(app)
    app.callback()(_root)
    return app


def _root(
    version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit."),
) -> None:
    if version:
        from perfctl import __version__

        typer.echo(f"perfctl {__version__}")
        raise typer.Exit


def run(arguments: list[str]) -> None:
    """Parse and run; SIGINT, SIGTERM and SIGHUP reach the command as StopRequested."""
    signals = stop_signals()
    for signum in signals:
        signal.signal(signum, _stop)
    first = next((word for word in arguments if not word.startswith("-")), None)
    try:
        application(first)(arguments, prog_name="perfctl")
    except KeyboardInterrupt as stop:
        sys.exit(128 + (stop.signum if isinstance(stop, StopRequested) else signal.SIGINT))
    except BrokenPipeError:
        # The reader had enough (`| head`); the interpreter would complain while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    finally:
        # The exit code is settled: a signal that still comes while the interpreter ends must not replace it.
        for signum in signals:
            signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, _: FrameType | None) -> None:
    raise StopRequested(signum)
