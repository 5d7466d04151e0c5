"""A primary and a standby that follows it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from perfctl.embedded import PostgresServer, start_postgres
from perfctl.embedded.account import server_account, server_environment
from tests.fix_perfctl import until
from tests.fix_servers import Database, installed

_PRIMARY = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}


@contextlib.contextmanager
def replicated(major: int) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary of a major version and its standby; skips without pg_basebackup."""
    installation = installed(major)
    if not (installation.bindir / "pg_basebackup").exists():
        pytest.skip(f"PostgreSQL {major} here has no pg_basebackup")
    with start_postgres(installation, settings=_PRIMARY) as primary, start_postgres(installation) as standby:
        follow(primary, standby)
        yield primary, standby


def follow(primary: PostgresServer, standby: PostgresServer) -> None:
    """Make ``standby`` a copy of ``primary`` that follows it."""
    account = server_account()
    standby.stop()
    shutil.rmtree(standby.data_dir)
    standby.data_dir.mkdir(mode=0o700)
    account.own(standby.data_dir)
    subprocess.run(
        [
            str(standby.installation.bindir / "pg_basebackup"),
            *("--dbname", primary.dsn()),
            *("--pgdata", str(standby.data_dir)),
            *("--wal-method", "stream"),
            *("--checkpoint", "fast"),
            "--write-recovery-conf",
        ],
        check=True,
        capture_output=True,
        cwd="/",
        env=server_environment(),
        **account.as_user(),
    )
    standby.start()


def caught_up(primary: PostgresServer, standby: PostgresServer) -> bool:
    """Whether the standby has replayed all that the primary has written."""
    with Database(primary, "postgres").connect() as one, Database(standby, "postgres").connect() as other:
        written = one.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert written is not None
        row = other.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written[0]]).fetchone()
        return row == (True,)


def pause_replay(standby: PostgresServer) -> None:
    """Keep the standby at what it has replayed; it goes on receiving."""
    with Database(standby, "postgres").connect() as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
        # It is only asked for: the record at hand is still replayed.
        until(lambda: connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))


def resume_replay(standby: PostgresServer) -> None:
    """Let the standby replay again."""
    with Database(standby, "postgres").connect() as connection:
        connection.execute("SELECT pg_wal_replay_resume()")
