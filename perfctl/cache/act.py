"""Deletes the keys that a look has shown, so that nobody notices and none is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from perfctl.cache.backup import Backup
from perfctl.cache.lock import FlushLock
from perfctl.cache.model import Manner, Question
from perfctl.cache.outcome import Flushed, Tally
from perfctl.cache.probe import Probe
from perfctl.cache.walk import Errand, Walk
from perfctl.errors import Busy, CommandFailed, Incomplete, PerfctlError, Unreachable
from perfctl.servers.deployment import Deployment, Primary, info, primaries_of
from perfctl.servers.redis import Node

#: A server that does not answer is waited for so long since the last one that did: a failover takes seconds.
BACK_WITHIN_S = 30.0
_LOOK_AGAIN_S = 0.2

#: Passes beyond those asked for while slots of a cluster are on their way: keys there are seen by neither side.
_MORE_PASSES = 10


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
        backup: Backup | None = None,
    ) -> None:
        self._deployment = deployment
        self._manner = manner
        self._stop = stop
        self._watch = watch
        self._say = say
        self._lock = lock
        self._errand = Errand(deployment, question, manner, stop, self._count, backup)
        self._tally = Tally()
        self._guard = threading.Lock()
        self._moving: set[int] = set()
        self._said = ""

    @property
    def goes_on(self) -> str:
        """How to go on where this ended early."""
        if self._errand.backup is not None:
            return "the same command with another file for --backup goes on; both files are to be kept"
        return "the same command goes on: what is deleted no longer matches"

    def run(self) -> Flushed:
        """Pass after pass. Raises Incomplete when a server stays away, Denied for a right that is missing."""
        done = Flushed(goes_on=self.goes_on)
        began = time.monotonic()
        for number in range(1, self._manner.passes + _MORE_PASSES + 1):
            self._tally = Tally()
            self._moving = set()
            done.passes.append(self._tally)
            try:
                self._pass()
            except PerfctlError as error:
                if not done.deleted and self._errand.backup is None:
                    # The first of all: nothing was changed, and its own exit code says more.
                    raise
                raise Incomplete(
                    f"stopped after {done.deleted:,} keys: {error.message}",
                    hint=error.hint or self.goes_on,
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
                Walk(self._errand, primary, node, probe, of).run()
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

    def _count(self, matched: int, deleted: int, too_large: int, lasting: int) -> None:
        """Told by a walk of what it came by."""
        with self._guard:
            self._tally.matched += matched
            self._tally.deleted += deleted
            self._tally.too_large += too_large
            self._tally.lasting += lasting
            self._watch(self._tally)
        if self._lock is not None and self._lock.lost:
            raise Busy("another flush has taken the lock meanwhile")


@contextmanager
def _probing(deployment: Deployment, primary: Primary, manner: Manner) -> Iterator[Probe | None]:
    """A probe of the latency beside a walk, where a budget is to be kept."""
    probe = None if manner.max_latency_s is None else Probe(deployment.open(primary.address))
    try:
        yield probe
    finally:
        if probe is not None:
            probe.close()


def flush_databases(deployment: Deployment, stop: Callable[[], int | None], say: Callable[[str], None]) -> int:
    """Empty the database of every primary with FLUSHDB ASYNC; how many keys there were just before.

    Raises Denied when the first refuses, Incomplete once any is empty.
    """
    emptied: dict[str, int] = {}
    answered = time.monotonic()
    while stop() is None:
        try:
            left = [each for each in deployment.primaries() if str(each.address) not in emptied]
            for primary in left:
                node = deployment.open(primary.address)
                try:
                    keys = node.call("DBSIZE")
                    node.call("FLUSHDB", "ASYNC")
                finally:
                    node.close()
                emptied[str(primary.address)] = keys
                answered = time.monotonic()
            break
        except (Unreachable, CommandFailed) as error:
            away = isinstance(error, Unreachable) or error.code == "READONLY"
            if not away or time.monotonic() - answered > BACK_WITHIN_S:
                raise _after(emptied, error) from error
            say(f"waiting for a primary: {error.message}")
            time.sleep(_LOOK_AGAIN_S)
        except PerfctlError as error:
            raise _after(emptied, error) from error
    # One of them was the lock of this very flush.
    return max(0, sum(emptied.values()) - 1)


def _after(emptied: Mapping[str, int], error: PerfctlError) -> PerfctlError:
    """The error, when some servers are empty already."""
    if not emptied:
        return error
    return Incomplete(f"emptied {', '.join(emptied)}, then: {error.message}", hint=error.hint)


def released(lock: FlushLock) -> None:
    """Give the lock back; a server that is gone forgets it by itself."""
    with suppress(PerfctlError):
        lock.release()
