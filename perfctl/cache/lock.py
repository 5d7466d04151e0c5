"""One flush at a time: a key with an owner and a time to live, which a run that dies leaves to end by itself."""

from __future__ import annotations

import json
import os
import secrets
import threading
from contextlib import suppress

from perfctl.cache.owner import whoami
from perfctl.cache.route import Router
from perfctl.errors import Busy, CommandFailed, PerfctlError, Refused

KEY = b"perfctl:flush"
_TTL_MS = 60_000
_RENEW_EVERY_S = 10.0


class FlushLock:
    """Held from ``take`` to ``release``, and kept alive meanwhile by a thread of its own."""

    def __init__(self, router: Router, renew_every_s: float = _RENEW_EVERY_S) -> None:
        # While the lock is held only that thread uses it.
        self._router = router
        self._renew_every_s = renew_every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        #: somebody else has taken it by force, or after it was thought to be dead
        self.lost = False
        self._value = json.dumps({"owner": whoami(), "pid": os.getpid(), "token": secrets.token_hex(8)}).encode()

    def take(self, *, force: bool) -> None:
        """Raises Busy with the owner's name while another flush has it; ``force`` takes it all the same."""
        try:
            taken = self._set(force=force)
        except CommandFailed as error:
            if error.code != "OOM":
                raise
            if force:
                # A server without memory for a lock may still be emptied.
                return
            raise Refused(
                "the server is out of memory and takes no lock; nothing was changed",
                hint="--force goes on without it, when no other flush is under way",
            ) from error
        if not taken:
            raise Busy(
                f"another flush is under way, {self._owner()}; nothing was changed",
                hint="wait for it (a run that died is forgotten after a minute), or say --force",
            )
        self._thread = threading.Thread(target=self._keep, name="flush lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give it back, unless somebody has taken it by force."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        if self._router.call("GET", KEY) == self._value:
            self._router.call("UNLINK", KEY)

    def _set(self, *, force: bool) -> bool:
        words = ("SET", KEY, self._value, "PX", _TTL_MS)
        return self._router.call(*words, *(() if force else ("NX",))) is not None

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_every_s):
            # A server that is away is waited for by the walk, and asked again here.
            with suppress(PerfctlError):
                found = self._router.call("GET", KEY)
                if found == self._value:
                    self._router.call("PEXPIRE", KEY, _TTL_MS)
                elif found is not None or not self._set(force=False):
                    # Gone with a server that failed, it may be taken again; with another value it is another's.
                    self.lost = True
                    return

    def _owner(self) -> str:
        try:
            found = json.loads(self._router.call("GET", KEY) or b"")
            return f"by {found['owner']}, process {found['pid']}"
        except (ValueError, KeyError, TypeError):
            return "by somebody who left no name"
        except CommandFailed:
            return f"or the key {KEY.decode()} is of another type"
