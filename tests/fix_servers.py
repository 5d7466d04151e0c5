"""Real servers for tests: one PostgreSQL per major version and one Valkey, each started when first asked for.

Every test worker has its own servers; a database is made for each test and dropped after it.

- ``pg_server``: each of PostgreSQL 15, 16 and 18; a version that is not installed is skipped, or
  fails when PERFCTL_REQUIRE_PG names it (``15,16,18``). ``pg18_server``: only 18.
- ``database``, ``database18``: a fresh empty database on those.
- ``reference_db``, ``reference_db18``: a fresh copy of the reference system at scale 0.01.
- ``valkey``: an empty Valkey.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from perfctl.embedded import (
    Installation,
    MissingServer,
    PostgresServer,
    ValkeyServer,
    find_postgres,
    start_postgres,
    start_valkey,
)

MAJORS = (15, 16, 18)
REFERENCE = Path(__file__).parents[1] / "sql" / "reference"
REFERENCE_SCALE = "0.01"
SETTINGS = {
    "max_prepared_transactions": "10",
    "max_connections": "100",
    "shared_preload_libraries": "",
    "autovacuum": "on",
    # Only some builds have it, and plans should not differ by build.
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Database:
    """One database of a running server."""

    server: PostgresServer
    name: str

    @property
    def dsn(self) -> str:
        """A URI that connects as the superuser."""
        return self.server.dsn(self.name)

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the superuser in autocommit; ``options`` as for psycopg.connect."""
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running PostgreSQL, and fresh databases on it."""

    server: PostgresServer
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def major(self) -> int:
        """The major version."""
        return self.server.installation.major

    @property
    def dsn(self) -> str:
        """A URI that connects the superuser to the database postgres."""
        return self.server.dsn()

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the superuser to the database postgres, in autocommit."""
        return Database(self.server, "postgres").connect(**options)

    @contextlib.contextmanager
    def fresh(self, template: str = "template1") -> Iterator[Database]:
        """A new copy of ``template``, dropped at the end with whatever is connected to it."""
        name = f"test_{next(self._numbers)}"
        self._create(name, template)
        try:
            yield Database(self.server, name)
        finally:
            # A test may have crashed or stopped the server on purpose; the next one needs it.
            self.server.start()
            self._drop(name)

    def reference(self) -> str:
        """The name of the template database with the reference system; loaded when first asked for."""
        name = "reference"
        with self.connect() as postgres:
            if postgres.execute("SELECT FROM pg_database WHERE datname = %s", [name]).rowcount:
                return name
        # Loaded under another name: a load that fails must not look like a finished one.
        loading = f"{name}_loading_{next(self._numbers)}"
        self._create(loading, "template1")
        with Database(self.server, loading).connect() as target:
            target.execute(f"SET perfctl.scale = '{REFERENCE_SCALE}'")
            for file in ("schema.sql", "data.sql"):
                target.execute((REFERENCE / file).read_text(encoding="utf-8"))
        with self.connect() as postgres:
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            postgres.execute(rename.format(sql.Identifier(loading), sql.Identifier(name)))
        return name

    def _create(self, name: str, template: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        with self.connect() as postgres:
            postgres.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def _drop(self, name: str) -> None:
        with self.connect() as postgres:
            # A prepared transaction, which FORCE does not end, would block the drop.
            query = "SELECT gid FROM pg_prepared_xacts WHERE database = %s"
            prepared = postgres.execute(query, [name]).fetchall()
            if prepared:
                with Database(self.server, name).connect() as target:
                    for (gid,) in prepared:
                        target.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
            postgres.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass(frozen=True, slots=True)
class Cache:
    """A running Valkey."""

    server: ValkeyServer

    @property
    def url(self) -> str:
        """For redis-py."""
        return self.server.url

    def connect(self) -> redis.Redis:
        """A client; the caller closes it."""
        return redis.Redis.from_url(self.url)


def _required() -> set[int]:
    return {int(major) for major in os.environ.get("PERFCTL_REQUIRE_PG", "").replace(",", " ").split()}


def installed(major: int) -> Installation:
    """The programs of a major version; skips or fails without them."""
    try:
        return find_postgres(major)
    except MissingServer as error:
        if major in _required():
            pytest.fail(f"PERFCTL_REQUIRE_PG: {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pg_cluster() -> Iterator[Callable[[int], Cluster]]:
    """Gives the server of a major version, started once a session; skips or fails without one."""
    clusters: dict[int, Cluster] = {}
    with contextlib.ExitStack() as stack:

        def get(major: int) -> Cluster:
            if major not in clusters:
                clusters[major] = Cluster(stack.enter_context(start_postgres(installed(major), settings=SETTINGS)))
            # A test may have stopped it on purpose.
            clusters[major].server.start()
            return clusters[major]

        yield get


@pytest.fixture(params=MAJORS, ids=[f"pg{major}" for major in MAJORS])
def pg_server(request: pytest.FixtureRequest, pg_cluster: Callable[[int], Cluster]) -> Cluster:
    """A running PostgreSQL of each major version in turn."""
    return pg_cluster(request.param)


@pytest.fixture
def pg18_server(pg_cluster: Callable[[int], Cluster]) -> Cluster:
    """A running PostgreSQL 18."""
    return pg_cluster(18)


@pytest.fixture
def database(pg_server: Cluster) -> Iterator[Database]:
    """A fresh empty database on each major version in turn."""
    with pg_server.fresh() as fresh:
        yield fresh


@pytest.fixture
def database18(pg18_server: Cluster) -> Iterator[Database]:
    """A fresh empty database on PostgreSQL 18."""
    with pg18_server.fresh() as fresh:
        yield fresh


@pytest.fixture
def reference_db(pg_server: Cluster) -> Iterator[Database]:
    """A fresh copy of the reference system on each major version in turn."""
    with pg_server.fresh(pg_server.reference()) as fresh:
        yield fresh


@pytest.fixture
def reference_db18(pg18_server: Cluster) -> Iterator[Database]:
    """A fresh copy of the reference system on PostgreSQL 18."""
    with pg18_server.fresh(pg18_server.reference()) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """A running Valkey, started once a session."""
    with start_valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> Cache:
    """A running Valkey without keys."""
    valkey_server.start()
    cache = Cache(valkey_server)
    with cache.connect() as client:
        client.flushall()
    return cache
