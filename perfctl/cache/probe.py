"""How long a server lets others wait: a connection of its own that does nothing but ask."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

from perfctl.errors import PerfctlError
from perfctl.servers.deployment import info
from perfctl.servers.redis import Node

#: A replica that is further behind is waited for; servers cut one off in the end (client-output-buffer-limit).
LAG_BYTES = 8 * 1024**2

_EVERY_S = 0.02
#: Replicas are asked after once in so many times.
_REPLICAS_EVERY = 10
_WINDOW = 50
_IDLE_ASKED = 40


class Probe:
    """Asks again and again in a thread, until it is closed or the server is gone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._ended = threading.Event()
        #: how much of the stream of changes the replica that is furthest behind has not got yet
        self.lag_bytes = 0
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
        asked = 0
        while not self._ended.wait(_EVERY_S):
            try:
                self._times.append(self._ask())
                asked += 1
                if asked % _REPLICAS_EVERY == 0:
                    self.lag_bytes = lag_bytes(info(self._node, "replication"))
            except PerfctlError:
                # The walk hears of it on its own connection, and tells.
                return


def lag_bytes(replication: Mapping[str, str]) -> int:
    """How far the slowest replica that is connected is behind, from INFO's section of that name."""
    here = int(replication.get("master_repl_offset", 0))
    replicas = [
        dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
        for name, value in replication.items()
        if name.startswith("slave") and name[5:].isdigit()
    ]
    return max((here - int(each["offset"]) for each in replicas if each.get("state") == "online"), default=0)
