"""A server that comes back at the port that it had, as a member of a cluster or of a set with sentinels has to."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from perfctl.embedded import ValkeyServer
from perfctl.embedded.account import server_account
from perfctl.embedded.guard import Guard
from perfctl.embedded.home import Home, socket_folder
from perfctl.embedded.relocate import program_usable_by
from perfctl.embedded.server import guarded, open_folder

#: A cluster's nodes talk to each other at the port and this.
BUS = 10_000
#: With the bus below Linux's ephemeral ports: no outgoing connection takes the port of a node that is down.
_PORTS = range(12_000, 22_000)


class Node(ValkeyServer):
    """A server whose port is chosen at the first start; its nodes.conf, where it has one, stays in its data folder."""

    _pinned = 0

    def start(self, timeout_s: float = 60.0) -> None:
        """Start, or start again at the same port."""
        super().start(timeout_s)
        self._pinned = self.port

    def _configure(self) -> None:
        self.port = self._pinned or _free_pair()
        super()._configure()


class Sentinel(Node):
    """A sentinel; what it is told by SENTINEL MONITOR and SET it writes into its own configuration."""

    def _argv(self) -> tuple[str, ...]:
        return (str(self.program), str(self._own_file), "--sentinel")

    def _configure(self) -> None:
        super()._configure()
        if not self._pinned:
            # It lies in the data folder, because a sentinel does not start where it cannot write.
            shutil.copyfile(self._home.folder / "valkey.conf", self._own_file)
            self._home.account.own(self._own_file)

    @property
    def _own_file(self) -> Path:
        return self.data_dir / "sentinel.conf"


def start_node(program: Path, settings: Mapping[str, str], password: str = "", kind: type[Node] = Node) -> Node:
    """A server that listens at a port of 127.0.0.1 and keeps it, started as start_valkey does."""
    account = server_account()
    folder = open_folder(kind.kind, account, None, False)
    with guarded(folder, throw_away=True) as guard:
        return _started(kind, program_usable_by(account, program), folder, guard, settings, password)


def _started(
    kind: type[Node], program: Path, folder: Path, guard: Guard, settings: Mapping[str, str], password: str
) -> Node:
    account = server_account()
    socket_dir = socket_folder(account, folder, "valkey.sock")
    if socket_dir.parent != folder:
        guard.remove_too(socket_dir)
    home = Home(account, folder, socket_dir, True, password)
    home.data_dir.mkdir(mode=0o700)
    account.own(home.data_dir)
    node = kind(program, home, guard, settings)
    node.start()
    return node


def _free_pair() -> int:
    """A port that was free a moment ago, as was the one for the bus that belongs to it."""
    while True:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + BUS))
            return port
