"""Servers that go on after perfctl: what is written down about them, and how another perfctl ends them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from perfctl.embedded.process import is_server, stop_process
from perfctl.errors import Denied, Refused


@dataclass(frozen=True, slots=True)
class Kept:
    """A server that was left running."""

    #: "PostgreSQL" or "Valkey"
    kind: str
    pid: int
    #: the folder that the server works in; no other process of the machine does
    data_dir: Path
    #: signals that end it, each with the seconds that it is given
    stop: tuple[tuple[int, float], ...]
    #: what goes away with its data
    folders: tuple[Path, ...]

    @property
    def running(self) -> bool:
        """Whether the process is there, and is the server rather than a later one with its number."""
        return is_server(self.pid, self.data_dir)


def remember(base_dir: Path, kept: Kept) -> None:
    """Write a server down in ``base_dir``."""
    record = _record(base_dir, kept.kind)
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(dataclasses.asdict(kept), default=str), encoding="utf-8")
    fresh.replace(record)


def kept_servers(base_dir: Path) -> tuple[Kept, ...]:
    """The servers that were started in ``base_dir`` with ``keep``, running or not.

    Raises Denied when a record is another user's: it names folders to remove, and we only trust our own.
    """
    found = []
    for kind in ("PostgreSQL", "Valkey"):
        record = _record(base_dir, kind)
        if not record.is_file():
            continue
        if record.lstat().st_uid != os.geteuid():
            raise Denied(f'"{record}" belongs to another user', hint="run perfctl as that user")
        facts = json.loads(record.read_text(encoding="utf-8"))
        found.append(
            Kept(
                kind=facts["kind"],
                pid=int(facts["pid"]),
                data_dir=Path(facts["data_dir"]),
                stop=tuple((int(signum), float(seconds)) for signum, seconds in facts["stop"]),
                folders=tuple(Path(folder) for folder in facts["folders"]),
            )
        )
    return tuple(found)


def stop_kept(base_dir: Path, *, remove: bool = False) -> tuple[str, ...]:
    """End the servers that were left running in ``base_dir``; with ``remove`` their data goes too.

    Returns the kinds of those that ran. Raises Refused when one does not end, Denied when they are
    another user's.
    """
    stopped = []
    for kept in kept_servers(base_dir):
        if kept.running:
            if not stop_process(kept.pid, kept.data_dir, kept.stop):
                raise Refused(f'{kept.kind} (process {kept.pid}) in "{base_dir}" does not end')
            stopped.append(kept.kind)
        if remove:
            for folder in kept.folders:
                shutil.rmtree(folder, ignore_errors=True)
            _record(base_dir, kept.kind).unlink(missing_ok=True)
    return tuple(stopped)


def _record(base_dir: Path, kind: str) -> Path:
    """Beside the server's folder, not in it: what runs as the server must not be able to rewrite it."""
    return base_dir / f"{kind.lower()}.json"
