"""The composition root of one command: settings, servers, questions, and the report at the end."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from perfctl.cli.options import Options
from perfctl.errors import ConfigError, NotConfirmed, PerfctlError, UsageError, exit_code_of
from perfctl.report import Item, Report

if TYPE_CHECKING:
    from rich.console import Console

    from perfctl.config import Loaded, Target
    from perfctl.servers.deployment import Deployment
    from perfctl.servers.postgres import Postgres
    from perfctl.stop import Stop


class Session:
    """What a command body is given. Servers that it opens are closed when the command ends."""

    def __init__(self, command: str, options: Options) -> None:
        self.command = command
        self.options = options
        self.started_at = datetime.now(UTC)
        self._clock = time.monotonic()
        self._stack = ExitStack()
        self.target_name: str | None = options.target
        #: a pooler in the way was found to keep a session for each client
        self._pooled = False
        #: the body has said its result in words as it went; only the other forms are left to write
        self.told = False
        #: what ``--format json`` prints instead of the report, where the result has a form of its own
        self.own_json: str | None = None

    def close(self) -> None:
        """Close every server that was opened."""
        self._stack.close()

    def closed_at_the_end(self, close: Callable[[], None]) -> None:
        """Have something closed with the servers."""
        self._stack.callback(close)

    @cached_property
    def loaded(self) -> Loaded:
        """The configuration. Raises ConfigError."""
        from perfctl import config

        loaded = config.load(self.options.config, os.environ, Path.cwd())
        for warning in loaded.warnings:
            self.say(f"warning: {warning}")
        if self.options.verbose and loaded.path:
            self.say(f"configuration: {loaded.path}")
        return loaded

    @cached_property
    def target(self) -> Target:
        """The target that the command is about. Raises ConfigError."""
        target = self.loaded.target(self.options.target)
        self.target_name = target.name
        return target

    def postgres(self, *, bounded: bool = True) -> Postgres:
        """A session on the target's database; ``bounded`` looks are ended after ``--timeout``, others by no limit.

        Raises ConfigError, Unreachable, Denied, or Refused for a server that is too old or a transaction pooler.
        """
        from perfctl.servers import postgres

        pg = self._connect()
        if self.options.verbose:
            self.say(f"connected to {pg.label}")
        self._stack.callback(pg.close)
        postgres.refuse_old(pg)
        # Before the first SET, which a transaction pooler would hand on to other clients.
        self._pooled = postgres.own_session(pg, None if self._pooled else self._connect)
        if bounded:
            pg.setting("statement_timeout", f"{round((self.timeout_s or 60.0) * 1000)}ms")
        else:
            pg.lift_time_limits()
        return pg

    def _connect(self) -> Postgres:
        from perfctl.servers import postgres

        database = self.target.database
        if database is None:
            raise ConfigError(f'target "{self.target.name}" has no database', hint="add database: {dsn: …} to it")
        return postgres.connect(
            database.conninfo(),
            application=f"perfctl/{self.command}",
            connect_timeout_s=self.timeout_s or database.connect_timeout_s,
            trace=self._trace if self.options.verbose > 1 else None,
        )

    def cache(self) -> Deployment:
        """The target's Redis or Valkey. Raises ConfigError, Unreachable, Denied."""
        from perfctl.servers import deployment, redis

        cache = self.target.cache
        if cache is None:
            raise ConfigError(f'target "{self.target.name}" has no cache', hint="add cache: {url: …} to it")
        seeds = redis.read_address(
            cache.url.get_secret_value(), cache.password(), f"perfctl/{self.command}", self.timeout_s or 5.0
        )
        found = deployment.connect(seeds, self._trace if self.options.verbose > 1 else None)
        self._stack.callback(found.close)
        if self.options.verbose:
            self.say(f"connected to {found.node.address}")
        return found

    @contextmanager
    def gentle_stop(self) -> Iterator[Stop]:
        """While it lasts, a first signal is only noted, for the run to end in order; a second one ends it at once."""
        from perfctl.stop import Stop

        stop = Stop()
        if threading.current_thread() is not threading.main_thread():
            yield stop
            return

        def hear(signum: int, _: object) -> None:
            _let_go_of_a_closed_terminal()
            stop.heard(signum)

        before = {signum: signal.signal(signum, hear) for signum in stop_signals()}
        try:
            yield stop
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _trace(self, statement: str, seconds: float) -> None:
        lines = (line for line in statement.splitlines() if not line.lstrip().startswith("--"))
        self.say(f"{seconds * 1000:.1f} ms: {' '.join(' '.join(lines).split())}")

    @cached_property
    def timeout_s(self) -> float | None:
        """``--timeout`` in seconds, None when it was not given. Raises UsageError."""
        return duration_s("--timeout", self.options.timeout)

    def redact(self, text: str) -> str:
        """The text without any password that the configuration holds; a net under every message to a person."""
        if "loaded" not in self.__dict__:
            return text
        for secret in self.loaded.secrets():
            text = text.replace(secret, "***")
        return text

    def say(self, text: str) -> None:
        """A note for a person, on stderr; ``--quiet`` leaves it out."""
        if not self.options.quiet:
            from perfctl.render.plain import escape

            sys.stderr.write("\n".join(escape(line) for line in text.splitlines()) + "\n")

    def confirm(self, question: str, *, large: str = "") -> None:
        """Ask before something is changed. Raises NotConfirmed.

        A protected target wants its name, typed or by ``--confirm``: ``--yes`` alone does not open it. So does
        whatever is ``large`` in its consequence, which says why.
        """
        name = self.target.name
        if self.target.protected or large:
            self._confirm_by_name(question, name, large or f'target "{name}" is protected')
        elif self.options.yes or self.options.confirm == name:
            return
        elif not self.may_ask:
            raise NotConfirmed(f"{question} Not confirmed; nothing was changed", hint="say --yes (-y) to do it")
        elif self._ask(f"{question} [y/N] ").lower() not in ("y", "yes"):
            raise NotConfirmed

    def _confirm_by_name(self, question: str, name: str, why: str) -> None:
        if self.options.confirm is not None:
            if self.options.confirm != name:
                raise NotConfirmed(f'--confirm says "{self.options.confirm}", the target is "{name}"')
            return
        if not self.may_ask:
            raise NotConfirmed(f"{why}; nothing was changed", hint=f"say --confirm {name} to do it")
        if self._ask(f'{question}\n{why[0].upper()}{why[1:]}. Type "{name}" to go on: ') != name:
            raise NotConfirmed

    @property
    def may_ask(self) -> bool:
        """Whether somebody sits at a terminal to be asked."""
        return not self.options.no_input and sys.stdin is not None and sys.stdin.isatty()

    def _ask(self, question: str) -> str:
        from perfctl.render.plain import escape

        sys.stderr.write("\n".join(escape(line) for line in question.split("\n")))
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    @property
    def streams_events(self) -> bool:
        """True when every event goes to stdout as a line of JSON."""
        return self.options.format == "ndjson"

    def event(self, **facts: Any) -> None:
        """One line of JSON on stdout."""
        sys.stdout.write(json.dumps(facts, default=str) + "\n")
        sys.stdout.flush()

    def report(
        self,
        items: Iterable[Item],
        *,
        notes: Iterable[str] = (),
        dry_run: bool = False,
        check: bool = False,
        error: BaseException | None = None,
    ) -> Report:
        """The command's report, with the time that it took."""
        return Report(
            command=self.command,
            target=self.target_name,
            items=tuple(items),
            started_at=self.started_at,
            duration_s=time.monotonic() - self._clock,
            dry_run=dry_run,
            check=check,
            error=error,
            notes=tuple(notes),
        )

    def stderr(self) -> Console:
        """A Rich console on stderr that obeys ``--color`` and NO_COLOR."""
        return console(sys.stderr, self.options.color)

    def stdout(self) -> Console:
        """A Rich console on stdout that obeys ``--color`` and NO_COLOR."""
        return console(sys.stdout, self.options.color)


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a run to end in order: a terminal that is closed asks too, unless nohup holds it off."""
    signals = [signal.SIGINT, signal.SIGTERM]
    # Windows has none.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


def _let_go_of_a_closed_terminal() -> None:
    """What would be written to it goes nowhere: an error over that must not replace the run's own exit code."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError as error:
            # Any other is told where something is written.
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def console(stream: Any, color: str) -> Console:
    """A Rich console; colours only where the stream or ``--color`` says so."""
    from rich.console import Console

    return Console(
        file=stream,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=True if color == "always" else None,
        no_color=True if color == "never" else None,
    )


