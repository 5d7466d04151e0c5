"""Reads which keys of a cache match, without changing anything and without KEYS."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from random import Random

from perfctl.cache import families, glob
from perfctl.cache.model import Found, KeyFacts, Look, Question
from perfctl.cache.reservoir import Reservoir
from perfctl.cache.selection import ELEMENTS, ELSEWHERE, Command, Selection
from perfctl.errors import CommandFailed, Denied, PerfctlError
from perfctl.servers.deployment import Deployment, info
from perfctl.servers.redis import Address, Node, pack

#: How much of its table a server walks for one page: short enough for nobody to notice, and hardly slower than more.
COUNT = 500

#: Matching keys that are looked at one by one, on each server.
SAMPLE = 2000

#: Looks at keys that are sent together.
_TOGETHER = 100

#: Different families that are told apart; more are named by what they have in common anyway.
_FAMILIES = 100_000

#: Other databases that are looked into, and pages of each.
_ELSEWHERE_DATABASES = 32
_ELSEWHERE_PAGES = 20

#: Told how many keys were walked past and how many of them match.
Watch = Callable[[int, int], None]


def look(deployment: Deployment, question: Question, watch: Watch | None = None, *, seed: int | None = None) -> Look:
    """Every matching key counted, by family; a random sample of them looked at. Primaries of a cluster side by side.

    Raises Unreachable, Denied.
    """
    primaries = deployment.primaries()
    nodes = [deployment.open(each.address) for each in primaries]
    counts = [[0, 0] for _ in primaries]

    def one(number: int) -> tuple[Found, str]:
        def seen(walked: int, matched: int) -> None:
            counts[number] = [walked, matched]
            if watch is not None:
                watch(sum(each[0] for each in counts), sum(each[1] for each in counts))

        return _one(nodes[number], question, seen, Random(seed), deployment.seeds.login.db)

    with ThreadPoolExecutor(max_workers=max(1, len(primaries))) as threads:
        try:
            found = list(threads.map(one, range(len(primaries))))
        except BaseException:
            # A signal, or one server that failed: nobody is to wait for the others' answers.
            for node in nodes:
                node.close()
            raise
    return Look(tuple(part for part, _ in found), next((why for _, why in found if why), ""))


def pages(node: Node, question: Question, selection: Selection) -> Iterator[list[bytes]]:
    """The keys that are meant, a page at a time; the next page is on its way while one is worked on.

    Raises Denied, CommandFailed. As SCAN has it, a key that is there all the time comes at least once, and maybe twice.
    """
    words: list[bytes | str | int] = ["MATCH", question.pattern, "COUNT", COUNT]
    if question.type is not None:
        words += ["TYPE", question.type]
    ask: list[bytes | str | int] = ["SCAN", b"0", *words]
    node.send(pack(ask))
    while True:
        cursor, keys = node.answer(ask)
        if selection.by_traits:
            # Their replies would stand behind that to the next page.
            keys = selection.meant(keys, node.calls)
        if cursor != b"0":
            ask[1] = cursor
            node.send(pack(ask))
        yield keys if selection.by_traits else selection.by_name(keys)
        if cursor == b"0":
            return


def other_databases(deployment: Deployment, question: Question) -> list[int]:
    """The numbers of other databases of the server where a first look finds keys that match; none in a cluster."""
    if deployment.kind == "cluster":
        return []
    address = deployment.primaries()[0].address
    own = deployment.seeds.login.db
    numbers = [int(name[2:]) for name in _keyspace(deployment, address) if name.startswith("db")]
    numbers = numbers[:_ELSEWHERE_DATABASES]
    return [number for number in numbers if number != own and _has_some(deployment.open(address), number, question)]


def _keyspace(deployment: Deployment, address: Address) -> dict[str, str]:
    # The connection of the beginning may have been closed meanwhile, for it said nothing while the keys were walked.
    node = deployment.open(address)
    try:
        return info(node, "keyspace")
    finally:
        node.close()


def _has_some(node: Node, database: int, question: Question) -> bool:
    """Whether one of the first pages of a database holds such a key. Whoever may not look has no need to know."""
    try:
        node.call("SELECT", database)
        return any(islice(pages(node, question, Selection(question)), _ELSEWHERE_PAGES))
    except (CommandFailed, Denied):
        return False
    finally:
        node.close()


def _one(node: Node, question: Question, watch: Watch, random: Random, database: int = 0) -> tuple[Found, str]:
    began = time.monotonic()
    spent = _scanning_s(node)
    selection = Selection(question)
    total = node.call("DBSIZE")
    family = families.folder(question.delimiter)
    cut = glob.cut_off(question.pattern)
    found: Counter[bytes] = Counter()
    longer: Counter[bytes] = Counter()
    reservoir = Reservoir(SAMPLE, random)
    for number, keys in enumerate(pages(node, question, selection), 1):
        names = [family(key) for key in keys]
        if len(found) >= _FAMILIES:
            names = [name if name in found else b"*" for name in names]
        found.update(names)
        if cut is not None:
            for key in keys:
                if more := _longer(key, cut, question.delimiter):
                    longer[more if more in longer or len(longer) < _FAMILIES else b"*"] += 1
        reservoir.offer(keys)
        watch(min(number * COUNT, total), reservoir.seen)
    after = _scanning_s(node)
    facts, why = facts_of(node, reservoir.chosen)
    part = Found(
        str(node.address),
        total,
        reservoir.seen,
        found,
        longer,
        facts,
        time.monotonic() - began,
        selection.too_large,
        None if spent is None or after is None else max(0.0, after - spent),
        _lasting(node, database),
    )
    return part, why


def _lasting(node: Node, database: int) -> int | None:
    """How many keys of a database never expire, whatever their names; None where the server does not tell."""
    told = info(node, "keyspace").get(f"db{database}", "")
    found = dict(pair.split("=") for pair in told.split(",") if "=" in pair)
    return int(found["keys"]) - int(found["expires"]) if found.keys() >= {"keys", "expires"} else None


def _scanning_s(node: Node) -> float | None:
    """What a server has spent on SCAN so far, for whomever; None where it does not tell."""
    told = info(node, "commandstats").get("cmdstat_scan", "")
    found = dict(pair.split("=") for pair in told.split(",") if pair)
    return int(found["usec"]) / 1e6 if "usec" in found else 0.0 if not told else None


def _longer(key: bytes, cut: bytes, delimiter: bytes) -> bytes | None:
    """The name that goes on where the pattern was cut off: `user:10` for `user:1*`."""
    rest = key[len(cut) :].split(delimiter, 1)[0]
    return cut + rest if rest[:1].isalnum() else None


def facts_of(node: Node, keys: Sequence[bytes]) -> tuple[tuple[KeyFacts, ...], str]:
    """Type, time to live and size of each key that is still there, and why sizes are not known."""
    out: list[KeyFacts] = []
    why = ""
    for start in range(0, len(keys), _TOGETHER):
        some = keys[start : start + _TOGETHER]
        asked: list[Command] = []
        for key in some:
            asked += [("TYPE", key), ("PTTL", key), ("MEMORY", "USAGE", key, "SAMPLES", ELEMENTS)]
        replies = node.calls(asked)
        for key, type_, ttl, size in zip(some, replies[::3], replies[1::3], replies[2::3], strict=True):
            if isinstance(type_, CommandFailed) and type_.code in ELSEWHERE:
                # Its slot has just moved: whoever has it now shows it.
                continue
            for reply in (type_, ttl):
                if isinstance(reply, PerfctlError):
                    raise reply
            if isinstance(size, Denied):
                why, size = size.message, None
            elif isinstance(size, PerfctlError):
                raise size
            # -2: it is gone since the walk came by.
            if ttl != -2:
                out.append(KeyFacts(key, type_.decode(), None if ttl == -1 else ttl, size))
    return tuple(out), why
