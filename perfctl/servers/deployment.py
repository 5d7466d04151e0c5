"""A Redis or Valkey as it is deployed: one server, a primary that Sentinels name, or the primaries of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from perfctl.errors import CommandFailed, PerfctlError, Unreachable
from perfctl.servers.redis import Address, Node, Seeds, Trace, open_node

Kind = Literal["standalone", "sentinel", "cluster"]

#: How many hash slots the keys of a cluster are spread over.
SLOTS = 16384


@dataclass(frozen=True, slots=True)
class Primary:
    """A server that takes writes, and what it holds of a cluster."""

    address: Address
    #: of a cluster's node; empty elsewhere
    node_id: str = ""
    slots: frozenset[int] = frozenset()
    #: slots that are on their way to it, or from it, now
    moving: frozenset[int] = frozenset()


@dataclass(slots=True)
class Deployment:
    """Servers behind one address of the configuration."""

    kind: Kind
    seeds: Seeds
    #: the server that answered first: the primary, or any node of a cluster
    node: Node
    facts: Mapping[str, str]
    trace: Trace | None = None
    _open: list[Node] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def version(self) -> str:
        """The product with its version as people write it: "Valkey 9.1.2"."""
        return version_of(self.facts)

    @property
    def primary_of_a_replica(self) -> str | None:
        """Where the primary is when the address is a replica's; any node of a cluster will do, so None there."""
        if self.kind == "cluster" or self.facts.get("role") != "slave":
            return None
        return f"{self.facts.get('master_host')}:{self.facts.get('master_port')}"

    def open(self, address: Address) -> Node:
        """One more connection, closed with the deployment. Raises Unreachable, Denied."""
        node = open_node(address, self.seeds.login, self.trace)
        with self._lock:
            self._open.append(node)
        return node

    def primaries(self) -> tuple[Primary, ...]:
        """Who takes writes now, asked anew. Raises Unreachable when nobody can tell."""
        if self.kind == "cluster":
            return self._ask_the_cluster()
        if self.kind == "sentinel":
            return (Primary(_primary_by_sentinel(self.seeds, self.trace)),)
        return (Primary(self.node.address),)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for node in (self.node, *self._open):
                node.close()

    def _ask_the_cluster(self) -> tuple[Primary, ...]:
        """Any node tells of all; one that is gone is passed over for the next."""
        known = dict.fromkeys((self.node.address, *self.seeds.addresses, *(each.address for each in self._open)))
        failures: list[PerfctlError] = []
        for address in known:
            try:
                node = open_node(address, self.seeds.login, self.trace)
                try:
                    return primaries_of(node.call("CLUSTER", "NODES").decode(), address)
                finally:
                    node.close()
            except (Unreachable, CommandFailed) as error:
                failures.append(error)
        raise Unreachable(f"no node of the cluster answers: {failures[0].message}") from failures[0]


def connect(seeds: Seeds, trace: Trace | None = None) -> Deployment:
    """Find out what stands behind an address, and connect to it. Raises Unreachable, Denied, ConfigError.

    The first of several hosts that answers counts. A plain address that turns out to be a Sentinel's is followed to
    the primary when the Sentinel knows only one.
    """
    if seeds.through_sentinel:
        return _through_sentinel(seeds, trace)
    failure: Unreachable | None = None
    for address in seeds.addresses:
        try:
            # In a cluster there is no SELECT, so the database is chosen once the kind is known.
            node = open_node(address, replace(seeds.login, db=0), trace)
        except Unreachable as error:
            failure = failure or error
            continue
        facts = info(node)
        mode = facts.get("redis_mode") or facts.get("server_mode", "standalone")
        if mode == "sentinel":
            node.close()
            return _through_sentinel(replace(seeds, addresses=(address,), through_sentinel=True), trace)
        if mode == "cluster":
            return Deployment("cluster", seeds, node, facts, trace)
        if seeds.login.db:
            node.close()
            node = open_node(address, seeds.login, trace)
        return Deployment("standalone", seeds, node, facts, trace)
    assert failure is not None
    raise failure


