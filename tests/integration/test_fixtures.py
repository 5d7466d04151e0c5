"""The fixtures that break things do break them, and mend them again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import psycopg
import pytest

from perfctl.embedded import PostgresServer
from tests.fix_disk import small_disk, tablespace_on
from tests.fix_perfctl import until
from tests.fix_pgbouncer import PoolMode, pgbouncer
from tests.fix_proxy import Proxy, proxied
from tests.fix_replica import caught_up, pause_replay, replicated, resume_replay
from tests.fix_servers import MAJORS, Database
from tests.fix_sessions import send, table


def one(connection: psycopg.Connection[Any], query: str = "SELECT 1") -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def connected(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True)


@pytest.fixture
def proxy(database18: Database) -> Iterator[Proxy]:
    """A proxy in front of a fresh database."""
    with proxied(database18) as found:
        yield found


def test_a_proxy_forwards_much_and_both_ways(proxy: Proxy) -> None:
    with connected(proxy.dsn) as connection:
        assert connection.execute("SELECT repeat('x', 5000000)").fetchone() == ("x" * 5_000_000,)
        row = connection.execute("SELECT current_database(), length(%s)", ["y" * 5_000_000]).fetchone()
        assert row == (psycopg.conninfo.conninfo_to_dict(proxy.dsn)["dbname"], 5_000_000)
    until(lambda: proxy.connections == 0)


def test_a_deaf_proxy_answers_nobody_until_it_hears(proxy: Proxy) -> None:
    with connected(proxy.dsn) as before, ThreadPoolExecutor() as pool:
        proxy.deafen()
        asked, connects = pool.submit(one, before), pool.submit(connected, proxy.dsn)
        with pytest.raises(NotYet):
            asked.result(0.3)
        assert (proxy.connections, connects.done()) == (2, False)
        proxy.hear()
        assert asked.result(10) == 1
        with connects.result(10) as after:
            assert one(after) == 1


@pytest.mark.parametrize("deaf", [False, True])
def test_a_proxy_drops_the_connections_that_it_has_and_takes_new_ones(proxy: Proxy, deaf: bool) -> None:
    with connected(proxy.dsn) as dropped, ThreadPoolExecutor() as pool:
        asked = pool.submit(one, dropped, "SELECT pg_sleep(30)")
        time.sleep(0.1)
        if deaf:
            proxy.deafen()
        began = time.monotonic()
        proxy.drop()
        with pytest.raises(psycopg.OperationalError, match="closed the connection"):
            asked.result(10)
        assert time.monotonic() - began < 5
        assert dropped.broken
    proxy.hear()
    with connected(proxy.dsn) as fresh:
        assert one(fresh) == 1


def test_a_deaf_proxy_hides_from_the_server_that_its_client_is_gone(proxy: Proxy, database18: Database) -> None:
    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'goner')"
    with psycopg.connect(proxy.dsn, application_name="goner"):
        proxy.deafen()
    with database18.connect() as connection:
        time.sleep(0.2)
        assert one(connection, gone) is False
        proxy.hear()
        until(lambda: one(connection, gone))


def test_a_proxy_in_front_of_a_server_that_is_down_closes_the_connection(proxy: Proxy, database18: Database) -> None:
    database18.server.stop()
    with pytest.raises(psycopg.OperationalError, match="closed the connection"):
        connected(proxy.dsn)


@pytest.mark.parametrize(("mode", "backends"), [("transaction", 2), ("session", 1)])
def test_pgbouncer_gives_a_client_another_backend_only_in_transaction_mode(
    database: Database, mode: PoolMode, backends: int
) -> None:
    with pgbouncer(database, mode, pool_size=2) as bouncer, connected(bouncer.dsn) as client:
        seen = {one(client, "SELECT pg_backend_pid()")}
        with psycopg.connect(bouncer.dsn) as other:
            # Its open transaction takes the backend that the client had just now.
            one(other)
            seen.add(one(client, "SELECT pg_backend_pid()"))
        assert len(seen) == backends


def test_pgbouncer_has_a_console_and_takes_settings(database18: Database) -> None:
    with (
        pgbouncer(database18, "session", settings={"ignore_startup_parameters": "options"}) as bouncer,
        psycopg.connect(bouncer.admin_dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as console,
    ):
        assert ("ignore_startup_parameters", "options") in {row[:2] for row in console.execute("SHOW CONFIG")}


def test_a_small_disk_is_soon_full_and_what_is_on_it_survives_its_end(database: Database) -> None:
    table(database, rows=200_000)
    with small_disk(2) as disk, tablespace_on(database.server, disk) as small:
        with pytest.raises(psycopg.errors.DiskFull):
            send(database, f"CREATE INDEX CONCURRENTLY i ON t (a) TABLESPACE {small}")
        # What the failed build wrote still takes the whole disk.
        with pytest.raises(psycopg.errors.DiskFull):
            send(database, f"CREATE INDEX few ON t (a) TABLESPACE {small} WHERE a < 100")
        send(database, "DROP INDEX CONCURRENTLY i", f"CREATE INDEX few ON t (a) TABLESPACE {small} WHERE a < 100")
    assert not disk.exists()
    with database.connect() as connection:
        assert one(connection, "SELECT count(*) FROM pg_tablespace WHERE spcname = 'small'") == 0
        assert one(connection, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'few'::regclass") is True


@pytest.mark.parametrize("major", MAJORS, ids=[f"pg{major}" for major in MAJORS])
def test_a_standby_stays_behind_while_its_replay_is_paused(major: int) -> None:
    with replicated(major) as (primary, standby):
        until(lambda: caught_up(primary, standby))
        pause_replay(standby)
        send(Database(primary, "postgres"), "CREATE TABLE t ()")
        time.sleep(0.3)
        assert not caught_up(primary, standby)
        resume_replay(standby)
        until(lambda: caught_up(primary, standby))
        assert has_t(standby)


def has_t(server: PostgresServer) -> bool:
    with Database(server, "postgres").connect() as connection:
        return bool(one(connection, "SELECT to_regclass('t') IS NOT NULL"))
