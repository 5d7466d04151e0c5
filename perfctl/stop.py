"""A signal as a request to end in order, and a second one as the wish to leave at once."""

from __future__ import annotations

import signal

from perfctl.errors import LeaveNow


class Stop:
    """Which signal has asked to stop, if any; called, it says so."""

    def __init__(self) -> None:
        self._signum: int | None = None
        #: True while work is under way that a second signal may interrupt. What comes after it, telling what was
        #: done, is short and must not be cut off.
        self.may_leave = False

    def __call__(self) -> int | None:
        """The number of the first signal; None while none has come."""
        return self._signum

    def heard(self, signum: int) -> None:
        """Take a signal. Raises LeaveNow for a second one while work may be left."""
        if self._signum is None:
            self._signum = signum
        # When a terminal is closed the kernel tells, and the shell tells its jobs: nobody is in more of a hurry.
        elif self.may_leave and signum != getattr(signal, "SIGHUP", None):
            raise LeaveNow(signum)
