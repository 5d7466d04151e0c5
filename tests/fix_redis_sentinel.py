"""A primary with two replicas under three sentinels, started once a session, healed and emptied before each test.

``sentinel``: on Redis 7.0 and Valkey 9.1 in turn; ``sentinel91``: on Valkey 9.1. None of it has a password.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from tests.fix_redis import ask, installed_version, reset_rights_and_settings, settings_of, until_held
from tests.fix_redis_node import Node, Sentinel, start_node

SERVICE = "mymaster"
REPLICAS = 2
SENTINELS = 3
QUORUM = 2
_DATA = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
_WATCH = {"down-after-milliseconds": 500, "failover-timeout": 1000, "parallel-syncs": 2}
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class SentinelSet:
    """Running data nodes, one of them the primary, and the sentinels that watch them."""

    nodes: tuple[Node, ...]
    sentinels: tuple[Node, ...]
    service: str = SERVICE
    _settings: dict[int, Mapping[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """All sentinels and the service, as perfctl takes it."""
        where = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{where}/{self.service}/0"

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The sentinels, as redis-py takes them."""
        return [("127.0.0.1", each.port) for each in self.sentinels]

    def primary_address(self) -> tuple[str, int]:
        """Where the running sentinels say that the primary is; fails when they do not agree."""
        said = self._said()
        assert len(said) == 1, said
        return said.pop()

    def primary(self) -> Node:
        """The node at that address, up or down."""
        port = self.primary_address()[1]
        return next(node for node in self.nodes if node.port == port)

    def kill_primary(self) -> Node:
        """Crash the primary; the node that is down now."""
        node = self.primary()
        node.kill()
        return node

    def wait_for_new_primary(self, within_s: float = _WITHIN_S) -> tuple[str, int]:
        """Wait until the sentinels agree on a node that runs as a primary; its address."""
        until_held(self._settled, within_s)
        return self.primary_address()

    def restore(self) -> None:
        """Start what is down; returns when the replicas follow and the sentinels see all. Nobody fails back."""
        for each in (*self.sentinels, *self.nodes):
            each.start()
        host, port = self.wait_for_new_primary()
        for node in self.nodes:
            # Sentinels take ten seconds to tell it to one that has come back.
            if node.port != port and _followed_port(node) != port:
                ask(node, "REPLICAOF", host, port)
        until_held(self._whole, _WITHIN_S)

    def reset(self) -> None:
        """Heal it and empty it: no key, no user but the default one, the first settings."""
        self.restore()
        ask(self.primary(), "FLUSHALL")
        for number, node in enumerate(self.nodes):
            reset_rights_and_settings(node, self._settings[number])

    def form(self) -> None:
        """Make replicas of all nodes but the first, and let the sentinels watch it."""
        first = self.nodes[0]
        for node in self.nodes[1:]:
            ask(node, "REPLICAOF", "127.0.0.1", first.port)
        # A sentinel that begins before the replicas are there hears of them ten seconds later.
        until_held(lambda: all(_follows(node, first.port) for node in self.nodes[1:]), _WITHIN_S)
        for each in self.sentinels:
            ask(each, "SENTINEL", "MONITOR", self.service, "127.0.0.1", first.port, QUORUM)
            for name, value in _WATCH.items():
                ask(each, "SENTINEL", "SET", self.service, name, value)
        self.restore()
        self._settings.update({number: settings_of(node) for number, node in enumerate(self.nodes)})

    def _said(self) -> set[tuple[str, int]]:
        running = [each for each in self.sentinels if each.running]
        told = (ask(each, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service) for each in running)
        return {(str(host), int(port)) for host, port in told}

    def _settled(self) -> bool:
        said = self._said()
        if len(said) != 1:
            return False
        port = said.pop()[1]
        node = next(node for node in self.nodes if node.port == port)
        return node.running and _role(node)[0] == "master"

    def _whole(self) -> bool:
        if not self._settled():
            return False
        primary = self.primary()
        followed = all(_follows(node, primary.port) for node in self.nodes if node is not primary)
        return followed and all(self._sees_all(each) for each in self.sentinels)

    def _sees_all(self, sentinel: Node) -> bool:
        told = _pairs(ask(sentinel, "SENTINEL", "MASTER", self.service))
        if (told["num-slaves"], told["num-other-sentinels"]) != (str(REPLICAS), str(SENTINELS - 1)):
            return False
        replicas = ask(sentinel, "SENTINEL", "REPLICAS", self.service)
        others = ask(sentinel, "SENTINEL", "SENTINELS", self.service)
        flags = ",".join([told["flags"], *(_pairs(each)["flags"] for each in (*replicas, *others))])
        # Not "master_down", which Valkey's sentinels go on saying of each other when the primary is up again.
        return not any(word in flags for word in ("s_down", "o_down", "disconnected", "failover"))


def _pairs(told: list[str]) -> dict[str, str]:
    return dict(zip(told[::2], told[1::2], strict=True))


def _role(node: Node) -> list[str]:
    return [str(each) for each in ask(node, "ROLE")]


def _followed_port(node: Node) -> int | None:
    role = _role(node)
    return int(role[2]) if role[0] == "slave" else None


def _follows(node: Node, port: int) -> bool:
    role = _role(node)
    return role[0] == "slave" and int(role[2]) == port and role[3] == "connected"


@contextlib.contextmanager
def started_sentinels(version: str) -> Iterator[SentinelSet]:
    """A new set of a version by its id; skips or fails without that version."""
    program = installed_version(version)
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(start_node(program, _DATA)) for _ in range(1 + REPLICAS)]
        sentinels = [stack.enter_context(start_node(program, {}, kind=Sentinel)) for _ in range(SENTINELS)]
        found = SentinelSet(tuple(nodes), tuple(sentinels))
        found.form()
        yield found


@pytest.fixture(scope="session")
def sentinel_sets() -> Iterator[Callable[[str], SentinelSet]]:
    """Gives the healed and emptied set of a version, started once a session."""
    sets: dict[str, SentinelSet] = {}
    with contextlib.ExitStack() as stack:

        def get(version: str) -> SentinelSet:
            if version not in sets:
                sets[version] = stack.enter_context(started_sentinels(version))
            sets[version].reset()
            return sets[version]

        yield get


@pytest.fixture(params=["redis70", "valkey91"])
def sentinel(request: pytest.FixtureRequest, sentinel_sets: Callable[[str], SentinelSet]) -> SentinelSet:
    """A primary without keys, its replicas and sentinels, of each version in turn."""
    return sentinel_sets(request.param)


@pytest.fixture
def sentinel91(sentinel_sets: Callable[[str], SentinelSet]) -> SentinelSet:
    """A primary of Valkey 9.1 without keys, its replicas and sentinels."""
    return sentinel_sets("valkey91")
