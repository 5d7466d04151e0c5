"""Stands between perfctl and a server: starts it, and ends it when perfctl is gone, however it went.

Run as a program of its own with a socket to perfctl as standard input; it imports nothing of perfctl,
so that it starts in a few milliseconds. The first line is an object: ``owner`` (perfctl's process),
``folders`` (to remove at the end). Then each line is an object with ``do``:

- ``start``: argv, cwd, log, env, as_user (arguments of Popen), stop ([[signal, seconds], …]) → ``pid`` or ``error``
- ``signal``: signum
- ``folder``: folder, one more to remove at the end
- ``release``: leave the server and the folders as they are, and end

``exit`` is sent when the server and everything that it had forked are gone. At the end of the input,
which comes also when perfctl is killed by SIGKILL, the server is stopped and the folders are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from types import FrameType
from typing import Any


class _Gone(Exception):
    """the owner is gone, or we were told to end"""


class _Guardian:
    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.received = b""
        self.server: subprocess.Popen[bytes] | None = None
        self.lifeline = -1
        self.owner_handle = -1
        self.stop: list[tuple[int, float]] = []
        first = self._next()
        self.owner: int = first["owner"]
        self.folders: list[str] = first["folders"]
        self.owner_handle = self._watch_owner()

    def _watch_owner(self) -> int:
        """A handle that becomes readable when the owner ends.

        The socket alone would not do: a child that the owner had forked without exec holds it open.
        """
        if not hasattr(os, "pidfd_open"):
            return -1
        try:
            return os.pidfd_open(self.owner)
        except OSError:
            return -1

    def serve(self) -> None:
        """Obey until released; always leave nothing behind otherwise."""
        released = False
        try:
            while not released:
                order = self._next()
                if order["do"] == "start":
                    self._start(order)
                elif order["do"] == "signal" and self.server is not None:
                    self.server.send_signal(order["signum"])
                elif order["do"] == "folder":
                    self.folders.append(order["folder"])
                released = order["do"] == "release"
        except _Gone:
            pass
        finally:
            if not released:
                self._end()

    def _next(self) -> Any:
        """The next order. Raises _Gone at the end of the input."""
        while b"\n" not in self.received:
            others = [handle for handle in (self.lifeline, self.owner_handle) if handle >= 0]
            watched: list[socket.socket | int] = [self.line, *others]
            ready = select.select(watched, [], [])[0]
            if self.lifeline in ready:
                self._say(exit=self._reap())
            if self.line in ready:
                chunk = self.line.recv(65536)
                if not chunk:
                    raise _Gone
                self.received += chunk
            elif self.owner_handle in ready:
                raise _Gone
        text, _, self.received = self.received.partition(b"\n")
        return json.loads(text)

    def _start(self, order: dict[str, Any]) -> None:
        self.stop = order["stop"]
        # Every process that the server forks inherits the write end, so that the end of the pipe
        # is the moment when the last of them is gone; a process list could miss a young one.
        self.lifeline, held = os.pipe()
        try:
            with open(order["log"], "ab") as log:  # noqa: PTH123 - pathlib costs start-up time here
                self.server = subprocess.Popen(
                    order["argv"],
                    cwd=order["cwd"],
                    env=order["env"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(held,),
                    umask=0o077,
                    **order["as_user"],
                )
        except (OSError, subprocess.SubprocessError) as error:
            os.close(self.lifeline)
            self.lifeline = -1
            self._say(error=str(error))
        else:
            self._say(pid=self.server.pid)
        finally:
            os.close(held)

    def _reap(self) -> int:
        os.close(self.lifeline)
        self.lifeline = -1
        assert self.server is not None
        code = self.server.wait()
        self.server = None
        return code

    def _end(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.lifeline >= 0 and self.server is not None:
            for signum, seconds in self.stop:
                self.server.send_signal(signum)
                if select.select([self.lifeline], [], [], seconds)[0]:
                    self._reap()
                    break
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _say(self, **facts: Any) -> None:
        with contextlib.suppress(OSError):
            self.line.sendall(json.dumps(facts).encode() + b"\n")


def _terminated(_signum: int, _frame: FrameType | None) -> None:
    raise _Gone


def main() -> None:
    """Serve one owner until it is gone."""
    # Handlers rather than SIG_IGN, which the server would inherit.
    signal.signal(signal.SIGINT, _terminated)
    signal.signal(signal.SIGTERM, _terminated)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as line, contextlib.suppress(_Gone):
        os.close(0)
        _Guardian(line).serve()


if __name__ == "__main__":
    main()
