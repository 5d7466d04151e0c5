"""Valkeys that belong together: three primaries with a replica each as a cluster; a primary that Sentinels watch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from perfctl.embedded import ValkeyServer, find_valkey, start_valkey
from perfctl.embedded.ports import free_port
from tests.fix_perfctl import until

SERVICE = "reviews"
_PRIMARIES = 3
_SLOTS = 16384


def _client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, protocol=2)


@dataclass(frozen=True, slots=True)
class ValkeyCluster:
    """Three primaries, and behind them a replica for each."""

    servers: tuple[ValkeyServer, ...]

    @property
    def url(self) -> str:
        """For perfctl: one of the nodes, and not one that a test kills."""
        return self.servers[-1].url

    @property
    def primaries(self) -> tuple[ValkeyServer, ...]:
        """Those that began with slots."""
        return self.servers[:_PRIMARIES]

    def connect(self) -> redis.RedisCluster:
        """A client of the whole; the caller closes it."""
        return redis.RedisCluster.from_url(self.url, protocol=2)

    def send(self, server: ValkeyServer, *words: str | int | bytes) -> object:
        """One command to one node."""
        with _client(server) as client:
            return client.execute_command(*words)

    def node_id(self, server: ValkeyServer) -> str:
        """What the cluster calls a node."""
        found = self.send(server, "CLUSTER", "MYID")
        assert isinstance(found, bytes)
        return found.decode()

    def keys(self) -> set[bytes]:
        """Every key on every primary that answers."""
        found: set[bytes] = set()
        for server in self.servers:
            with contextlib.suppress(redis.ConnectionError), _client(server) as client:
                if client.info("replication")["role"] == "master":
                    found |= set(client.keys())
        return found

    def open_slot(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        """Begin to move a slot."""
        self.send(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.node_id(source))
        self.send(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.node_id(target))

    def move_keys(self, slot: int, source: ValkeyServer, target: ValkeyServer, count: int) -> None:
        """Move some keys of an open slot."""
        with _client(source) as client:
            keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, count)
            if keys:
                client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def close_slot(self, slot: int, target: ValkeyServer) -> None:
        """Give an open slot to its new owner."""
        name = self.node_id(target)
        for server in (target, *(each for each in self.primaries if each is not target)):
            self.send(server, "CLUSTER", "SETSLOT", slot, "NODE", name)


def _is_ok(server: ValkeyServer, nodes: int) -> bool:
    with _client(server) as client:
        said = _text(client.execute_command("CLUSTER", "INFO")).split()
        return {"cluster_state:ok", f"cluster_known_nodes:{nodes}"} <= set(said)


@pytest.fixture
def valkey_cluster() -> Iterator[ValkeyCluster]:
    """A fresh cluster: tests of it kill nodes and move slots."""
    with contextlib.ExitStack() as stack:
        servers = tuple(
            stack.enter_context(
                start_valkey(
                    tcp=True,
                    password="",
                    settings={
                        "cluster-enabled": "yes",
                        "cluster-port": str(free_port()),
                        "cluster-node-timeout": "1000",
                        "repl-diskless-sync-delay": "0",
                    },
                )
            )
            for _ in range(2 * _PRIMARIES)
        )
        found = ValkeyCluster(servers)
        first = servers[0]
        for number, server in enumerate(found.primaries):
            low, high = number * _SLOTS // _PRIMARIES, (number + 1) * _SLOTS // _PRIMARIES - 1
            found.send(server, "CLUSTER", "ADDSLOTSRANGE", low, high)
            found.send(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with _client(first) as client:
            for server in servers[1:]:
                port = _cluster_port(server)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, port)
        until(lambda: all(_is_ok(server, len(servers)) for server in servers))
        for number, server in enumerate(servers[_PRIMARIES:]):
            found.send(server, "CLUSTER", "REPLICATE", found.node_id(servers[number]))
        until(lambda: all(_link(server) == "up" for server in servers[_PRIMARIES:]))
        yield found


def _cluster_port(server: ValkeyServer) -> int:
    with _client(server) as client:
        return int(client.config_get("cluster-port")["cluster-port"])


def _link(server: ValkeyServer) -> str:
    with _client(server) as client:
        return str(client.info("replication").get("master_link_status"))


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary and its replica, watched by three Sentinels."""

    primary: ValkeyServer
    replica: ValkeyServer
    sentinels: tuple[ValkeyServer, ...]

    @property
    def url(self) -> str:
        """For perfctl."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"


@pytest.fixture
def watched_valkey(tmp_path: Path) -> Iterator[Watched]:
    """A fresh set: tests of it kill the primary."""
    program = tmp_path / "sentinel"
    # Sentinel is a mode of the server's program, said behind the name of its configuration, which it writes to.
    lines = ("#!/bin/sh", 'own="$(dirname "$1")/data/sentinel.conf"', 'cp "$1" "$own"')
    program.write_text("\n".join((*lines, f'exec "{find_valkey()}" "$own" --sentinel\n')))
    program.chmod(0o755)
    with contextlib.ExitStack() as stack:
        settings = {"repl-diskless-sync-delay": "0"}
        primary = stack.enter_context(start_valkey(tcp=True, password="", settings=settings))
        replica = stack.enter_context(start_valkey(tcp=True, password="", settings=settings))
        with _client(replica) as client:
            client.replicaof("127.0.0.1", primary.port)
        until(lambda: _link(replica) == "up")
        sentinels = tuple(stack.enter_context(start_valkey(tcp=True, password="", binary=program)) for _ in range(3))
        for sentinel in sentinels:
            with _client(sentinel) as client:
                client.execute_command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", primary.port, 2)
                client.execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", 500)
                client.execute_command("SENTINEL", "SET", SERVICE, "failover-timeout", 3000)
        until(lambda: all(_knows_all(each) for each in sentinels))
        yield Watched(primary, replica, sentinels)


def _knows_all(sentinel: ValkeyServer) -> bool:
    with _client(sentinel) as client:
        facts = client.execute_command("SENTINEL", "MASTER", SERVICE)
        words = facts if isinstance(facts, dict) else dict(zip(facts[::2], facts[1::2], strict=True))
        found = {_text(key): _text(value) for key, value in words.items()}
        return (found.get("num-other-sentinels"), found.get("num-slaves")) == ("2", "1")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
