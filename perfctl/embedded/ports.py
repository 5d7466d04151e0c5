"""Free ports of the loopback interface."""

from __future__ import annotations

import socket

#: How often another port is tried when somebody was faster.
PORT_TRIES = 5


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago; whoever uses it must be ready to lose the race."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
