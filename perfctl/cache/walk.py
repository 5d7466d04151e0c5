"""One walk past all keys of one server, taking away those that are meant."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import inf
from random import Random

from perfctl.cache.backup import Backup
from perfctl.cache.items import name_of
from perfctl.cache.lock import KEY as LOCK
from perfctl.cache.model import Manner, Question, Traits
from perfctl.cache.pace import CEILING, Bucket, PageSize, excess_s, next_pause_s
from perfctl.cache.probe import LAG_BYTES, Probe
from perfctl.cache.removal import Expire, Removal, Unlink, keys_of, number_of_keys
from perfctl.cache.route import Router
from perfctl.cache.selection import ELSEWHERE, Command, Selection
from perfctl.errors import CommandFailed, ConnectionLost, Denied, PerfctlError
from perfctl.servers.deployment import Deployment, Primary
from perfctl.servers.redis import Node, Reply, Word, pack, refusal

#: How often the time that others wait is judged.
_JUDGE_EVERY_S = 0.25

#: Keys whose rights are tried together, and what no key ends with.
_TOGETHER = 500
_NOBODY = b":perfctl:no-such-key"

#: Pages a second at a given rate, and the smallest of them.
_PAGES_PER_S = 5
_LEAST = 10

#: A connection that waits says something so often.
_SPEAK_EVERY_S = 1.0

#: The longest sleep, so that a signal is heard.
_NAP_S = 0.2


@dataclass(frozen=True, slots=True)
class Errand:
    """What all walks of a flush have in common."""

    deployment: Deployment
    question: Question
    manner: Manner
    stop: Callable[[], int | None]
    #: told of keys that matched, that were taken away, that were left for their size, and for they never expire
    count: Callable[[int, int, int, int], None]
    #: where values go before they are taken away
    backup: Backup | None = None


class Walk:
    """One server from cursor 0 to its end. While a page is deleted the next one is on its way."""

    def __init__(self, errand: Errand, primary: Primary, node: Node, probe: Probe | None, of: int) -> None:
        manner = errand.manner
        self._errand = errand
        self._node = node
        self._probe = probe
        self._size = PageSize(manner.count, manner.fixed)
        if manner.rate and not manner.fixed:
            # A page goes at once: at a low rate it is a small one.
            self._size.most = max(_LEAST, min(CEILING, round(manner.rate / of / _PAGES_PER_S)))
            self._size.count = min(manner.count, self._size.most)
        self._bucket = Bucket(manner.rate / of if manner.rate else None)
        self._removal: Removal = Unlink(by_slot=errand.deployment.kind == "cluster")
        if manner.soft_s is not None:
            self._removal = Expire(manner, Random())
        ttl = errand.backup is not None or self._removal.asks_ttl
        self._selection = Selection(errand.question, ttl=ttl)
        self._router = Router(errand.deployment, primary.address)
        #: commands that are sent and not answered
        self._sent: deque[Command] = deque()
        self._pause_s = 0.0
        #: keys of the page that was sent last, which the rate asks to be waited for
        self._charged = 0
        self._judged = time.monotonic()

    def run(self) -> None:
        """Walk and delete. Raises Unreachable when the server went or is no primary any more; Denied."""
        try:
            cursor = b"0"
            page = self._ask(cursor)
            asked = time.perf_counter()
            self._node.send(pack(page))
            while True:
                cursor, keys = self._node.answer(page)
                self._size.took(time.perf_counter() - asked, time.monotonic())
                # First, so that nothing stands between the look at a key, its backup and its end.
                self._wait(self._charged)
                commands = self._commands(keys)
                self._charged = sum(map(number_of_keys, commands))
                going = cursor != b"0" and self._errand.stop() is None
                before = len(self._sent)
                self._sent.extend(commands)
                page = self._ask(cursor)
                asked = time.perf_counter()
                self._node.send((pack(page) if going else b"") + b"".join(map(pack, commands)))
                self._settle(before)
                if not going:
                    break
                # The reply to the page stands before those to the deletion that was sent behind it.
            self._settle(len(self._sent))
        finally:
            self._router.close()

    def _ask(self, cursor: bytes) -> list[Word]:
        question = self._errand.question
        words: list[Word] = ["SCAN", cursor, "MATCH", question.pattern, "COUNT", self._size.count]
        return words if question.type is None else [*words, "TYPE", question.type]

    def _commands(self, keys: list[bytes]) -> list[Command]:
        """What takes the keys of a page away, those that are meant, once they are in the backup."""
        if LOCK in keys:
            # The lock of this very flush.
            keys.remove(LOCK)
        keys = self._selection.by_name(keys)
        traits: Sequence[Traits | None] = [None] * len(keys)
        if keys and self._selection.by_traits:
            # The replies would stand behind those that are still to come.
            self._settle(len(self._sent))
            keys, traits = self._meant(keys)
        commands = self._removal.commands(keys, traits)
        if passed := len(keys) - sum(map(number_of_keys, commands)):
            self._errand.count(passed, 0, 0, 0)
        return commands

    def _meant(self, keys: list[bytes]) -> tuple[list[bytes], list[Traits | None]]:
        """Those whose traits are asked for; where there is a backup, those that are in it."""
        before = (self._selection.too_large, self._selection.lasting)
        traits = self._selection.traits(keys, self._of_keys)
        chosen = [self._selection.has(each) for each in traits]
        keys, traits = list(compress(keys, chosen)), list(compress(traits, chosen))
        now = (self._selection.too_large, self._selection.lasting)
        if now != before:
            self._errand.count(0, 0, now[0] - before[0], now[1] - before[1])
        if self._errand.backup is not None:
            kept = self._errand.backup.keep(keys, traits, self._of_keys, self._node)
            keys, traits = list(compress(keys, kept)), list(compress(traits, kept))
        return keys, traits

    def _of_keys(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands for a key each, from whoever has the key."""
        return [
            self._followed(command) if isinstance(reply, CommandFailed) and reply.code in ELSEWHERE else reply
            for command, reply in zip(commands, self._node.calls(commands), strict=True)
        ]

    def _followed(self, command: Command) -> object:
        try:
            return self._router.call(*command)
        except CommandFailed as error:
            return error

    def _settle(self, number: int) -> None:
        """Take so many replies to deletions."""
        matched = removed = 0
        for _ in range(number):
            command = self._sent.popleft()
            matched += number_of_keys(command)
            removed += self._removed(command, self._node.receive())
        if matched:
            self._errand.count(matched, removed, 0, 0)

    def _removed(self, command: Command, reply: Reply) -> int:
        if isinstance(reply, int):
            return reply
        error = refusal(reply, command)
        if isinstance(error, CommandFailed):
            if error.code == "READONLY":
                raise ConnectionLost(f"{self._node.address} is a replica now")
            if error.code in ELSEWHERE:
                name, rest = command[0], command[2:] if command[0] != "UNLINK" else ()
                return sum(self._router.call(name, key, *rest) for key in keys_of(command))
        raise error

    def _wait(self, keys: int) -> None:
        """Give way to others, as far as the budgets ask for it."""
        manner = self._errand.manner
        now = time.monotonic()
        if self._probe is not None and manner.max_latency_s is not None and now - self._judged >= _JUDGE_EVERY_S:
            self._judged = now
            excess = excess_s(self._probe.idle, self._probe.times())
            # A replica that cannot follow is cut off in the end, and would have to be filled anew.
            if self._probe.lag_bytes > LAG_BYTES:
                excess = inf
            self._pause_s = next_pause_s(self._pause_s, excess, manner.max_latency_s)
        pause = max(self._pause_s, self._bucket.wait_s(keys, now))
        until, spoke = now + pause, now
        while (left := until - time.monotonic()) > 0 and self._errand.stop() is None:
            time.sleep(min(left, _NAP_S))
            if time.monotonic() - spoke > _SPEAK_EVERY_S:
                # Servers close a connection that says nothing for long (timeout).
                self._settle(len(self._sent))
                self._node.call("PING")
                spoke = time.monotonic()


