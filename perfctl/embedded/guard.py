"""Our end of the line to the guardian process, through which a server is started, signalled and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfctl.embedded.account import Account, server_environment
from perfctl.embedded.failures import GuardLost, NotStarted

_GUARDIAN = Path(__file__).with_name("guardian.py")
_END_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started, and the signals that end it with the seconds that each is given."""

    argv: Sequence[str]
    cwd: Path
    log: Path
    account: Account
    stop: tuple[tuple[signal.Signals, float], ...]

    def as_order(self) -> dict[str, Any]:
        """The guardian's ``start`` order."""
        return {
            "do": "start",
            "argv": list(self.argv),
            "cwd": str(self.cwd),
            "log": str(self.log),
            "env": server_environment(),
            "as_user": self.account.as_user(),
            "stop": self.stop,
        }


class Guard:
    """Keeps folders, and at most one server at a time, no longer than this process lives."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARDIAN)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # A session of its own: Ctrl-C at the terminal must not reach it, nor the server.
                start_new_session=True,
            )
        self._received = b""
        self._exit: int | None = 0
        self._send({"owner": os.getpid(), "folders": [str(folder) for folder in folders]})

    def start(self, launch: Launch, timeout_s: float = 10.0) -> int:
        """Start the server; its process id. Raises NotStarted when the program cannot be run."""
        self._send(launch.as_order())
        answer = self._receive(timeout_s)
        if answer is None or "pid" not in answer:
            reason = (answer or {}).get("error", "no answer")
            raise NotStarted(f'"{launch.argv[0]}" could not be started: {reason}')
        self._exit = None
        return int(answer["pid"])

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the server; nothing happens when it has ended."""
        self._send({"do": "signal", "signum": signum})

    def ended(self, timeout_s: float) -> bool:
        """Wait until the server and all that it forked are gone; False when that takes longer."""
        deadline = time.monotonic() + timeout_s
        while self._exit is None:
            answer = self._receive(max(deadline - time.monotonic(), 0.001))
            if answer is None:
                return False
            self._exit = answer.get("exit", self._exit)
        return True

    def remove_too(self, folder: Path) -> None:
        """Remove one more folder at the end."""
        self._send({"do": "folder", "folder": str(folder)})

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last server, negative for a signal; None while it runs."""
        return self._exit

    def release(self) -> None:
        """Let the server live on without us, and its folders with it."""
        self._send({"do": "release"})
        self._leave()

    def close(self) -> None:
        """End the server, remove the folders; returns when that is done. May be called again."""
        self._leave()

    def _leave(self) -> None:
        self._line.close()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, order: Mapping[str, Any]) -> None:
        try:
            self._line.sendall(json.dumps(order).encode() + b"\n")
        except OSError as error:
            raise GuardLost() from error

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next answer, None when none came in time. Raises GuardLost."""
        while b"\n" not in self._received:
            try:
                self._line.settimeout(timeout_s)
                chunk = self._line.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise GuardLost() from error
            if not chunk:
                raise GuardLost()
            self._received += chunk
        text, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(text)
        return answer
