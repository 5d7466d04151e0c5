"""Commands for single keys, sent to whoever has the key: in a cluster that may be somebody else by now."""

from __future__ import annotations

import time
from collections.abc import Sequence

from perfctl.errors import CommandFailed, Unreachable
from perfctl.servers.deployment import Deployment
from perfctl.servers.redis import Address, Node, Reply, Word

#: How often a key is followed; one that is on its way is in two places for a moment.
_TRIES = 50
_MOMENT_S = 0.02


class Router:
    """Follows MOVED and ASK, key by key. For one thread."""

    def __init__(self, deployment: Deployment, start: Address) -> None:
        self._deployment = deployment
        self._start = start
        self._nodes: dict[Address, Node] = {}

    def call(self, *words: Word) -> Reply:
        """The reply of the node that has the key; after a failover, of the one that has it now. Raises as Node.call."""
        try:
            return self._follow(words)
        except Unreachable:
            self.close()
            self._nodes.clear()
            self._start = self._deployment.primaries()[0].address
            return self._follow(words)

    def calls(self, address: Address, commands: Sequence[Sequence[Word]]) -> list[Reply]:
        """The replies of one node to commands sent together, a refused one as its error. Raises Unreachable."""
        return self._node(address).calls(commands)

    def _follow(self, words: Sequence[Word]) -> Reply:
        address, asking = self._start, False
        for _ in range(_TRIES):
            node = self._node(address)
            commands: list[Sequence[Word]] = [("ASKING",), words] if asking else [words]
            reply = node.calls(commands)[-1]
            if not isinstance(reply, CommandFailed):
                if isinstance(reply, Exception):
                    raise reply
                return reply
            if reply.code not in ("MOVED", "ASK", "TRYAGAIN"):
                raise reply
            if reply.code == "TRYAGAIN":
                time.sleep(_MOMENT_S)
                continue
            address, asking = told(reply, address), reply.code == "ASK"
        raise Unreachable(f"a key of the cluster was followed {_TRIES} times and not found: its slot keeps moving")

    def close(self) -> None:
        """Close its connections."""
        for node in self._nodes.values():
            node.close()

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._deployment.open(address)
        return self._nodes[address]


def told(reply: CommandFailed, asked: Address) -> Address:
    """Where MOVED or ASK sends to: "UNLINK: MOVED 93 10.0.0.2:7001"; no host means the same one."""
    host, _, port = reply.message.rsplit(" ", 1)[-1].rpartition(":")
    return Address(host or asked.host, int(port))
