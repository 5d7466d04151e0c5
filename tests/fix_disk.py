"""A disk that is soon full, and a tablespace on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from perfctl.embedded import PostgresServer
from perfctl.embedded.account import server_account
from tests.fix_servers import Database


@contextlib.contextmanager
def small_disk(size_mb: int) -> Iterator[Path]:
    """A folder that takes only so many MiB; skips where no disk may be mounted."""
    if os.geteuid() != 0:
        pytest.skip("no small disk: only root mounts one")
    if shutil.which("mount") is None:
        pytest.skip("no small disk: no mount here")
    # A server that is not root's must come here, and not every TMPDIR lets others in.
    folder = Path(tempfile.mkdtemp(prefix="perfctl-disk-", dir="/tmp")).resolve()
    try:
        options = f"size={size_mb}m,mode=0755,nodev,nosuid,noexec"
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small disk: {' '.join(done.stderr.split())}")
        try:
            yield folder
        finally:
            # Lazily: a server that still holds a file there must not leave the disk mounted for ever.
            subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
    finally:
        folder.rmdir()


@contextlib.contextmanager
def tablespace_on(server: PostgresServer, folder: Path, name: str = "small") -> Iterator[str]:
    """A tablespace of a running server in an empty folder; what is in it at the end moves to pg_default."""
    folder.chmod(0o700)
    server_account().own(folder)
    identifier = sql.Identifier(name)
    with Database(server, "postgres").connect() as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(identifier, sql.Literal(str(folder))))
    try:
        yield name
    finally:
        # A test may have crashed it on purpose.
        server.start()
        for database in _databases_in(server, name):
            _move_out(database, identifier)
        with Database(server, "postgres").connect() as connection:
            connection.execute(sql.SQL("DROP TABLESPACE {}").format(identifier))


def _databases_in(server: PostgresServer, name: str) -> list[Database]:
    query = (
        "SELECT datname FROM pg_database WHERE oid IN"
        " (SELECT pg_tablespace_databases(oid) FROM pg_tablespace WHERE spcname = %s)"
    )
    with Database(server, "postgres").connect() as connection:
        return [Database(server, datname) for (datname,) in connection.execute(query, [name])]


def _move_out(database: Database, tablespace: sql.Identifier) -> None:
    with database.connect() as connection:
        # A transaction that a test left open must not hang the run.
        connection.execute("SET lock_timeout = '10s'")
        for kind in ("TABLE", "INDEX", "MATERIALIZED VIEW"):
            statement = sql.SQL("ALTER {} ALL IN TABLESPACE {} SET TABLESPACE pg_default")
            connection.execute(statement.format(sql.SQL(kind), tablespace))