def check_rights(node: Node, keys: Sequence[bytes], manner: Manner, *, backup: bool) -> Manner:
    """Raise Denied when some of these keys may not be taken away, which are the sample of this server.

    A user may have a right for some keys alone, so each is tried. The manner comes back fit for the server:
    PEXPIRE's LT is known from Redis 7.0 on.
    """
    if backup:
        _tried(node, [("DUMP", key) for key in keys])
        node.call("TIME")
    if manner.soft_s is None:
        _tried(node, [("UNLINK", key) for key in keys])
        return manner
    replies = _tried(node, [("PEXPIRE", key, 1, "LT") for key in keys])
    if any("wrong number of arguments" in reply.message for reply in replies):
        manner = replace(manner, shorten=False)
        _tried(node, [("PEXPIRE", key, 1) for key in keys])
    return manner


def _tried(node: Node, commands: Sequence[Command]) -> list[CommandFailed]:
    """Those that failed for another reason than a right: another node has the key, or the option is not known.

    In a transaction that is discarded a command is checked and never carried out. Whoever may not open one tries a
    name beside each key, which no key has.
    """
    begun = node.calls([("MULTI",)])[0]
    if isinstance(begun, PerfctlError):
        commands = [(name, bytes(key) + _NOBODY, *rest) for name, key, *rest in commands if isinstance(key, bytes)]
    replies: list[object] = []
    try:
        for start in range(0, len(commands), _TOGETHER):
            replies += node.calls(commands[start : start + _TOGETHER])
    finally:
        if not isinstance(begun, PerfctlError):
            node.call("DISCARD")
    denied = [number for number, reply in enumerate(replies) if isinstance(reply, Denied)]
    if denied:
        first = replies[denied[0]]
        assert isinstance(first, Denied)
        key = keys_of(commands[denied[0]])[0].removesuffix(_NOBODY)
        of = f"{len(denied):,} of {len(commands):,} keys that were looked at, such as {name_of(key)}"
        raise Denied(f"{of}: {first.message}; nothing was changed", hint=first.hint)
    return [reply for reply in replies if isinstance(reply, CommandFailed)]
