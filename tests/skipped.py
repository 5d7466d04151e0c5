"""Print what the tests want that is not on this machine, and what is not tried without it."""

from __future__ import annotations

import os
import shutil
import sys

from perfctl.embedded import MissingServer, find_postgres
from tests.fix_redis import VERSIONS, find_version
from tests.fix_servers import MAJORS
from tests.proof import tpch


def main() -> None:
    """One line for each version that is missing."""
    missing = 0
    for major in MAJORS:
        try:
            found = find_postgres(major)
            sys.stdout.write(f"PostgreSQL {found.version}: tried ({found.source})\n")
        except MissingServer as error:
            missing += 1
            sys.stdout.write(f"skipped: PostgreSQL {major} is not here: {error.message}\n")
    for version in VERSIONS.values():
        try:
            find_version(version)
            sys.stdout.write(f"{version.label}: tried ({version.source})\n")
        except MissingServer as error:
            missing += 1
            sys.stdout.write(f"skipped: {version.label} is not here: {error.message}\n")
    for name, found_at, lost in (
        ("PgBouncer", shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin"), "pooler tests"),
        ("pgbench", shutil.which("pgbench"), "the proof's writers are Python threads instead"),
        ("tpchgen-cli", tpch.generator(), "TPC-H's queries under changing statistics"),
        ("npm, which brings PostgreSQL 14.3", shutil.which("npm"), "the test on a release that builds wrong indexes"),
    ):
        if found_at is None:
            missing += 1
            sys.stdout.write(f"skipped: no {name} here: {lost}\n")
    if os.geteuid() != 0:
        missing += 1
        sys.stdout.write("skipped: not root: no small file system can be mounted for full disks\n")
    if not missing:
        sys.stdout.write("nothing was skipped for want of a server\n")


if __name__ == "__main__":
    main()