def duration_s(option: str, text: str | None) -> float | None:
    """Seconds of a duration given as an option; None when it was not. Raises UsageError."""
    if text is None:
        return None
    from perfctl.config.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise UsageError(
            f'{option} "{text}" is no duration', hint="durations carry a unit: 500ms, 3s, 15m, 2h"
        ) from None


def execute(command: str, options: Options, body: Callable[[Session], Report]) -> NoReturn:
    """Run a command's body, print its report, and end with the report's exit code."""
    session = Session(command, options)
    try:
        _check(options)
        report = body(session)
    except (PerfctlError, KeyboardInterrupt) as error:
        report = session.report((), error=error, dry_run=options.dry_run)
    except BrokenPipeError:
        _reader_left()
    except Exception as error:  # noqa: BLE001 - the one place where a bug is caught, to be reported
        report = session.report((), error=error, dry_run=options.dry_run)
    finally:
        session.close()
    try:
        with session.gentle_stop():
            # A reader of the report gets it whole; asked a second time, it ends without.
            _finish(session, report)
    except BrokenPipeError:
        _reader_left()
    except KeyboardInterrupt as again:
        raise typer.Exit(exit_code_of(again)) from None
    raise typer.Exit(report.exit_code)


def _reader_left() -> NoReturn:
    """End quietly: the reader had enough (`| head`). Typer would end with 1, which is for findings."""
    # The interpreter would complain when it flushes at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(128 + signal.SIGPIPE)


