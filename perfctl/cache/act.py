"""Deletes the keys that a look has shown, so that nobody notices and none is left."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from perfctl.cache import glob
from perfctl.cache.lock import KEY as LOCK
from perfctl.cache.lock import FlushLock
from perfctl.cache.model import Question
from perfctl.cache.pace import Bucket, PageSize, excess_s, next_pause_s
from perfctl.cache.probe import Probe
from perfctl.cache.route import Router
from perfctl.errors import CommandFailed, ConnectionLost, Incomplete, PerfctlError, Unreachable
from perfctl.servers.deployment import Deployment, Primary, info, primaries_of
from perfctl.servers.redis import Node, Reply, Word, pack, refusal, slot_of

#: A server that does not answer is waited for so long since the last one that did: a failover takes seconds.
BACK_WITHIN_S = 30.0
_LOOK_AGAIN_S = 0.2

#: How often the time that others wait is judged.
_JUDGE_EVERY_S = 0.25

#: Passes beyond those asked for while slots of a cluster are on their way: keys there are seen by neither side.
_MORE_PASSES = 10

_ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN", "CROSSSLOT")


@dataclass(frozen=True, slots=True)
class Manner:
    """How keys are deleted."""

    count: int = 500
    #: COUNT stays as it is
    fixed: bool = False
    passes: int = 2
    #: keys a second, on all servers together
    rate: float | None = None
    #: how much longer than before others may wait for an answer
    max_latency_s: float | None = 0.002


@dataclass(slots=True)
class Tally:
    """What one pass over all servers came to."""

    matched: int = 0
    deleted: int = 0
    #: walks that began anew, for another server has the keys now
    restarts: int = 0

    @property
    def gone(self) -> int:
        """Keys that were gone already: expired, deleted by others, or given twice by SCAN."""
        return self.matched - self.deleted


@dataclass(slots=True)
class Flushed:
    """What a flush came to."""

    passes: list[Tally] = field(default_factory=list)
    #: the signal that ended it early
    stopped: int | None = None
    seconds: float = 0.0
    #: slots that were still on their way at the end
    moving: frozenset[int] = frozenset()

    @property
    def deleted(self) -> int:
        """Keys deleted in all passes."""
        return sum(each.deleted for each in self.passes)


class Flush:
    """One flush over all primaries of a deployment."""

    def __init__(
        self,
        deployment: Deployment,
        question: Question,
        manner: Manner,
        *,
        stop: Callable[[], int | None] = lambda: None,
        watch: Callable[[Tally], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
        lock: FlushLock | None = None,
    ) -> None:
        self._deployment = deployment
        self._question = question
        self._manner = manner
        self._stop = stop
        self._watch = watch
        self._say = say
        self._lock = lock
        self._tally = Tally()
        self._guard = threading.Lock()
        self._moving: set[int] = set()
        self._said = ""
        self._without = [glob.compiled(each) for each in question.exclude]

    def run(self) -> Flushed:
        """Pass after pass. Raises Incomplete when a server stays away, Denied for a right that is missing."""
        done = Flushed()
        began = time.monotonic()
        for number in range(1, self._manner.passes + _MORE_PASSES + 1):
            self._tally = Tally()
            self._moving = set()
            done.passes.append(self._tally)
            try:
                self._pass()
            except PerfctlError as error:
                raise Incomplete(
                    f"stopped after {done.deleted:,} keys: {error.message}",
                    hint=error.hint or "the same command goes on: what is deleted no longer matches",
                ) from error
            done.stopped = self._stop()
            if done.stopped is not None or (number >= self._manner.passes and not self._moving):
                break
            if self._moving:
                time.sleep(_LOOK_AGAIN_S)
        done.moving = frozenset(self._moving)
        done.seconds = time.monotonic() - began
        return done

    def _pass(self) -> None:
        """Walk every primary, and those that came to have keys meanwhile, until all have been walked whole.

        A cursor means nothing to another server, nor to the same one after a restart: it would pass over a quarter
        of the keys without a word. So whoever is new is walked from the beginning.
        """
        walked: dict[str, frozenset[int]] = {}
        answered = time.monotonic()
        while self._stop() is None:
            try:
                todo = self._todo(walked)
            except Unreachable as error:
                if time.monotonic() - answered > BACK_WITHIN_S:
                    raise
                self._say_once(f"waiting for a primary: {error.message}")
                time.sleep(_LOOK_AGAIN_S)
                continue
            if not todo:
                return
            with ThreadPoolExecutor(max_workers=len(todo)) as threads:
                try:
                    failures = list(threads.map(partial(self._try, of=len(todo)), todo))
                except BaseException:
                    # A second signal, or a right that is missing: nobody is to wait for the others' answers.
                    for _, node, _ in todo:
                        node.close()
                    raise
            for (primary, _, run_id), failure in zip(todo, failures, strict=True):
                if failure is None:
                    walked[run_id] = primary.slots
                    answered = time.monotonic()
                else:
                    self._tally.restarts += 1
                    self._say_once(f"{failure.message}; its keys will be walked from the beginning")
            if any(failures) and time.monotonic() - answered > BACK_WITHIN_S:
                raise next(each for each in failures if each)
            if any(failures):
                time.sleep(_LOOK_AGAIN_S)

    def _todo(self, walked: dict[str, frozenset[int]]) -> list[tuple[Primary, Node, str]]:
        """Who has keys that were not walked past. Raises Unreachable when one of all does not answer."""
        with ExitStack() as opened:
            found = []
            for primary in self._deployment.primaries():
                node = self._deployment.open(primary.address)
                opened.callback(node.close)
                facts = info(node, "server") | info(node, "replication")
                if facts.get("role") != "master":
                    raise Unreachable(f"{primary.address} is a replica now")
                run_id = facts["run_id"]
                if run_id in walked and primary.slots <= walked[run_id]:
                    node.close()
                else:
                    found.append((primary, node, run_id))
            opened.pop_all()
        return found

    def _try(self, found: tuple[Primary, Node, str], of: int) -> Unreachable | None:
        """Walk one of ``of`` servers; why it could not be walked to its end, None when it was."""
        primary, node, _ = found
        try:
            with _probing(self._deployment, primary, self._manner) as probe:
                _Walk(self, primary, node, probe, of).run()
            if info(node, "replication").get("role") != "master":
                return Unreachable(f"{primary.address} is a replica now")
            if self._deployment.kind == "cluster":
                own = primaries_of(node.call("CLUSTER", "NODES").decode(), primary.address)
                with self._guard:
                    self._moving |= {slot for each in own for slot in each.moving}
        except Unreachable as error:
            return error
        finally:
            node.close()
        return None

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)

    def count(self, matched: int, deleted: int) -> None:
        """Told by a walk of what it came by."""
        with self._guard:
            self._tally.matched += matched
            self._tally.deleted += deleted
            self._watch(self._tally)
            if self._lock is not None:
                self._lock.renew()


@contextmanager
def _probing(deployment: Deployment, primary: Primary, manner: Manner) -> Iterator[Probe | None]:
    """A probe of the latency beside a walk, where a budget is to be kept."""
    probe = None if manner.max_latency_s is None else Probe(deployment.open(primary.address))
    try:
        yield probe
    finally:
        if probe is not None:
            probe.close()


class _Walk:
    """One server from cursor 0 to its end. While a page is deleted the next one is on its way."""

    def __init__(self, flush: Flush, primary: Primary, node: Node, probe: Probe | None, of: int) -> None:
        self._flush = flush
        self._node = node
        self._probe = probe
        self._size = PageSize(flush._manner.count, flush._manner.fixed)
        self._bucket = Bucket(flush._manner.rate / of if flush._manner.rate else None)
        self._by_slot = flush._deployment.kind == "cluster"
        self._router = Router(flush._deployment, primary.address)
        #: keys whose deletion is sent and not answered, a list a command
        self._sent: deque[list[bytes]] = deque()
        self._pause_s = 0.0
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
                keys = self._chosen(keys)
                going = cursor != b"0" and self._flush._stop() is None
                before = len(self._sent)
                self._wait(len(keys))
                deletion = self._deletion(keys)
                page = self._ask(cursor)
                asked = time.perf_counter()
                self._node.send((pack(page) if going else b"") + deletion)
                self._settle(before)
                if not going:
                    break
                # The reply to the page stands before those to the deletion that was sent behind it.
            self._settle(len(self._sent))
        finally:
            self._router.close()

    def _ask(self, cursor: bytes) -> list[Word]:
        question = self._flush._question
        words: list[Word] = ["SCAN", cursor, "MATCH", question.pattern, "COUNT", self._size.count]
        return [*words, "TYPE", question.type] if question.type else words

    def _chosen(self, keys: list[bytes]) -> list[bytes]:
        if LOCK in keys:
            # The lock of this very flush.
            keys.remove(LOCK)
        if without := self._flush._without:
            keys = [key for key in keys if not any(each.fullmatch(key) for each in without)]
        return keys

    def _deletion(self, keys: list[bytes]) -> bytes:
        """UNLINK for the page, in a cluster one for each slot."""
        if not keys:
            return b""
        groups = [keys]
        if self._by_slot:
            slots: defaultdict[int, list[bytes]] = defaultdict(list)
            for key in keys:
                slots[slot_of(key)].append(key)
            groups = list(slots.values())
        self._sent.extend(groups)
        return b"".join(pack(("UNLINK", *group)) for group in groups)

    def _settle(self, number: int) -> None:
        """Take so many replies to deletions."""
        matched = deleted = 0
        for _ in range(number):
            keys = self._sent.popleft()
            matched += len(keys)
            deleted += self._deleted(keys, self._node.receive())
        if matched:
            self._flush.count(matched, deleted)

    def _deleted(self, keys: list[bytes], reply: Reply) -> int:
        if isinstance(reply, int):
            return reply
        error = refusal(reply, ("UNLINK",))
        if isinstance(error, CommandFailed):
            if error.code == "READONLY":
                raise ConnectionLost(f"{self._node.address} is a replica now")
            if error.code in _ELSEWHERE:
                return sum(self._router.call("UNLINK", key) for key in keys)
        raise error

    def _wait(self, keys: int) -> None:
        """Give way to others, as far as the budgets ask for it."""
        manner = self._flush._manner
        now = time.monotonic()
        if self._probe is not None and manner.max_latency_s is not None and now - self._judged >= _JUDGE_EVERY_S:
            self._judged = now
            excess = excess_s(self._probe.idle, self._probe.times())
            self._pause_s = next_pause_s(self._pause_s, excess, manner.max_latency_s)
        pause = max(self._pause_s, self._bucket.wait_s(keys, now))
        until = now + pause
        while (left := until - time.monotonic()) > 0 and self._flush._stop() is None:
            time.sleep(min(left, _LOOK_AGAIN_S))


def check_rights(router: Router, key: bytes) -> None:
    """Raise Denied when a key of this kind may not be deleted: tried on a name beside it, which no key has."""
    router.call("UNLINK", key + b":perfctl:no-such-key")


def released(lock: FlushLock) -> None:
    """Give the lock back; a server that is gone forgets it by itself."""
    with suppress(PerfctlError):
        lock.release()
