"""A folder with a demo in it: servers that stay on, a configuration, copies of the SQL; and its orderly end."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfctl import embedded
from perfctl.demo import reference
from perfctl.demo.files import sql_folder
from perfctl.demo.screen import Screen
from perfctl.demo.show import MAJOR, configuration, fill
from perfctl.errors import Denied, Refused
from perfctl.report import Item, Status

#: What ``up`` made, so that ``down`` takes away that and nothing else.
MANIFEST = ".perfctl-demo.json"
SERVERS = "servers"
CONFIG = "perfctl.yaml"


@dataclass(frozen=True, slots=True)
class Ended:
    """What ``down`` did."""

    stopped: tuple[str, ...]
    removed: int
    #: files that are not as ``up`` made them, or not of its making
    left: tuple[str, ...]


def up(folder: Path, screen: Screen, scale: float, items: list[Item]) -> str:
    """Start a demo in an empty or a new folder; the database's address. What fails half-way is taken away again.

    Raises Refused for a folder that is not empty, MissingServer, NotStarted.
    """
    sql = sql_folder()
    installation = embedded.find_postgres(MAJOR)
    embedded.find_valkey()
    made_folder = _claim(folder)
    screen.title(f'perfctl demo: servers and data in "{folder}"')
    made: dict[str, str] = {}
    try:
        # First of all: whatever happens from here on, ``down`` knows the folder for a demo's.
        _write_manifest(folder, made_folder, made)
        for kind in ("migrations", "queries"):
            for source in sorted((sql / kind).glob("*.sql")):
                made[f"sql/{kind}/{source.name}"] = _put(folder / "sql" / kind / source.name, source.read_bytes())
        with screen.busy("starting PostgreSQL and Valkey"):
            server = embedded.start_postgres(installation, base_dir=folder / SERVERS, keep=True)
            cache = embedded.start_valkey(base_dir=folder / SERVERS, keep=True)
        for name, pid in ((f"PostgreSQL {installation.version}", server.pid), ("Valkey", cache.pid)):
            items.append(Item("server", name, Status.CHANGED, f"process {pid}", None, {"pid": pid}))
            screen.say(f"{name} runs as process {pid}")
        conninfo = {"host": str(server.socket_dir), "port": str(server.port), "user": "postgres"}
        fill(screen, items, conninfo, sql, scale)
        dsn = server.dsn(reference.DATABASE)
        made[CONFIG] = _put(folder / CONFIG, configuration(dsn, cache.url, "sql").encode())
        _write_manifest(folder, made_folder, made)
    except BaseException:
        _write_manifest(folder, made_folder, made)
        down(folder)
        raise
    items.append(Item("file", str(folder / CONFIG), Status.CHANGED, 'target "demo"', None, {"dsn": dsn}))
    return dsn


def down(folder: Path) -> Ended:
    """End the demo in a folder and take away what ``up`` made there; what a person has changed since stays.

    Raises Refused when there is no demo, or when a server does not end.
    """
    manifest = _manifest(folder)
    stopped = embedded.stop_kept(folder / SERVERS, remove=True)
    removed = sum(_take_away(folder, name, digest) for name, digest in manifest["files"].items())
    (folder / MANIFEST).unlink()
    for name in (SERVERS, "sql/migrations", "sql/queries", "sql"):
        if not (folder / name).is_symlink():
            _remove_empty(folder / name)
    if manifest["made_folder"]:
        _remove_empty(folder)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    return Ended(stopped, removed, tuple(left))


def _claim(folder: Path) -> bool:
    """Make the folder; False when it was there and is empty. Raises Refused when it is not."""
    try:
        folder.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise Refused(f'"{folder}" is not a folder', hint="choose another name") from None
        found = sorted(path.name for path in folder.iterdir())
        if MANIFEST in found:
            where = shlex.quote(str(folder))
            hint = f"to play in it: cd {where}; to end it: perfctl demo down {where}"
            raise Refused(f'there is a demo in "{folder}" already', hint=hint) from None
        if found:
            raise Refused(
                f'"{folder}" is not empty: {", ".join(found[:3])}{", …" if found[3:] else ""}',
                hint="choose a folder that does not exist yet",
            ) from None
        return False
    except OSError as error:
        raise Refused(f'"{folder}" cannot be made: {error.strerror}') from None
    return True


def _write_manifest(folder: Path, made_folder: bool, files: dict[str, str]) -> None:
    text = json.dumps({"made_folder": made_folder, "files": files}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise Refused(f'there is no demo in "{folder}"', hint="perfctl demo up DIR starts one")
    if path.lstat().st_uid != os.geteuid():
        raise Denied(f'"{path}" belongs to another user', hint="run perfctl as that user")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_folder, files = bool(found["made_folder"]), dict(found["files"])
    except (ValueError, KeyError, TypeError):
        raise Refused(
            f'"{path}" is not what perfctl wrote there', hint="look at it, and remove what is not yours"
        ) from None
    return {"made_folder": made_folder, "files": files}


def _put(path: Path, content: bytes) -> str:
    """Write a file, its folder too; the digest of what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _take_away(folder: Path, name: str, digest: str) -> bool:
    """Remove a file that is as it was made, and lies in the folder itself rather than behind a link."""
    top = folder.resolve()
    path = top / name
    if path.resolve() != path or not path.is_relative_to(top) or not path.is_file():
        return False
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        return False
    path.unlink()
    return True


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
