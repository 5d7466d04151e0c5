"""The application that keeps working while indexes are built, in a process of its own.

In a thread of ours it would share Python's lock with the progress display, and its stalls would be ours.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from perfctl.errors import Unreachable

CLIENTS = 4
_READY_WITHIN_S = 30.0
_END_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the application's clients met."""

    clients: int
    requests: int
    failed: int
    longest_stall_ms: float
    duration_s: float
    #: what the first failures said
    errors: tuple[str, ...]


class Application:
    """A running load of small writes and reads; entered when every client has been served once."""

    def __init__(self, conninfo: Mapping[str, str], clients: int = CLIENTS) -> None:
        self._order = {"conninfo": dict(conninfo), "clients": clients}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfctl.demo.clients"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C at the terminal is for perfctl, which then ends its application in order.
            start_new_session=True,
        )
        try:
            self._send(json.dumps(self._order))
            if not self._said_ready(self._process):
                raise Unreachable("the demo's application did not start", hint=self._complaint(self._process))
        except BaseException:
            self._end()
            raise
        return self

    def stop(self) -> Traffic:
        """End it; what it met."""
        assert self._process is not None
        try:
            said, complaint = self._process.communicate(timeout=_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise Unreachable("the demo's application does not end") from None
        lines = said.splitlines()
        if self._process.returncode or not lines:
            raise Unreachable(f"the demo's application ended early: {complaint.strip()[-500:]}")
        facts = json.loads(lines[-1])
        return Traffic(**{**facts, "errors": tuple(facts["errors"])})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _send(self, line: str) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    @staticmethod
    def _said_ready(process: subprocess.Popen[str]) -> bool:
        assert process.stdout is not None
        heard, _, _ = select.select([process.stdout], [], [], _READY_WITHIN_S)
        return bool(heard) and process.stdout.readline().strip() == "ready"

    @staticmethod
    def _complaint(process: subprocess.Popen[str]) -> str | None:
        process.kill()
        stream: IO[str] | None = process.stderr
        return (stream.read().strip()[-500:] if stream else "") or None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:
                pass
            self._process = None
