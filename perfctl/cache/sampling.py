"""Reads a sample of a cache's keys, or all of them, without a long command and without changing anything.

One server walks its table in the order of the keys' hashes, which have nothing to do with their names: the first pages
of SCAN are a random sample, and so they are on each node of an older cluster. From Valkey 8 and Redis 7.4 on a node of
a cluster walks slot by slot, and keys with one hash tag share a slot, so there the first pages are no sample at all.
Slots are chosen instead. An older server gives a slot's keys by age or by name, and is never asked for them.

- CLUSTER COUNTKEYSINSLOT tells how many keys each slot of each primary holds;
- the fullest slots are looked at in any case, for they are where tagged keys stand;
- of the others some are chosen at random, and stand for all that were not; in each, keys are chosen at random.

How shares and their intervals follow from that stands in ``estimate``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from perfctl.cache import families, slots
from perfctl.cache.facts import Facts, Gaps
from perfctl.cache.gather import Biggest, Gatherer
from perfctl.cache.records import BigKey, Group, Sample, Stratum, Unread
from perfctl.errors import PerfctlError
from perfctl.servers.deployment import Deployment, Primary, info
from perfctl.servers.redis import Node, Reply, pack

#: Keys of a page: short enough for nobody to notice, and hardly slower than more.
_COUNT = 500

#: Keys of a slot that are chosen from, by keys that are chosen: nobody promises in which order a slot's keys come.
_CHOSEN_FROM = 10

#: Commands about slots that are sent together.
_TOGETHER = 1000

#: Told how many keys were looked at, of about how many.
Watch = Callable[[int, int], None]

_Part = TypeVar("_Part")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Manner:
    """How keys are looked at."""

    #: keys; None for all
    limit: int | None
    #: the largest keys that are kept
    top: int
    delimiter: bytes = b":"
    #: parts of a name that are told apart; None for all
    depth: int | None = None
    seed: int | None = None


def look(deployment: Deployment, manner: Manner, watch: Watch | None = None) -> Sample:
    """Keys of all primaries, side by side. Raises Unreachable, Denied."""
    began = time.monotonic()
    primaries = deployment.primaries()
    nodes = [deployment.open(each.address) for each in primaries]
    run = _Run(manner, nodes, watch)
    try:
        strata, complete = run.all_of(primaries if deployment.kind == "cluster" else ())
        servers = run.held
    except BaseException:
        # A signal, or one server that failed: nobody is to wait for the others' answers.
        for node in nodes:
            node.close()
        raise
    unread = tuple(Unread.of(what, error) for what, error in run.gaps.items())
    return Sample(
        strata, complete, run.biggest(), time.monotonic() - began, unread, servers, counted_reads=run.counted_reads
    )


def walks_by_slot(facts: Mapping[str, str]) -> bool:
    """Whether SCAN of a cluster's node goes slot by slot, by what INFO says of the server."""
    valkey = facts.get("valkey_version")
    version, since = (valkey, (8, 0)) if valkey else (facts.get("redis_version", ""), (7, 4))
    return tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2]) >= since


