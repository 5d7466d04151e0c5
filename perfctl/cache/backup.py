"""Values before they are taken away: a file that `perfctl cache restore` reads, and `redis-cli --pipe` too.

It is a stream of commands as they go over the wire: ECHO with what the file is, a RESTORE for each key, and ECHO with
their number at the end. Times to live are points in time on the server's clock (ABSTTL), so what would have expired
meanwhile does not come to life again. See https://valkey.io/commands/restore/.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_READ_BYTES = 1 << 20

#: What one round trip may bring.
_TOGETHER_BYTES = 8 * 1024**2


class Backup:
    """A file that is being written. Only its owner reads it: values may be of somebody."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Begin a file; one that is there is never overwritten. Raises UsageError."""
        self.path = path
        self.keys = 0
        self.size_bytes = 0
        self._lock = threading.Lock()
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
        """End the file; ``whole`` when nothing is left to be written to it."""
        if whole:
            self._write(pack(("ECHO", _END + str(self.keys).encode())), 0)
        os.close(self._file)

    def _write(self, data: bytes, keys: int) -> None:
        with self._lock:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except OSError as error:
                raise UsageError(
                    f'the backup "{self.path}" cannot be written: {error.strerror}; nothing more is taken away'
                ) from error
            self.keys += keys
            self.size_bytes += len(data)


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
        first = next(self._commands(), None)
        if first is None or len(first) != 2 or first[0] != b"ECHO" or not first[1].startswith(_MAGIC):
            raise UsageError(f'"{path}" is no backup of perfctl\'s')
        self.facts: dict[str, Any] = json.loads(first[1][len(_MAGIC) :])
        #: whether the flush that wrote it came to its end; known once all records have been read
        self.whole = False

    def records(self) -> Iterator[Record]:
        """Every key, in the order in which they were taken away. Raises UsageError for a file that is damaged."""
        self.whole = False
        commands = self._commands()
        next(commands)
        for command in commands:
            if command[0] == b"ECHO" and command[1].startswith(_END):
                self.whole = True
            elif command[0] == b"RESTORE" and len(command) == 5 and command[4] == b"ABSTTL":
                yield Record(command[1], int(command[2]), command[3])
            else:
                raise UsageError(f'"{self._path}" holds a command that no backup has: {command[0]!r}')

    def _commands(self) -> Iterator[list[bytes]]:
        try:
            with self._path.open("rb") as file:
                yield from unpack(_chunks(file.read))
        except OSError as error:
            raise UsageError(f'the backup "{self._path}" cannot be read: {error.strerror}') from error
        except ValueError as error:
            raise UsageError(f'"{self._path}" is no backup of perfctl\'s, or damaged: {error}') from error


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(_READ_BYTES):
        yield chunk
