"""What can go wrong with a server that perfctl starts itself."""

from __future__ import annotations

from perfctl.errors import Unreachable, UsageError


class MissingServer(UsageError):
    """no such server program is installed"""


class NotStarted(Unreachable):
    """the embedded server did not start"""

    def __init__(self, message: str = "", *, log_tail: str = "", hint: str | None = None) -> None:
        #: the last lines of the server's own log, where its reason is
        self.log_tail = log_tail
        text = message or str(NotStarted.__doc__)
        super().__init__("\n  ".join((text, *log_tail.splitlines())), hint=hint)


class GuardLost(Unreachable):
    """the process that guards the embedded server has ended"""
