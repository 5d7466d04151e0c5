"""A PgBouncer in front of a test database."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from perfctl.embedded.account import Account, server_account, server_environment
from perfctl.embedded.home import new_folder
from perfctl.embedded.ports import PORT_TRIES, free_port
from tests.fix_servers import Database

PoolMode = Literal["transaction", "session"]
#: Read on import: a test's own environment has no PERFCTL_ variables.
REQUIRED = bool(os.environ.get("PERFCTL_REQUIRE_PGBOUNCER"))
_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A running PgBouncer; every client becomes the server's superuser."""

    port: int
    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def dsn(self) -> str:
        """A URI that connects to the database through it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{quote(self.name, safe='')}"

    @property
    def admin_dsn(self) -> str:
        """A URI that connects to its console: SHOW POOLS, PAUSE and the like, in autocommit and by ClientCursor."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/pgbouncer"


def find_pgbouncer() -> str:
    """Its program; skips, or fails when PERFCTL_REQUIRE_PGBOUNCER is set, without one."""
    # A user's PATH has no sbin on Debian.
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        if REQUIRED:
            pytest.fail("PERFCTL_REQUIRE_PGBOUNCER: no pgbouncer here")
        pytest.skip("no pgbouncer here")
    return found


@contextlib.contextmanager
def pgbouncer(
    database: Database, mode: PoolMode, pool_size: int = 20, settings: Mapping[str, str] | None = None
) -> Iterator[PgBouncer]:
    """A PgBouncer in front of a database's server; ``settings`` come on top of its own defaults."""
    program = find_pgbouncer()
    account = server_account()
    folder = new_folder(account)
    own = {"pool_mode": mode, "default_pool_size": str(pool_size), **(settings or {})}
    try:
        bouncer = _started(program, account, folder, database, own)
        try:
            yield bouncer
        finally:
            _end(bouncer.process)
    finally:
        shutil.rmtree(folder)


def _started(
    program: str, account: Account, folder: Path, database: Database, settings: Mapping[str, str]
) -> PgBouncer:
    log = folder / "pgbouncer.log"
    for _ in range(PORT_TRIES):
        port = free_port()
        config = folder / "pgbouncer.ini"
        config.write_text(_configuration(database, port, settings), encoding="utf-8")
        account.let_in(config, 0o640)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [program, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=server_environment(),
                **account.as_user(),
            )
        bouncer = PgBouncer(port, database.name, log, process)
        try:
            if _answers(bouncer):
                return bouncer
        except BaseException:
            _end(process)
            raise
        # Otherwise somebody was faster to take the port.
        if "Address already in use" not in log.read_text(errors="replace"):
            break
    _end(process)
    pytest.fail(f"pgbouncer did not start\n{log.read_text(errors='replace')}")


def _configuration(database: Database, port: int, settings: Mapping[str, str]) -> str:
    told = conninfo_to_dict(database.dsn)
    where = " ".join(f"{key}={told[key]}" for key in ("host", "port", "user", "password") if key in told)
    ini = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "max_client_conn": "200",
        **settings,
    }
    lines = "".join(f"{key} = {value}\n" for key, value in ini.items())
    return f"[databases]\n* = {where}\n[pgbouncer]\n{lines}"


def _answers(bouncer: PgBouncer) -> bool:
    """Wait until it passes a query on; False when it has ended or takes too long."""
    deadline = time.monotonic() + _WITHIN_S
    while bouncer.process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(bouncer.dsn, autocommit=True, connect_timeout=5) as connection,
        ):
            connection.execute("SELECT 1")
            return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
