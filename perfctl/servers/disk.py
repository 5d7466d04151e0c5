"""Free space on a PostgreSQL server's disk: SQL does not tell, the file system does where it is this machine's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from perfctl.errors import Denied, StatementFailed
from perfctl.servers.postgres import Postgres


def free_bytes(pg: Postgres, data_directory: str | None) -> Callable[[], int | None]:
    """A function that tells the bytes free where the database's files lie; None where that cannot be known.

    It is known when the server runs on this machine: its process is here under the number that it gives, and the folder
    that it names is here too. A tunnel to another machine has neither.
    """
    if not _is_here(pg):
        return _unknown
    try:
        ((location,),) = pg.values(
            "SELECT pg_catalog.pg_tablespace_location(d.dattablespace)"
            " FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()"
        )
    except (Denied, StatementFailed):
        return _unknown
    folder = location or data_directory
    if not folder:
        return _unknown

    def ask() -> int | None:
        try:
            disk = os.statvfs(folder)
        except OSError:
            return None
        return disk.f_bavail * disk.f_frsize

    return ask


def _is_here(pg: Postgres) -> bool:
    try:
        command = Path(f"/proc/{pg.pid}/cmdline").read_bytes()
    except OSError:
        return False
    # A server process shows its database and its client's name there.
    return command.startswith(b"postgres")


def _unknown() -> int | None:
    return None
