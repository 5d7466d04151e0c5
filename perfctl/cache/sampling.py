"""Reads a sample of a cache's keys, or all of them, without a long command and without changing anything.

One server walks its table in the order of the keys' hashes, which have nothing to do with their names: the first pages
of SCAN are a random sample. A node of a cluster (from Valkey 8 and Redis 7.4 on) walks slot by slot, and keys with one
hash tag share a slot, so there the first pages are no sample at all. Slots are chosen instead:

- CLUSTER COUNTKEYSINSLOT tells how many keys each slot of each primary holds;
- the fullest slots are looked at in any case, for they are where tagged keys stand;
- of the others some are chosen at random, and stand for all that were not; in each, keys are chosen at random.

How shares and their intervals follow from that stands in ``estimate``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from perfctl.cache import families
from perfctl.cache.gather import Biggest, Gatherer
from perfctl.cache.records import BigKey, Group, Sample, Stratum, Unread
from perfctl.errors import CommandFailed, Denied, PerfctlError
from perfctl.servers.deployment import Deployment, Primary
from perfctl.servers.redis import Node, Refusal, Reply, pack, refusal

#: Keys of a page: short enough for nobody to notice, and hardly slower than more.
_COUNT = 500

#: Slots that are always looked at, slots that are chosen at random at least, and the share of the keys for the former.
_FULLEST = 100
_RANDOM = 1000
_FOR_THE_FULLEST = 0.3
#: Keys of a slot that are chosen from, by keys that are chosen: a server that keeps a slot's keys by age gives the
#: newest first.
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
        if deployment.kind == "cluster" and manner.limit is not None:
            strata, complete = run.of_slots(primaries, manner.limit)
        else:
            strata, complete = run.of_servers()
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


@dataclass(slots=True)
class _Gaps:
    """What a user may not ask of single keys, or a server does not know."""

    errors: dict[str, PerfctlError] = field(default_factory=dict)
    #: commands that are not sent any more: each denial is a line in the server's ACL LOG
    given_up: set[str] = field(default_factory=set)


class _Run:
    def __init__(self, manner: Manner, nodes: Sequence[Node], watch: Watch | None) -> None:
        self._manner = manner
        self._nodes = nodes
        self._watch = watch
        fold = families.folder(manner.delimiter)
        self._family = (
            fold if manner.depth is None else lambda key: families.cut(fold(key), manner.delimiter, manner.depth)
        )
        self._gaps = [_Gaps() for _ in nodes]
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
        asked = [2 - len(each.given_up & {"types", "TTLs"}) for each in self._gaps]
        return sum(each * walked for each, walked in zip(asked, self._walked, strict=True))

    def biggest(self) -> tuple[BigKey, ...]:
        """The largest keys of all servers."""
        found = Biggest(self._manner.top)
        for each in self._biggest:
            for facts in each.largest():
                found.add(facts)
        return found.largest()

    def of_servers(self) -> tuple[tuple[Stratum, ...], bool]:
        """Keys as SCAN gives them."""
        found = self._side_by_side(self._walk, range(len(self._nodes)))
        groups = [group for group, _ in found if group.read]
        return tuple(Stratum((group,), 1, group.held) for group in groups), all(whole for _, whole in found)

    def _walk(self, number: int) -> tuple[Group, bool]:
        node, limit = self._nodes[number], self._manner.limit
        self._sizes[number] = total = node.call("DBSIZE")
        gatherer = Gatherer(self._family, self._biggest[number])
        ask: list[bytes | str | int] = ["SCAN", b"0", "COUNT", _COUNT]
        node.send(pack(ask))
        asked, trimmed = 0, False
        # A key may come twice while the server's table grows; of all keys nobody remembers which came.
        known: set[bytes] = set()
        facts = _Facts(node, self._gaps[number])
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

    def of_slots(self, primaries: Sequence[Primary], limit: int) -> tuple[tuple[Stratum, ...], bool]:
        """Keys of chosen slots."""
        numbers = range(len(self._nodes))
        counted = self._side_by_side(lambda n: _slot_sizes(self._nodes[n], sorted(primaries[n].slots)), numbers)
        sizes = {slot: size for each in counted for slot, size in each.items()}
        owner = {slot: number for number, each in enumerate(counted) for slot in each}
        self._sizes = [sum(each.values()) for each in counted]
        random = Random(self._manner.seed)
        chosen = choose(sizes, limit, random)
        wanted = {**chosen.fullest, **chosen.random}
        # A generator of its own for each server, so that a seed gives the same sample whoever answers first.
        seeds = [random.random() for _ in numbers]

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
        facts = _Facts(node, self._gaps[number])
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


@dataclass(frozen=True, slots=True)
class Choice:
    """Slots that are looked at, and how many keys of each."""

    fullest: Mapping[int, int]
    random: Mapping[int, int]
    #: slots with keys that none of these is, and their keys
    left_out: int
    keys_left_out: int
    #: every key is looked at
    complete: bool


def choose(sizes: Mapping[int, int], limit: int, random: Random) -> Choice:
    """Which slots to look at for about ``limit`` keys; ``sizes`` are the keys of each."""
    filled = sorted((slot for slot, size in sizes.items() if size), key=lambda slot: (-sizes[slot], slot))
    if sum(sizes.values()) <= limit:
        return Choice({slot: sizes[slot] for slot in filled}, {}, 0, 0, True)
    fullest = filled[: max(1, min(_FULLEST, limit // 100))]
    each = max(1, int(limit * _FOR_THE_FULLEST) // len(fullest))
    first = {slot: min(each, sizes[slot]) for slot in fullest}
    rest = filled[len(fullest) :]
    keys = max(0, limit - sum(first.values()))
    mean = sum(sizes[slot] for slot in rest) / max(1, len(rest))
    each = max(2, round((limit * (1 - _FOR_THE_FULLEST)) / _RANDOM))
    chosen = sorted(random.sample(rest, min(len(rest), max(1, int(keys / max(1.0, min(each, mean)))))))
    left = set(rest) - set(chosen)
    return Choice(
        first,
        {slot: min(each, sizes[slot]) for slot in chosen},
        len(left),
        sum(sizes[slot] for slot in left),
        False,
    )


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


class _Facts:
    """Type, time to live and size of pages of keys: sent, received, and taken up while the next page is on its way.

    MEMORY USAGE looks at five elements of a key: SAMPLES 0 would be all, and stall the server on a large one.
    """

    _ASKED: tuple[tuple[str, bytes, bytes], ...] = (
        ("types", b"*2\r\n$4\r\nTYPE\r\n", b""),
        ("TTLs", b"*2\r\n$4\r\nPTTL\r\n", b""),
        ("sizes", b"*5\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n", b"$7\r\nSAMPLES\r\n$1\r\n5\r\n"),
    )
    _WORDS: Mapping[str, tuple[str, ...]] = {"types": ("TYPE",), "TTLs": ("PTTL",), "sizes": ("MEMORY", "USAGE")}

    def __init__(self, node: Node, gaps: _Gaps) -> None:
        self._node = node
        self._gaps = gaps
        self._sent: deque[tuple[Sequence[bytes], tuple[str, ...]]] = deque()
        self._got: tuple[Sequence[bytes], dict[str, list[Reply]]] | None = None
        self._kinds: dict[bytes, str] = {}

    def send(self, keys: Sequence[bytes], behind: bytes = b"") -> None:
        """Ask about keys; ``behind`` is another command that goes with it."""
        asked = [each for each in self._ASKED if each[0] not in self._gaps.given_up]
        out: list[bytes] = []
        for key in keys:
            word = b"$%d\r\n%b\r\n" % (len(key), key)
            for _, head, tail in asked:
                out += (head, word, tail)
        self._sent.append((keys, tuple(name for name, _, _ in asked)))
        self._node.send(b"".join(out) + behind)

    def receive(self) -> None:
        """The replies to what was sent first of what has no reply yet."""
        keys, names = self._sent.popleft()
        replies = self._node.receive_many(len(keys) * len(names))
        self._got = (keys, {name: replies[place :: len(names)] for place, name in enumerate(names)})

    def take_up(self, gatherer: Gatherer) -> None:
        """Sum up what was received. Raises for a refusal that is neither one of rights nor of a key that moved."""
        if self._got is None:
            return
        keys, columns = self._got
        self._got = None
        kinds, ttls, sizes = (self._column(columns, name, len(keys)) for name, _, _ in self._ASKED)
        known = self._kinds
        for key, kind, ttl, size in zip(keys, kinds, ttls, sizes, strict=True):
            # -2, or no type: it is gone since the walk came by.
            if ttl == -2 or kind == b"none":
                continue
            if kind is not None and kind not in known:
                known[kind] = kind.decode("utf-8", "replace")
            gatherer.add(key, None if kind is None else known[kind], ttl, size)

    def _column(self, columns: Mapping[str, list[Reply]], name: str, length: int) -> list[Reply]:
        replies = columns.get(name)
        if replies is None:
            return [None] * length
        if Refusal not in set(map(type, replies)):
            return replies
        for each in replies:
            if isinstance(each, Refusal):
                self._hear(name, each)
        return [None if isinstance(each, Refusal) else each for each in replies]

    def _hear(self, name: str, reply: Refusal) -> None:
        error = refusal(reply, self._WORDS[name])
        unknown = isinstance(error, CommandFailed) and "unknown" in error.message
        if isinstance(error, Denied) or unknown:
            self._gaps.errors.setdefault(name, error)
            # Not so when it is only this key that is out of reach.
            if unknown or "permissions to run" in error.message:
                self._gaps.given_up.add(name)
        elif not isinstance(error, CommandFailed) or error.code not in ("MOVED", "ASK", "TRYAGAIN"):
            raise error
