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
from perfctl.errors import Busy, CommandFailed, Denied, Incomplete, PerfctlError, Refused
from perfctl.servers.deployment import Deployment, Primary
from perfctl.servers.redis import Address, Node, Reply, slot_of

#: Keys that are sent together, and bytes of values: what a slow link carries within the time for one reply. A larger
#: value goes alone, and has more time.
_TOGETHER = 200
_TOGETHER_BYTES = 256 * 1024

#: Refusals that are the server's state, whichever key it is.
_STATES = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")

#: What a server says of a value whose checksum does not fit, and of one that a newer server wrote.
_UNREADABLE = "DUMP payload version"
_DAMAGED = "the value in the backup is damaged"
_CHECKSUM_BYTES = 8

#: Two ends of life so near are the same: each was reckoned from a time to live and a clock.
_NEAR_MS = 1000


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
        soft: bool = False,
        stop: Callable[[], int | None] = lambda: None,
        watch: Callable[[Restored], None] = lambda _: None,
    ) -> None:
        """``soft``: the keys were not deleted, their lives were cut short; those that are still there live on."""
        self._deployment = deployment
        self._soft = soft
        self._overwrite = overwrite
        self._lock = lock
        self._stop = stop
        self._watch = watch
        self._done = Restored()
        self._primaries = deployment.primaries()
        self._router = Router(deployment, self._primaries[0].address)
        self._nodes: dict[Address, Node] = {}
        #: whether commands were sent whose replies did not come
        self._unsure = False
        self._now_ms = self._server_time_ms()
        self._since = time.monotonic()

    def run(self, records: Iterable[Record]) -> Restored:
        """Every record, in order. Raises Refused when the server takes none, Incomplete when it fails in between."""
        try:
            for portion in _portions(records):
                self._done.stopped = self._stop()
                if self._done.stopped is not None:
                    break
                if self._lock.lost:
                    raise Busy("a flush has taken the lock meanwhile")
                self._send(portion)
                self._watch(self._done)
        except PerfctlError as error:
            if not self._done.restored and not self._unsure:
                raise
            raise Incomplete(
                f"stopped after {self._done.restored:,} keys: {error.message}",
                hint=error.hint or "the same command goes on: what is there is left",
            ) from error
        finally:
            self._router.close()
            for node in self._nodes.values():
                node.close()
        return self._done

    def _send(self, portion: list[Record]) -> None:
        now_ms = self._server_now_ms()
        alive = [each for each in portion if not each.expires_at_ms or each.expires_at_ms > now_ms]
        self._done.expired += len(portion) - len(alive)
        by_node: defaultdict[Address, list[Record]] = defaultdict(list)
        for record in alive:
            by_node[self._home(record.key)].append(record)
        for address, records in by_node.items():
            replies = self._ask(address, [self._command(record) for record in records])
            there = [record for record, reply in zip(records, replies, strict=True) if _is_there(reply)]
            if self._soft and there:
                others = [(each, reply) for each, reply in zip(records, replies, strict=True) if not _is_there(reply)]
                # What was restored is told first: the questions that follow may fail.
                self._judge(others)
                self._judge(self._lengthened(address, there))
            else:
                self._judge(list(zip(records, replies, strict=True)))

    def _lengthened(self, address: Address, records: list[Record]) -> list[tuple[Record, object]]:
        """Give keys that are as they were, and are to die sooner, the end of life back that they had."""
        asked: list[Command] = [(name, each.key) for each in records for name in ("DUMP", "PTTL")]
        replies = self._ask(address, asked)
        now_ms = self._server_now_ms()
        found: list[tuple[Record, object]] = []
        dying: list[Record] = []
        for record, payload, life_ms in zip(records, replies[::2], replies[1::2], strict=True):
            failed = next((each for each in (payload, life_ms) if isinstance(each, PerfctlError)), None)
            sooner = (
                isinstance(life_ms, int)
                and life_ms != -1
                and (not record.expires_at_ms or now_ms + life_ms < record.expires_at_ms + _NEAR_MS)
            )
            if failed is not None:
                found.append((record, failed))
            elif payload is None or (payload == record.payload and sooner):
                dying.append(record)
            else:
                found.append((record, _there()))
        if not dying:
            return found
        lives: list[Command] = [
            ("PEXPIREAT", each.key, each.expires_at_ms) if each.expires_at_ms else ("PERSIST", each.key)
            for each in dying
        ]
        changed = list(zip(dying, self._ask(address, lives), strict=True))
        found += [(record, reply) for record, reply in changed if reply != 0]
        # These have died since.
        dead = [record for record, reply in changed if reply == 0]
        if dead:
            found += zip(dead, self._ask(address, [self._command(each) for each in dead]), strict=True)
        return found

    def _ask(self, address: Address, commands: list[Command]) -> list[object]:
        """The replies to commands for a key each, from whoever has the key; every error is a reply."""
        node = self._node(address)
        usual_s = node.answer_within_s
        size = sum(len(word) for command in commands for word in command if isinstance(word, bytes))
        if usual_s is not None:
            node.answer_within_s = usual_s * max(1.0, size / _TOGETHER_BYTES)
        self._unsure = True
        replies: list[Reply] = node.calls(commands)
        self._unsure = False
        node.answer_within_s = usual_s
        return [
            self._followed(command) if _is_elsewhere(reply) else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._deployment.open(address)
        return self._nodes[address]

    def _command(self, record: Record) -> Command:
        replace: Command = ("REPLACE",) if self._overwrite else ()
        return ("RESTORE", record.key, record.expires_at_ms, record.payload, "ABSTTL", *replace)

    def _followed(self, command: Command) -> object:
        try:
            return self._router.call(*command)
        except PerfctlError as error:
            return error

    def _judge(self, answered: list[tuple[Record, object]]) -> None:
        """Count all of them before what ends it is raised: what was restored has to be told."""
        ends: PerfctlError | None = None
        too_new = False
        for record, reply in answered:
            if not isinstance(reply, PerfctlError):
                self._done.restored += 1
            elif not isinstance(reply, CommandFailed) or reply.code in _STATES:
                ends = ends or reply
            elif _is_there(reply):
                self._done.exists += 1
            elif _UNREADABLE not in reply.message:
                self._done.failed[reply.message.removeprefix("RESTORE: ")] += 1
            elif is_damaged(record.payload):
                self._done.failed[_DAMAGED] += 1
            else:
                self._done.failed[f"{self._deployment.version} cannot read it"] += 1
                too_new = True
        if ends is not None:
            raise ends
        if too_new and not self._done.restored:
            # It is the server, and will be so for all.
            raise Refused(
                f"{self._deployment.version} cannot read the values of the server that they are from",
                hint="a newer server reads the values of an older one, and not the other way round",
            )

    def _home(self, key: bytes) -> Address:
        """Who has the key, as far as is known; whoever has it now tells where it has gone."""
        if self._deployment.kind != "cluster":
            return self._primaries[0].address
        slot = slot_of(key)
        found: Primary = next((each for each in self._primaries if slot in each.slots), self._primaries[0])
        return found.address

    def _server_now_ms(self) -> int:
        return self._now_ms + round((time.monotonic() - self._since) * 1000)

    def _server_time_ms(self) -> int:
        try:
            seconds, micros = (int(part) for part in self._router.call("TIME"))
        except Denied:
            # A user may be denied it; the two clocks should be the same anyway.
            return round(time.time() * 1000)
        return seconds * 1000 + micros // 1000


def _is_elsewhere(reply: object) -> bool:
    return isinstance(reply, CommandFailed) and reply.code in ELSEWHERE


def _is_there(reply: object) -> bool:
    return isinstance(reply, CommandFailed) and reply.code == "BUSYKEY"


def _there() -> CommandFailed:
    """What a server says of a name that is taken."""
    return CommandFailed("BUSYKEY", code="BUSYKEY")


def _portions(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records that are sent together: the first alone, for what the server says of it holds for many."""
    portion: list[Record] = []
    size, most = 0, 1
    for record in records:
        if portion and size + len(record.payload) > _TOGETHER_BYTES:
            yield portion
            portion, size, most = [], 0, _TOGETHER
        portion.append(record)
        size += len(record.payload)
        if len(portion) >= most:
            yield portion
            portion, size, most = [], 0, _TOGETHER
    if portion:
        yield portion


def is_damaged(payload: bytes) -> bool:
    """Whether a value of DUMP is not what its checksum says: CRC-64 of Jones, at its end, low byte first."""
    body, checksum = payload[:-_CHECKSUM_BYTES], payload[-_CHECKSUM_BYTES:]
    crc = 0
    for byte in body:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return len(checksum) < _CHECKSUM_BYTES or crc != int.from_bytes(checksum, "little")


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x95AC9329AC4BC9B5 if byte & 1 else 0)
    return byte


_CRC = tuple(map(_crc_of_byte, range(256)))