def _through_sentinel(seeds: Seeds, trace: Trace | None) -> Deployment:
    seeds = replace(seeds, service=seeds.service or _only_service(seeds, trace))
    node = open_node(_primary_by_sentinel(seeds, trace), seeds.login, trace)
    return Deployment("sentinel", seeds, node, info(node), trace)


def _sentinel(seeds: Seeds, address: Address, trace: Trace | None) -> Node:
    """A Sentinel: it has a password of its own, or none, and no databases."""
    login = replace(seeds.login, db=0, username=None, password=None)
    return open_node(address, login, trace)


def _primary_by_sentinel(seeds: Seeds, trace: Trace | None) -> Address:
    """Where the first Sentinel that answers says that the primary is."""
    assert seeds.service is not None
    failure: PerfctlError | None = None
    for address in seeds.addresses:
        try:
            node = _sentinel(seeds, address, trace)
            try:
                found = node.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", seeds.service)
            finally:
                node.close()
        except (Unreachable, CommandFailed) as error:
            failure = failure or error
            continue
        if found:
            return Address(found[0].decode(), int(found[1]))
        failure = failure or Unreachable(f'the Sentinel at {address} knows no "{seeds.service}"')
    raise Unreachable(f"no Sentinel names a primary: {failure.message if failure else ''}") from failure


def _only_service(seeds: Seeds, trace: Trace | None) -> str:
    """The name of the one primary that a Sentinel watches. Raises Unreachable for several."""
    node = _sentinel(seeds, seeds.addresses[0], trace)
    try:
        found = [_pairs(each)["name"] for each in node.call("SENTINEL", "MASTERS")]
    finally:
        node.close()
    if len(found) != 1:
        raise Unreachable(
            f"{node.address} is a Sentinel and watches {len(found)} primaries: {', '.join(sorted(found))}",
            hint="name one: redis+sentinel://HOST:PORT/NAME",
        )
    return found[0]


def _pairs(reply: list[bytes]) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def info(node: Node, *sections: str) -> dict[str, str]:
    """What INFO tells, as it stands there; the default sections when none is named. Raises Denied."""
    text = node.call("INFO", *sections).decode(errors="replace")
    lines = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {key: value for key, mark, value in lines if mark}


def version_of(facts: Mapping[str, str]) -> str:
    """The product with its version: Valkey gives the Redis version that it is compatible with too."""
    if valkey := facts.get("valkey_version"):
        return f"Valkey {valkey}"
    return f"Redis {facts.get('redis_version', 'of an unknown version')}"


def primaries_of(nodes: str, asked: Address) -> tuple[Primary, ...]:
    """The primaries that hold slots, in what CLUSTER NODES prints; see https://valkey.io/commands/cluster-nodes/.

    ``asked`` stands for a node that does not know its own address. Slots on their way are told by the node that was
    asked, for itself alone. Raises Unreachable when a primary that holds slots has failed and nobody has its place.
    """
    found = []
    for line in nodes.splitlines():
        node_id, place, flags, _, _, _, _, _, *slots = line.split(" ")
        if "master" not in flags.split(",") or not slots:
            continue
        address = place.partition("@")[0].partition(",")[0]
        host, _, port = address.rpartition(":")
        if "fail" in flags.split(","):
            raise Unreachable(f"the cluster's primary at {address} has failed, and no replica has its place")
        ranges = [each for each in slots if not each.startswith("[")]
        moving = [int(each[1:].partition("-")[0]) for each in slots if each.startswith("[")]
        found.append(Primary(Address(host or asked.host, int(port)), node_id, _numbers(ranges), frozenset(moving)))
    return tuple(found)


def _numbers(ranges: list[str]) -> frozenset[int]:
    ends = [tuple(map(int, each.split("-"))) for each in ranges]
    return frozenset(number for each in ends for number in range(each[0], each[-1] + 1))
