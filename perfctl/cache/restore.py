"""Brings back the keys of a backup, each with the life that it had left."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from perfctl.cache.backup import Record
from perfctl.cache.lock import FlushLock
from perfctl.cache.route import Router
from perfctl.cache.selection import ELSEWHERE, Command
from perfctl.errors import CommandFailed, Denied, Incomplete, PerfctlError, Refused
from perfctl.servers.deployment import Deployment, Primary
from perfctl.servers.redis import Address, slot_of

#: Keys that are sent together, and bytes of values.
_TOGETHER = 200
_TOGETHER_BYTES = 1024**2

#: The server has no memory for more, whichever key it is.
_FULL = "OOM"


@dataclass(slots=True)
class Restored:
    """What became of the keys of a backup."""

    restored: int = 0
    #: a key of the name is there; it was left
    exists: int = 0
    #: would have expired by now
    expired: int = 0
    #: refused by the server, by its reason
    failed: Counter[str] = field(default_factory=Counter)
    #: the signal that ended it early
    stopped: int | None = None

    @property
    def keys(self) -> int:
        """All that were looked at."""
        return self.restored + self.exists + self.expired + self.failed.total()


class Restore:
    """One way back over all primaries of a deployment."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        overwrite: bool,
        lock: FlushLock,
        stop: Callable[[], int | None] = lambda: None,
        watch: Callable[[Restored], None] = lambda _: None,
    ) -> None:
        self._deployment = deployment
        self._overwrite = overwrite
        self._lock = lock
        self._stop = stop
        self._watch = watch
        self._done = Restored()
        self._primaries = deployment.primaries()
        self._router = Router(deployment, self._primaries[0].address)
        self._now_ms = self._server_time_ms()
        self._since = time.monotonic()

    def run(self, records: Iterable[Record]) -> Restored:
        """Every record, in order. Raises Refused when the server takes none, Incomplete when it fails in between."""
        try:
            for portion in _portions(records):
                self._done.stopped = self._stop()
                if self._done.stopped is not None:
                    break
                self._send(portion)
                self._watch(self._done)
        except PerfctlError as error:
            if not self._done.restored:
                raise
            raise Incomplete(
                f"stopped after {self._done.restored:,} keys: {error.message}",
                hint=error.hint or "the same command goes on: what is there is left",
            ) from error
        finally:
            self._router.close()
        return self._done

    def _send(self, portion: list[Record]) -> None:
        now_ms = self._now_ms + round((time.monotonic() - self._since) * 1000)
        alive = [each for each in portion if not each.expires_at_ms or each.expires_at_ms > now_ms]
        self._done.expired += len(portion) - len(alive)
        by_node: defaultdict[Address, list[Record]] = defaultdict(list)
        for record in alive:
            by_node[self._home(record.key)].append(record)
        for address, records in by_node.items():
            commands = [self._command(record) for record in records]
            replies = self._router.calls(address, commands)
            for command, reply in zip(commands, replies, strict=True):
                self._count(self._followed(command) if _is_elsewhere(reply) else reply)

    def _command(self, record: Record) -> Command:
        replace: Command = ("REPLACE",) if self._overwrite else ()
        return ("RESTORE", record.key, record.expires_at_ms, record.payload, "ABSTTL", *replace)

    def _followed(self, command: Command) -> object:
        try:
            return self._router.call(*command)
        except CommandFailed as error:
            return error

    def _count(self, reply: object) -> None:
        if isinstance(reply, CommandFailed) and reply.code == "BUSYKEY":
            self._done.exists += 1
        elif isinstance(reply, CommandFailed):
            if reply.code in (_FULL, "READONLY", "MISCONF", "NOREPLICAS"):
                raise reply
            reason = reply.message.removeprefix("RESTORE: ")
            self._done.failed[reason] += 1
            if not self._done.restored and "DUMP payload version" in reason:
                # The first of them: it is the server, and will be so for all.
                raise Refused(
                    f"{self._deployment.version} cannot read the values of the server that they are from",
                    hint="a newer server reads the values of an older one, and not the other way round",
                )
        elif isinstance(reply, PerfctlError):
            raise reply
        else:
            self._done.restored += 1

    def _home(self, key: bytes) -> Address:
        """Who has the key, as far as is known; whoever has it now tells where it has gone."""
        if self._deployment.kind != "cluster":
            return self._primaries[0].address
        slot = slot_of(key)
        found: Primary = next((each for each in self._primaries if slot in each.slots), self._primaries[0])
        return found.address

    def _server_time_ms(self) -> int:
        try:
            seconds, micros = (int(part) for part in self._router.call("TIME"))
        except Denied:
            # A user may be denied it; the two clocks should be the same anyway.
            return round(time.time() * 1000)
        return seconds * 1000 + micros // 1000


def _is_elsewhere(reply: object) -> bool:
    return isinstance(reply, CommandFailed) and reply.code in ELSEWHERE


def _portions(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records that are sent together."""
    portion: list[Record] = []
    size = 0
    for record in records:
        portion.append(record)
        size += len(record.payload)
        if len(portion) >= _TOGETHER or size >= _TOGETHER_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
