"""What PostgreSQL and Valkey have in common as servers of ours: start, stop, crash, removal, staying on."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from perfctl.embedded.account import Account
from perfctl.embedded.failures import GuardLost, NotStarted
from perfctl.embedded.guard import Guard, Launch
from perfctl.embedded.home import Home, kept_folder, new_folder
from perfctl.embedded.kept import Kept, kept_servers, remember
from perfctl.embedded.ports import PORT_TRIES, free_port
from perfctl.embedded.process import stop_process, wait_gone
from perfctl.errors import Refused, UsageError


class Server(ABC):
    """A server and its folder. As a context manager it is stopped, and the folder removed, at the end."""

    #: its name for people
    kind: ClassVar[str]
    #: signals that end it, each with the seconds that it is given; the last cannot be refused
    ending: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    #: what its log says when somebody was faster to take the port
    port_taken: ClassVar[str]
    #: the port without tcp, where it only names the socket
    fixed_port: ClassVar[int] = 0

    def __init__(self, home: Home, guard: Guard) -> None:
        self._home = home
        self._guard: Guard | None = guard
        self.port = self.fixed_port
        self.pid = 0

    @abstractmethod
    def _configure(self) -> None:
        """Write the configuration for ``self.port``."""

    @abstractmethod
    def _argv(self) -> tuple[str, ...]:
        """The command line."""

    @abstractmethod
    def _accepts(self) -> bool:
        """Whether it takes connections now."""

    @property
    def data_dir(self) -> Path:
        """The folder that it keeps its data in."""
        return self._home.data_dir

    @property
    def socket_dir(self) -> Path:
        """The folder of its unix socket."""
        return self._home.socket_dir

    @property
    def password(self) -> str | None:
        """The password that it asks for, None when it asks for none."""
        return self._home.password

    @property
    def running(self) -> bool:
        """Whether a process of it is there."""
        return not self._gone(0.001)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        return "\n".join(self._log().splitlines()[-lines:])

    def start(self, timeout_s: float = 60.0) -> None:
        """Start, or start again on the same data; returns when connections are taken. Raises NotStarted."""
        if self.running:
            return
        if self._guard is None:
            raise NotStarted(f"{self.kind} has no guard any more and is not started again")
        for _ in range(PORT_TRIES if self._home.tcp else 1):
            began = len(self._log())
            self.port = free_port() if self._home.tcp else self.fixed_port
            self._configure()
            launch = Launch(self._argv(), self._home.folder, self._home.log, self._home.account, self.ending)
            self.pid = self._guard.start(launch)
            if self._wait_until_ready(self._guard, timeout_s):
                return
            if self.port_taken not in self._log()[began:]:
                break
        code = self._guard.exit_code
        self.kill()
        how = f"within {timeout_s:g} s" if code is None else f"(exit code {code})"
        raise NotStarted(f"{self.kind} did not start {how}", log_tail=self.log_tail())

    def kill(self, timeout_s: float = 60.0) -> None:
        """Crash it with SIGKILL; returns when what it had forked, and then ends by itself, is gone too.

        Of a server that was left running, only the process itself is waited for.
        """
        self._signal(signal.SIGKILL, timeout_s)

    def remove(self) -> None:
        """Stop it and remove its folder. May be called again."""
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        # The guard has done both, unless it was left behind on purpose or was killed.
        stop_process(self.pid, self.data_dir, self.ending)
        for folder in self._home.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def leave_running(self, base_dir: Path) -> None:
        """Let it live on after this process, and write that down in ``base_dir`` for ``stop_kept``."""
        if self._guard is None:
            return
        stop = tuple((int(signum), seconds) for signum, seconds in self.ending)
        remember(base_dir, Kept(self.kind, self.pid, self.data_dir, stop, self._home.folders))
        self._guard.release()
        self._guard = None

    def _log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._home.log.read_text(errors="replace")
        return ""

    def _signal(self, signum: signal.Signals, timeout_s: float) -> None:
        """Send a signal that ends it and wait; nothing happens when it has ended. Raises Refused."""
        if self._gone(0.001):
            return
        if self._guard is None:
            gone = stop_process(self.pid, self.data_dir, ((signum, timeout_s),))
        else:
            self._guard.signal(signum)
            gone = self._gone(timeout_s)
        if not gone:
            raise Refused(f"{self.kind} (process {self.pid}) did not stop within {timeout_s:g} s")

    def _gone(self, timeout_s: float) -> bool:
        if self._guard is not None:
            try:
                return self._guard.ended(timeout_s)
            except GuardLost:
                self._guard.close()
                self._guard = None
        return wait_gone(self.pid, self.data_dir, timeout_s)

    def _wait_until_ready(self, guard: Guard, timeout_s: float) -> bool:
        """False when it ended, or took longer."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._accepts():
                return True
            # This waits for news of the server's end, and is the pause between two looks as well.
            if guard.ended(0.01):
                return False
        return False


def open_folder(kind: str, account: Account, base_dir: Path | None, keep: bool) -> Path:
    """The folder for a new server: a throw-away one or, with ``keep``, the one of this kind in ``base_dir``.

    Raises UsageError when the account cannot use it, Refused when a kept server runs there.
    """
    if not keep:
        return new_folder(account, base_dir)
    if base_dir is None:
        raise UsageError(f"a {kind} that is kept needs a folder")
    if any(kept.running for kept in kept_servers(base_dir) if kept.kind == kind):
        raise Refused(f'a {kind} runs in "{base_dir}" already', hint=f"perfctl demo down {shlex.quote(str(base_dir))}")
    return kept_folder(account, base_dir, kind.lower())


@contextlib.contextmanager
def guarded(folder: Path, throw_away: bool) -> Iterator[Guard]:
    """A guard for a server that is being started: when that fails, the guard ends and cleans up."""
    guard = Guard([folder] if throw_away else [])
    try:
        yield guard
    except BaseException:
        guard.close()
        raise