class _Run:
    def __init__(self, manner: Manner, nodes: Sequence[Node], watch: Watch | None) -> None:
        self._manner = manner
        self._nodes = nodes
        self._watch = watch
        fold = families.folder(manner.delimiter)
        self._family = (
            fold if manner.depth is None else lambda key: families.cut(fold(key), manner.delimiter, manner.depth)
        )
        self._gaps = [Gaps() for _ in nodes]
        self._biggest = [Biggest(manner.top) for _ in nodes]
        self._walked = [0] * len(nodes)
        self._sizes = [0] * len(nodes)

    @property
    def gaps(self) -> dict[str, PerfctlError]:
        """Why something is not known, by what."""
        return {what: error for each in self._gaps for what, error in each.errors.items()}

    @property
    def held(self) -> Mapping[str, int]:
        """Keys by server."""
        return {str(node.address): size for node, size in zip(self._nodes, self._sizes, strict=True)}

    @property
    def counted_reads(self) -> int:
        """TYPE and PTTL count as reads of their keys, MEMORY USAGE does not."""
        return sum(each.counted for each in self._gaps)

    def biggest(self) -> tuple[BigKey, ...]:
        """The largest keys of all servers."""
        found = Biggest(self._manner.top)
        for each in self._biggest:
            for facts in each.largest():
                found.add(facts)
        return found.largest()

    def all_of(self, cluster: Sequence[Primary]) -> tuple[tuple[Stratum, ...], bool]:
        """Keys of all servers; ``cluster`` are a cluster's primaries, in the order of the nodes."""
        numbers, limit = range(len(self._nodes)), self._manner.limit
        if limit is None or not cluster:
            return self._of_servers(dict.fromkeys(numbers, limit))
        # Nodes may be of two versions while a cluster is upgraded.
        by_slot = self._side_by_side(lambda number: walks_by_slot(info(self._nodes[number], "server")), numbers)
        if all(by_slot):
            return self._of_slots(dict(enumerate(cluster)), limit)
        sizes = self._side_by_side(lambda number: int(self._nodes[number].call("DBSIZE")), numbers)
        # The share that a node has of the keys, so that no node's keys are looked at more closely than another's.
        total = sum(sizes)
        shares = [size if total <= limit else -(-limit * size // total) for size in sizes]
        walked, whole = self._of_servers({n: max(1, shares[n]) for n in numbers if not by_slot[n]})
        others = {n: cluster[n] for n in numbers if by_slot[n]}
        if not others:
            return walked, whole
        chosen, complete = self._of_slots(others, max(1, sum(shares[n] for n in others)))
        return (*walked, *chosen), whole and complete

    def _of_servers(self, limits: Mapping[int, int | None]) -> tuple[tuple[Stratum, ...], bool]:
        """Keys as SCAN gives them, of each server so many."""
        found = self._side_by_side(lambda number: self._walk(number, limits[number]), limits)
        groups = [group for group, _ in found if group.read]
        return tuple(Stratum((group,), 1, group.held) for group in groups), all(whole for _, whole in found)

    def _walk(self, number: int, limit: int | None) -> tuple[Group, bool]:
        node = self._nodes[number]
        self._sizes[number] = total = node.call("DBSIZE")
        gatherer = Gatherer(self._family, self._biggest[number])
        ask: list[bytes | str | int] = ["SCAN", b"0", "COUNT", _COUNT]
        node.send(pack(ask))
        asked, trimmed = 0, False
        # A key may come twice while the server's table grows; of all keys nobody remembers which came.
        known: set[bytes] = set()
        facts = Facts(node, self._gaps[number])
        while True:
            cursor, keys = node.answer(ask)
            if limit is not None:
                keys = [key for key in keys if key not in known]
                trimmed = len(keys) > limit - asked
                keys = keys[: limit - asked]
                known.update(keys)
            asked += len(keys)
            more = cursor != b"0" and (limit is None or asked < limit)
            ask[1] = cursor
            facts.send(keys, pack(ask) if more else b"")
            # While the server works on this page, the last one is summed up.
            facts.take_up(gatherer)
            self._tell(number, gatherer.read, total)
            facts.receive()
            if not more:
                break
        facts.take_up(gatherer)
        whole = cursor == b"0" and not trimmed
        # What has expired and was not deleted yet is counted by DBSIZE and seen by nobody.
        held = gatherer.read if whole else max(total, gatherer.read)
        self._tell(number, gatherer.read, held)
        return Group(str(node.address), held, gatherer.read, gatherer.families()), whole

    def _of_slots(self, primaries: Mapping[int, Primary], limit: int) -> tuple[tuple[Stratum, ...], bool]:
        """Keys of chosen slots of some nodes."""
        numbers = list(primaries)
        counted = self._side_by_side(lambda n: _slot_sizes(self._nodes[n], sorted(primaries[n].slots)), numbers)
        sizes = {slot: size for each in counted for slot, size in each.items()}
        owner = {slot: number for number, each in zip(numbers, counted, strict=True) for slot in each}
        for number, each in zip(numbers, counted, strict=True):
            self._sizes[number] = sum(each.values())
        random = Random(self._manner.seed)
        chosen = slots.choose(sizes, limit, random)
        wanted = {**chosen.fullest, **chosen.random}
        # A generator of its own for each server, so that a seed gives the same sample whoever answers first.
        seeds = {number: random.random() for number in numbers}

        def one(number: int) -> dict[int, Group]:
            mine = {slot: keys for slot, keys in wanted.items() if owner[slot] == number}
            return self._slots(number, mine, sizes, Random(seeds[number]), sum(wanted.values()))

        groups = {slot: group for each in self._side_by_side(one, numbers) for slot, group in each.items()}
        first = [groups[slot] for slot in chosen.fullest if groups[slot].read]
        others = [groups[slot] for slot in chosen.random if groups[slot].read]
        strata = (
            Stratum(tuple(first), len(first), sum(each.held for each in first)),
            Stratum(
                tuple(others),
                len(others) + chosen.left_out,
                sum(each.held for each in others) + chosen.keys_left_out,
            ),
        )
        return tuple(each for each in strata if each.groups), chosen.complete

    def _slots(
        self, number: int, wanted: Mapping[int, int], sizes: Mapping[int, int], random: Random, of: int
    ) -> dict[int, Group]:
        node = self._nodes[number]
        out: dict[int, Group] = {}
        facts = Facts(node, self._gaps[number])
        for some in _batches(wanted.items(), _TOGETHER // _CHOSEN_FROM):
            commands = [
                ("CLUSTER", "GETKEYSINSLOT", slot, min(sizes[slot], keys * _CHOSEN_FROM)) for slot, keys in some
            ]
            picked = [
                names if len(names) <= keys else random.sample(names, keys)
                for (_, keys), names in zip(some, _all(node.calls(commands)), strict=True)
            ]
            for keys in picked:
                facts.send(keys)
            for (slot, _), keys in zip(some, picked, strict=True):
                gatherer = Gatherer(self._family, self._biggest[number])
                facts.receive()
                facts.take_up(gatherer)
                held = max(sizes[slot], gatherer.read) if len(keys) < sizes[slot] else gatherer.read
                out[slot] = Group(f"slot {slot}", held, gatherer.read, gatherer.families())
                self._tell(number, self._walked[number] + gatherer.read, of)
        return out

    def _tell(self, number: int, walked: int, total: int) -> None:
        self._walked[number] = walked
        if self._watch is not None:
            whole = sum(self._sizes) if self._manner.limit is None else min(sum(self._sizes), self._manner.limit)
            self._watch(sum(self._walked), max(whole, sum(self._walked)) or total)

    def _side_by_side(self, do: Callable[[_Part], _Found], parts: Iterable[_Part]) -> list[_Found]:
        with ThreadPoolExecutor(max_workers=max(1, len(self._nodes))) as threads:
            try:
                return list(threads.map(do, parts))
            except BaseException:
                for node in self._nodes:
                    node.close()
                raise


def _slot_sizes(node: Node, slots: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for some in _batches(slots, _TOGETHER):
        replies = _all(node.calls([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in some]))
        found.update(zip(some, replies, strict=True))
    return found


def _all(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _batches(items: Iterable[_Part], size: int) -> Iterator[list[_Part]]:
    listed = list(items)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
