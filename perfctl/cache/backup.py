"""Values before they are taken away: a file that `perfctl cache restore` reads, and `redis-cli --pipe` too.

It is a stream of commands as they go over the wire: ECHO with what the file is, a RESTORE for each value, and ECHO with
their number and a digest of all before it at the end. A key that was taken away twice stands there twice; its last
value is the one that it had. Times to live are points in time on the server's clock (ABSTTL), so what would have
expired meanwhile does not come to life again. See https://valkey.io/commands/restore/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfctl.cache.model import Traits
from perfctl.cache.selection import Ask, Command
from perfctl.errors import PerfctlError, UsageError
from perfctl.servers.redis import Node, pack, unpack

#: A key that takes more memory is not written: DUMP would hold the server up for longer than others should wait.
LARGEST_BYTES = 4 * 1024**2

_MAGIC = b"perfctl cache backup 1 "
_END = b"perfctl cache backup end "
#: How many values, and the digest of all that stands before.
_END_SAYS = re.compile(re.escape(_END) + rb"(\d+) ([0-9a-f]{64})")
#: How each value begins in the file.
_BEGIN = b"*5\r\n$7\r\nRESTORE\r\n$"
_READ_BYTES = 1 << 20
#: The end of the file is looked for in so many bytes.
_TAIL_BYTES = 256
#: Points in time are signed 64-bit numbers for the server.
_LATEST_MS = 2**63 - 1

#: What one round trip may bring.
_TOGETHER_BYTES = 8 * 1024**2


class Backup:
    """A file that is being written. Only its owner reads it: values may be of somebody."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Begin a file; one that is there is never overwritten. Raises UsageError."""
        self.path = path
        self.keys = 0
        self.size_bytes = 0
        #: whether its end has been written; known once it is closed
        self.whole = False
        #: why nothing more can be written to it
        self.problem: str | None = None
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(f'the backup "{path}" is there already', hint="name another file") from None
        except OSError as error:
            raise UsageError(f'the backup "{path}" cannot be written: {error.strerror}') from error
        self._write(pack(("ECHO", _MAGIC + json.dumps(facts).encode())), 0)

    def keep(self, keys: Sequence[bytes], traits: Sequence[Traits | None], ask: Ask, node: Node) -> list[bool]:
        """Write these keys with their values; for each whether it was there to be written. Raises Denied, UsageError.

        What this returns True for is on the disk: not before may it be taken away.
        """
        seconds, micros = (int(part) for part in node.call("TIME"))
        now_ms = seconds * 1000 + micros // 1000
        kept: list[bool] = []
        for start, end in _portions(traits):
            commands: list[Command] = [("DUMP", key) for key in keys[start:end]]
            lines = []
            for key, known, payload in zip(keys[start:end], traits[start:end], ask(commands), strict=True):
                if isinstance(payload, PerfctlError):
                    raise payload
                kept.append(isinstance(payload, bytes))
                if isinstance(payload, bytes):
                    ttl_ms = known.ttl_ms if known is not None else None
                    at = 0 if ttl_ms is None else now_ms + ttl_ms
                    lines.append(pack(("RESTORE", key, at, payload, "ABSTTL")))
            self._write(b"".join(lines), len(lines))
        return kept

    def close(self, *, whole: bool) -> None:
        """End the file; ``whole`` when nothing is left to be written to it.

        Never raises, for what was flushed has to be told all the same: ``whole`` and ``problem`` say what came of it.
        """
        if whole:
            with suppress(UsageError):
                says = f"{self.keys} {self._digest.hexdigest()}".encode()
                self._write(pack(("ECHO", _END + says)), 0)
                self.whole = True
        try:
            os.close(self._file)
        except OSError as error:
            self.whole = False
            self.problem = self.problem or f'the backup "{self.path}" cannot be written: {error.strerror}'

    def _write(self, data: bytes, keys: int) -> None:
        with self._lock:
            if self.problem is not None:
                raise UsageError(f"{self.problem}; nothing more is taken away")
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except OSError as error:
                self.problem = f'the backup "{self.path}" cannot be written: {error.strerror}'
                with suppress(OSError):
                    # Half a value at the end would say less than none.
                    os.ftruncate(self._file, self.size_bytes)
                raise UsageError(f"{self.problem}; nothing more is taken away") from error
            self.keys += keys
            self.size_bytes += len(data)
            self._digest.update(data)


def _portions(traits: Sequence[Traits | None]) -> Iterator[tuple[int, int]]:
    """From where to where keys are asked for together, by the memory that they take."""
    start = size = 0
    for at, known in enumerate(traits):
        own = (known.size_bytes or 0) if known is not None else 0
        if at > start and size + own > _TOGETHER_BYTES:
            yield start, at
            start, size = at, 0
        size += own
    if start < len(traits):
        yield start, len(traits)


