"""Clusters of three primaries with a replica each, started once a session, healed and emptied before each test.

``cluster``: on each of Redis 7.0, Valkey 8.1 and Valkey 9.1 in turn; ``cluster91``: on Valkey 9.1. All of it needs
one fixed password, so that AUTH is proven too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from redis.cluster import RedisCluster

from perfctl.embedded import ValkeyServer
from tests.fix_redis import (
    LIMITED,
    address_of,
    ask,
    installed_version,
    reset_rights_and_settings,
    settings_of,
    until_held,
)
from tests.fix_redis_node import Node, start_node

PASSWORD = "of-the-cluster"
SHARDS = 3
SLOTS = 16384
SETTINGS = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "1000",
    # A replica takes over however long it has been apart, and none moves to another primary by itself.
    "cluster-replica-validity-factor": "0",
    "cluster-migration-barrier": "10",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "masterauth": PASSWORD,
}
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Member:
    """A node as one line of CLUSTER NODES shows it."""

    id: str
    port: int
    flags: frozenset[str]
    primary_id: str
    epoch: int
    slots: frozenset[int]
    #: the slots that are on their way to or from it; only a node's own line tells
    open_slots: frozenset[int]

    @property
    def is_primary(self) -> bool:
        """Whether it may have slots of its own."""
        return "master" in self.flags


def members(server: ValkeyServer) -> list[Member]:
    """The cluster as one of its nodes sees it."""
    return [_member(line) for line in str(ask(server, "CLUSTER", "NODES")).splitlines()]


def _member(line: str) -> Member:
    id_, address, flags, primary_id, _, _, epoch, _, *slots = line.split()
    port = int(address.partition("@")[0].rpartition(":")[2])
    owned = [each for each in slots if not each.startswith("[")]
    moving = [each for each in slots if each.startswith("[")]
    ranges = (tuple(map(int, each.split("-"))) for each in owned)
    return Member(
        id=id_,
        port=port,
        flags=frozenset(flags.split(",")),
        primary_id=primary_id,
        epoch=int(epoch),
        slots=frozenset(itertools.chain.from_iterable(range(each[0], each[-1] + 1) for each in ranges)),
        open_slots=frozenset(int(each[1:].split("-")[0]) for each in moving),
    )


def myself(server: ValkeyServer) -> Member:
    """A node as it sees itself."""
    return next(member for member in members(server) if "myself" in member.flags)


@dataclass(frozen=True, slots=True)
class SlotMove:
    """A slot that goes from one primary to another, in steps; a test may stop after each."""

    slot: int
    source: Node
    target: Node
    others: Sequence[Node]

    def begin(self) -> None:
        """From now on the source answers ASK for keys that it has not."""
        source_id, target_id = myself(self.source).id, myself(self.target).id
        ask(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", source_id)
        ask(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", target_id)

    def move_keys(self, limit: int = 1_000_000) -> int:
        """Move keys of the slot, at most ``limit``; how many were moved."""
        keys = ask(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, limit)
        if keys:
            where = ("127.0.0.1", self.target.port, "", 0, 5000)
            ask(self.source, "MIGRATE", *where, "AUTH", PASSWORD, "KEYS", *keys)
        return len(keys)

    def finish(self) -> None:
        """Give the slot to the target; the target first, or a crash would leave it to nobody."""
        target_id = myself(self.target).id
        for node in (self.target, self.source, *self.others):
            ask(node, "CLUSTER", "SETSLOT", self.slot, "NODE", target_id)

    def cancel(self) -> None:
        """Leave the slot where it is; keys that were moved stay behind at the target."""
        for node in (self.source, self.target):
            ask(node, "CLUSTER", "SETSLOT", self.slot, "STABLE")


@dataclass(frozen=True, slots=True)
class CacheCluster:
    """A running cluster. Nodes n and n + 3 are shard n: a primary and its replica, in whatever order by now."""

    nodes: tuple[Node, ...]
    _settings: dict[int, Mapping[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address of one running node, with the password."""
        return self._running()[0].url

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all nodes, those that are down too."""
        return tuple(node.url for node in self.nodes)

    def connect(self) -> RedisCluster:
        """A client of the whole cluster; the caller closes it."""
        return RedisCluster.from_url(self.url)

    def shard_of(self, slot: int) -> int:
        """The shard that a slot belongs to before anything is moved."""
        return next(shard for shard in range(SHARDS) if slot in slots_of(shard))

    def primary(self, shard: int) -> Node | None:
        """The running primary of a shard; None while it is down and not yet replaced."""
        pair = (self.nodes[shard], self.nodes[shard + SHARDS])
        found = [(myself(node).epoch, node) for node in pair if node.running and myself(node).is_primary]
        # One that has just come back may not know yet that it was replaced.
        return max(found, key=lambda each: each[0])[1] if found else None

    def primaries(self) -> list[Node]:
        """The running primaries, by shard."""
        return [node for node in map(self.primary, range(SHARDS)) if node is not None]

    def replica(self, shard: int) -> Node | None:
        """The running replica of a shard."""
        primary = self.primary(shard)
        pair = (self.nodes[shard], self.nodes[shard + SHARDS])
        return next((node for node in pair if node is not primary and node.running), None)

    def kill_primary(self, shard: int) -> Node:
        """Crash the primary of a shard; the node that is down now."""
        primary = self.primary(shard)
        assert primary is not None
        primary.kill()
        return primary

    def wait_ok(self, within_s: float = _WITHIN_S) -> None:
        """Wait until every shard has a running primary and all running nodes agree on who serves which slot."""
        until_held(self._ok, within_s)

    def migrate_slot(self, slot: int, to: int) -> SlotMove:
        """The steps that take a slot to the primary of another shard; none is taken yet."""
        primaries = self.primaries()
        target = primaries[to]
        source = next(node for node in primaries if slot in myself(node).slots)
        return SlotMove(slot, source, target, [node for node in primaries if node not in (source, target)])

    def restore(self) -> None:
        """Start what is down; returns when every primary has a replica that follows. Nobody fails back."""
        for node in self.nodes:
            node.start()
        until_held(self._whole, _WITHIN_S)

    def reset(self) -> None:
        """Heal it and empty it: every slot at its shard, no key, no user but the default one, the first settings."""
        self.restore()
        for node in self.primaries():
            for slot in myself(node).open_slots:
                ask(node, "CLUSTER", "SETSLOT", slot, "STABLE")
            ask(node, "FLUSHALL")
        for number, node in enumerate(self.nodes):
            reset_rights_and_settings(node, self._settings[number])
        for shard, node in enumerate(self.primaries()):
            for slot in myself(node).slots - set(slots_of(shard)):
                move = self.migrate_slot(slot, self.shard_of(slot))
                move.begin()
                move.finish()
        self.wait_ok()

    def limited_user(self, *rules: str) -> str:
        """The address of a node for a new user with just these rights, made on every node that runs."""
        for node in self._running():
            ask(node, "ACL", "SETUSER", LIMITED, "reset", "on", f">{LIMITED}", *rules)
        return address_of(self.url, LIMITED, LIMITED)

    def form(self) -> None:
        """Make a cluster of nodes that know nothing of each other."""
        for number, node in enumerate(self.nodes):
            # With epochs of their own there is nothing to be settled between them first.
            ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < SHARDS:
                ask(node, "CLUSTER", "ADDSLOTS", *slots_of(number))
        # All of them meet all others: gossip alone takes seconds.
        for one, other in itertools.combinations(self.nodes, 2):
            ask(one, "CLUSTER", "MEET", "127.0.0.1", other.port)
        until_held(lambda: all(self._knows_all(node) for node in self.nodes), _WITHIN_S)
        for number in range(SHARDS):
            ask(self.nodes[number + SHARDS], "CLUSTER", "REPLICATE", myself(self.nodes[number]).id)
        self.restore()
        self._settings.update({number: settings_of(node) for number, node in enumerate(self.nodes)})

    def _running(self) -> list[Node]:
        return [node for node in self.nodes if node.running]

    def _knows_all(self, node: Node) -> bool:
        known = members(node)
        return len(known) == len(self.nodes) and not any("handshake" in member.flags for member in known)

    def _ok(self) -> bool:
        primaries = self.primaries()
        if len(primaries) < SHARDS:
            return False
        truth = {node.port: myself(node).slots for node in primaries}
        return sum(map(len, truth.values())) == SLOTS and all(self._sees(node, truth) for node in self._running())

    @staticmethod
    def _sees(node: Node, truth: Mapping[int, frozenset[int]]) -> bool:
        info = str(ask(node, "CLUSTER", "INFO"))
        seen = {member.port: member.slots for member in members(node) if member.slots}
        return "cluster_state:ok" in info and seen == {port: slots for port, slots in truth.items() if slots}

    def _whole(self) -> bool:
        return self._ok() and all(self._followed(shard) for shard in range(SHARDS)) and not self._anyone_failed()

    def _followed(self, shard: int) -> bool:
        primary, replica = self.primary(shard), self.replica(shard)
        if primary is None or replica is None:
            return False
        role = ask(replica, "ROLE")
        return bool(role[0] == "slave" and int(role[2]) == primary.port and role[3] == "connected")

    def _anyone_failed(self) -> bool:
        return any(member.flags & {"fail", "fail?"} for node in self.nodes for member in members(node))


def slots_of(shard: int) -> range:
    """The slots of a shard before anything is moved."""
    return range(SLOTS * shard // SHARDS, SLOTS * (shard + 1) // SHARDS)


@contextlib.contextmanager
def started_cluster(version: str) -> Iterator[CacheCluster]:
    """A new cluster of a version by its id; skips or fails without that version."""
    program = installed_version(version)
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(start_node(program, SETTINGS, PASSWORD)) for _ in range(2 * SHARDS)]
        cluster = CacheCluster(tuple(nodes))
        cluster.form()
        yield cluster


@pytest.fixture(scope="session")
def cache_clusters() -> Iterator[Callable[[str], CacheCluster]]:
    """Gives the healed and emptied cluster of a version, started once a session."""
    clusters: dict[str, CacheCluster] = {}
    with contextlib.ExitStack() as stack:

        def get(version: str) -> CacheCluster:
            if version not in clusters:
                clusters[version] = stack.enter_context(started_cluster(version))
            clusters[version].reset()
            return clusters[version]

        yield get


@pytest.fixture(params=["redis70", "valkey81", "valkey91"])
def cluster(request: pytest.FixtureRequest, cache_clusters: Callable[[str], CacheCluster]) -> CacheCluster:
    """A cluster without keys, of each version in turn."""
    return cache_clusters(request.param)


@pytest.fixture
def cluster91(cache_clusters: Callable[[str], CacheCluster]) -> CacheCluster:
    """A cluster of Valkey 9.1 without keys."""
    return cache_clusters("valkey91")