def _check(options: Options) -> None:
    from perfctl.render import FORMATS

    if options.format not in (*FORMATS, "ndjson"):
        raise UsageError(f'there is no format "{options.format}"', hint=f"known: {', '.join((*FORMATS, 'ndjson'))}")
    if options.color not in ("auto", "always", "never"):
        raise UsageError(f'--color "{options.color}" is none of auto, always, never')
    for report in options.report:
        kind, _, path = report.partition("=")
        if kind in FORMATS and path and not os.access(Path(path).parent, os.W_OK):
            raise UsageError(f'--report "{report}": its folder is not there, or not writable')
        if kind not in FORMATS or not path:
            raise UsageError(f'--report "{report}" is not KIND=PATH', hint=f"kinds: {', '.join(FORMATS)}")


def _finish(session: Session, report: Report) -> None:
    from perfctl.render import FORMATS, to_text

    options = session.options
    for wanted in options.report:
        kind, _, path = wanted.partition("=")
        if kind in FORMATS and path:
            _write(Path(path), to_text(report, kind))
    if options.format == "ndjson":
        from perfctl.render.json import as_dict

        session.event(event="report", **as_dict(report))
    elif options.format == "json" and session.own_json is not None and report.error is None:
        sys.stdout.write(session.own_json + "\n")
    elif options.format == "json":
        sys.stdout.write(to_text(report, "json"))
    elif not session.told and (report.items or report.notes or report.error is None):
        _print_text(session, report)
    sys.stdout.flush()
    if report.error is not None:
        _print_error(session, report)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f'error: report "{path}" cannot be written: {error.strerror}\n')


def _print_text(session: Session, report: Report) -> None:
    if sys.stdout.isatty():
        from perfctl.render import text

        text.render(report, session.stdout())
    else:
        from perfctl.render import plain

        sys.stdout.write(plain.render(report, colour=session.options.color == "always"))


def _print_error(session: Session, report: Report) -> None:
    from perfctl.render.plain import escape

    error = report.error
    assert error is not None
    red = _may_colour(session)
    label = "\x1b[1;31merror:\x1b[0m" if red else "error:"
    message = session.redact(report.error_message or "")
    # A message that starts with a place (file:line:column) already says "error:" where compilers do.
    first, *rest = message.splitlines() or [""]
    prefix = "" if ": error: " in first else f"{label} "
    lines = [prefix + escape(first), *(escape(line) for line in rest)]
    if report.error_hint:
        lines += [f"hint: {escape(line)}" for line in report.error_hint.splitlines()]
    sys.stderr.write("\n".join(lines) + "\n")
    if exit_code_of(error) == 70:
        sys.stderr.write(session.redact("".join(traceback.format_exception(error))))
        sys.stderr.write("please report this with the lines above; look them over before you do\n")


def _may_colour(session: Session) -> bool:
    if session.options.color != "auto":
        return session.options.color == "always"
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