@dataclass(frozen=True, slots=True)
class Record:
    """One key of a backup."""

    key: bytes
    #: milliseconds since 1970 on the server's clock; 0 for a key that does not expire
    expires_at_ms: int
    payload: bytes = field(repr=False)


class Saved:
    """A backup that is there to be read."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError for a file that is no backup."""
        self._path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise UsageError(
                    f'"{path}" is no regular file; a backup is read more than once', hint="write it to a file first"
                )
        except OSError as error:
            raise UsageError(f'the backup "{path}" cannot be read: {error.strerror}') from error
        first = next(self._commands(), None)
        if first is None or len(first) != 2 or first[0] != b"ECHO" or not first[1].startswith(_MAGIC):
            raise UsageError(f'"{path}" is no backup of perfctl\'s')
        self.facts: dict[str, Any] = self._head(first[1][len(_MAGIC) :])
        #: whether the flush that wrote it came to its end; known once all names have been read
        self.whole = False
        #: of each name, by its digest, where its last record stands
        self._last: dict[bytes, int] | None = None
        self._count = 0

    def names(self) -> Iterator[bytes]:
        """The name of every key, once. Raises UsageError for a file that is damaged, at its end at the latest."""
        self.whole = False
        last: dict[bytes, int] = {}
        digest, size, count = hashlib.sha256(), 0, 0
        for number, command in enumerate(self._commands()):
            if self.whole:
                raise self._damaged("something stands behind its end")
            if number and command[0] == b"ECHO":
                self._check_end(command, count, digest.hexdigest())
                self.whole = True
                continue
            if number:
                record = self._record(command)
                name = _digest(record.key)
                if name not in last:
                    yield record.key
                last[name] = count
                count += 1
            packed = pack(command)
            digest.update(packed)
            size += len(packed)
        if not self.whole:
            self._check_rest(size)
        self._last, self._count = last, count

    def records(self) -> Iterator[Record]:
        """Every key with its last value, in the order in which they were taken away. Raises UsageError as ``names``."""
        if self._last is None:
            deque(self.names(), maxlen=0)
        assert self._last is not None
        count = 0
        commands = self._commands()
        next(commands, None)
        for command in commands:
            if command[0] == b"ECHO":
                break
            record = self._record(command)
            if self._last.get(_digest(record.key)) == count:
                yield record
            count += 1
        if count != self._count:
            raise self._damaged("it changes while it is read")

    def _head(self, text: bytes) -> dict[str, Any]:
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged("its head cannot be read") from error
        if not isinstance(facts, dict):
            raise self._damaged("its head cannot be read")
        return facts

    def _record(self, command: list[bytes]) -> Record:
        if command[0] != b"RESTORE" or len(command) != 5 or command[4] != b"ABSTTL":
            raise self._damaged(f"it holds a command that no backup has, {command[0][:20]!r}")
        at = command[2]
        if not at.isdigit() or len(at) > 19 or int(at) > _LATEST_MS:
            raise self._damaged("the end of a key's life is no point in time")
        return Record(command[1], int(at), command[3])

    def _check_end(self, command: list[bytes], count: int, digest: str) -> None:
        says = _END_SAYS.fullmatch(command[1]) if len(command) == 2 else None
        if says is None:
            raise self._damaged("its end cannot be read")
        if int(says[1]) != count:
            raise self._damaged(f"it holds {count:,} values, and its end says {int(says[1]):,}")
        if says[2].decode() != digest:
            raise self._damaged("its content is not what was written")

    def _check_rest(self, start: int) -> None:
        """What breaks off at the end of the file is one value; more of them, or the end, were swallowed by damage."""
        try:
            with self._path.open("rb") as file:
                # The value that breaks off begins as all do, and that is no sign of damage.
                file.seek(start + 1)
                before, ended = b"", False
                while chunk := file.read(_READ_BYTES):
                    before += chunk
                    ended = ended or _END in before
                    if _BEGIN in before or (ended and before.endswith(b"\r\n")):
                        raise self._damaged("a value in it has another length than is said")
                    before = before[-_TAIL_BYTES:]
        except OSError as error:
            raise UsageError(f'the backup "{self._path}" cannot be read: {error.strerror}') from error

    def _damaged(self, why: str) -> UsageError:
        return UsageError(f'the backup "{self._path}" is damaged: {why}')

    def _commands(self) -> Iterator[list[bytes]]:
        try:
            with self._path.open("rb", buffering=_READ_BYTES) as file:
                yield from unpack(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise UsageError(f'the backup "{self._path}" cannot be read: {error.strerror}') from error
        except ValueError as error:
            raise UsageError(f'"{self._path}" is no backup of perfctl\'s, or damaged: {error}') from error


def _digest(key: bytes) -> bytes:
    """Stands for a name that may be long."""
    return hashlib.blake2b(key, digest_size=16).digest()
