"""How long a server lets others wait: a connection of its own that does nothing but ask."""

from __future__ import annotations

import threading
import time
from collections import deque

from perfctl.errors import PerfctlError
from perfctl.servers.redis import Node

_EVERY_S = 0.02
_WINDOW = 50
_IDLE_ASKED = 40


class Probe:
    """Asks again and again in a thread, until it is closed or the server is gone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._ended = threading.Event()
        #: how long answers took before anything was done
        self.idle = [self._ask() for _ in range(_IDLE_ASKED)]
        self._thread = threading.Thread(target=self._run, name="latency probe", daemon=True)
        self._thread.start()

    def times(self) -> list[float]:
        """What the last answers took, in seconds."""
        return list(self._times)

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join()
        self._node.close()

    def _ask(self) -> float:
        began = time.perf_counter()
        self._node.call("PING")
        return time.perf_counter() - began

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            try:
                self._times.append(self._ask())
            except PerfctlError:
                # The walk hears of it on its own connection, and tells.
                return
