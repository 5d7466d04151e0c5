"""One flush at a time: a key with an owner and a time to live, which a run that dies leaves to end by itself."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import time
from contextlib import suppress

from perfctl.cache.route import Router
from perfctl.errors import Busy, Unreachable

KEY = b"perfctl:flush"
_TTL_MS = 60_000
_RENEW_S = 15.0


class FlushLock:
    """Held from ``take`` to ``release``."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._renewed = 0.0
        self._value = json.dumps(
            {
                "owner": f"{getpass.getuser()}@{socket.gethostname()}",
                "pid": os.getpid(),
                "token": secrets.token_hex(8),
            }
        ).encode()

    def take(self, *, force: bool) -> None:
        """Raises Busy with the owner's name while another flush has it; ``force`` takes it all the same."""
        words = ("SET", KEY, self._value, "PX", _TTL_MS)
        if self._router.call(*words, *(() if force else ("NX",))) is None:
            raise Busy(
                f"another flush is under way, {_owner(self._router.call('GET', KEY))}; nothing was changed",
                hint="wait for it (a run that died is forgotten after a minute), or say --force",
            )
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Put its end off, now and then."""
        if time.monotonic() - self._renewed > _RENEW_S:
            # A server that is away is waited for by the walk; the lock has a minute.
            with suppress(Unreachable):
                self._router.call("PEXPIRE", KEY, _TTL_MS)
            self._renewed = time.monotonic()

    def release(self) -> None:
        """Give it back, unless somebody has taken it by force."""
        if self._router.call("GET", KEY) == self._value:
            self._router.call("UNLINK", KEY)


def _owner(value: bytes | None) -> str:
    try:
        found = json.loads(value or b"")
        return f"by {found['owner']}, process {found['pid']}"
    except (ValueError, KeyError, TypeError):
        return "by somebody who left no name"
