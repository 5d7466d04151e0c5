"""Everything that can end a command, by cause, with the exit code that an operator reads first.

A class is a cause; its docstring is the message when none is given; ``hint`` is the cure, as a
command where there is one. The exit code answers two questions: did it touch anything, and is it
worth trying again?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

EXIT_NAMES: dict[int, str] = {
    0: "ok",
    1: "findings",
    2: "usage",
    3: "unreachable",
    4: "refused",
    5: "incomplete",
    6: "busy",
    7: "denied",
    70: "bug",
    129: "stopped",
    130: "stopped",
    143: "stopped",
}

#: Of several outcomes, the one that a person has to hear about first.
WORST_FIRST: tuple[int, ...] = (70, 143, 130, 129, 5, 4, 7, 3, 6, 2, 1, 0)


def worst(codes: Sequence[int]) -> int:
    """The exit code that stands for all of them; 0 for none."""
    return min(codes, key=WORST_FIRST.index, default=0)


class PerfctlError(Exception):
    """something went wrong"""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)


class UsageError(PerfctlError):
    """the command line does not make sense"""

    exit_code = 2


class ConfigError(PerfctlError):
    """the configuration is not usable"""

    exit_code = 2


class MigrationError(PerfctlError):
    """the migration file is not usable"""

    exit_code = 2


class Unreachable(PerfctlError):
    """the server does not answer"""

    exit_code = 3


class ConnectionLost(Unreachable):
    """the connection was lost"""


class NoAnswer(Unreachable):
    """the server did not answer in time"""


class Cancelled(NoAnswer):
    """somebody cancelled it on the server"""


class Refused(PerfctlError):
    """refused; nothing was changed"""

    exit_code = 4


class NotConfirmed(Refused):
    """not confirmed; nothing was changed"""


class PlanMoved(Refused):
    """the database is no longer what the plan was made for; nothing was changed"""

    def __init__(self, differences: Sequence[str], *, hint: str | None = None) -> None:
        self.differences = tuple(differences)
        super().__init__("\n  ".join((str(PlanMoved.__doc__), *differences)), hint=hint)


class Incomplete(PerfctlError):
    """stopped part-way; what was done is in the journal"""

    exit_code = 5


class Busy(PerfctlError):
    """a lock was not obtained in time; nothing was changed"""

    exit_code = 6


class Denied(PerfctlError):
    """the server does not allow it"""

    exit_code = 7


class Interrupted(PerfctlError):
    """stopped by a signal; cleaned up as the journal says"""

    def __init__(self, signum: int, message: str = "", *, hint: str | None = None) -> None:
        self.signum = signum
        super().__init__(message, hint=hint)

    @property
    def code(self) -> int:
        """128 + the signal's number: 129 for SIGHUP, 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class StopRequested(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP arrived; a KeyboardInterrupt, so that the driver cancels what it waits for."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


class LeaveNow(StopRequested):
    """A second signal: clean nothing up, end at once."""


class StatementFailed(PerfctlError):
    """the server refused a statement"""

    def __init__(
        self,
        message: str = "",
        *,
        sqlstate: str | None = None,
        detail: str | None = None,
        position: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate
        self.detail = detail
        #: 1-based character in the statement that was sent, as the server counts it
        self.position = position


class CommandFailed(PerfctlError):
    """the server refused a command"""

    # Where something was changed before, Incomplete says so in its place.
    exit_code = 4

    def __init__(self, message: str = "", *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        #: the first word of the server's reply: MOVED, ASK, READONLY, OOM, ERR …
        self.code = code


class BadQuery(PerfctlError):
    """a query that has no plan as it is written"""

    exit_code = 2

    def __init__(self, message: str = "", *, file: str, line: int, hint: str | None = None) -> None:
        super().__init__(f"{file}:{line}: {message}", hint=hint)
        self.file = file
        self.line = line


def exit_code_of(error: BaseException) -> int:
    """The exit code that an exception stands for; 70 for whatever perfctl did not foresee."""
    if isinstance(error, Interrupted):
        return error.code
    if isinstance(error, PerfctlError):
        return error.exit_code
    if isinstance(error, StopRequested):
        return 128 + error.signum
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 70
