"""Every query file has a caller, and a record whose fields are its columns, on every server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perfctl import queries
from perfctl.explain import model as plan_model
from perfctl.explain import observe as plan_observe
from perfctl.explain import reach as plan_reach
from perfctl.indexes import duplicates, model, running, writers
from perfctl.servers import postgres
from perfctl.servers.postgres import Postgres
from tests.fix_perfctl import ROOT, Project
from tests.fix_servers import Database

#: query → its record and parameters that give at least one row on a database that an apply has gone over
RECORDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "blockers": (model.Blocker, {"tables": "{table_oid}", "own": []}),
    "builds": (model.Build, {}),
    "held_up": (running.HeldUp, {"pids": []}),
    "index": (running.Live, {"schema": "public", "name": "i"}),
    "indexes": (model.Index, {"tables": [], "schemas": ["public"], "names": ["i"], "scope": []}),
    "journal": (model.Entry, {}),
    "keys": (duplicates.Keys, {"oid": "{index_oid}"}),
    "loads": (running.TableLoad, {"tables": "{table_oid}"}),
    "partitions": (model.Partition, {"tables": "{partitioned_oid}"}),
    "plan_indexes": (plan_model.IndexFacts, {"tables": "{table_oid}"}),
    "plan_statistics": (plan_observe.StatisticsHash, {"tables": "{table_oid}"}),
    "plan_lockers": (plan_observe.Locker, {}),
    "plan_reach": (plan_reach.Reach, {"words": ["", "t", "nextval("]}),
    "plan_tables": (plan_model.TableFacts, {"schemas": ["public"], "names": ["t"]}),
    "progress": (running.Progress, {"pids": "{pids}"}),
    "replicas": (running.Replica, {}),
    "server": (model.Server, {}),
    "statistics": (model.Statistics, {"schemas": ["public"], "names": ["s"]}),
    "tables": (model.Table, {"schemas": ["public"], "names": ["t"]}),
    "writes": (writers.Writes, {"tables": "{table_oid}"}),
}
#: what only a running build, a lock or a standby shows
MAY_BE_EMPTY = {"builds", "held_up", "plan_lockers", "replicas"}


@pytest.fixture
def applied(project: Project, database: Database) -> Iterator[Postgres]:
    """A session on a database with an index, statistics and a journal, where a transaction holds a lock."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (a int, b int)")
        connection.execute("CREATE TABLE p (a int) PARTITION BY LIST (a)")
        connection.execute("CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
    project.migration("1_a", "CREATE INDEX i ON t (a); CREATE STATISTICS s ON a, b FROM t;")
    assert project.apply().code == 0
    pg = postgres.connect(psycopg.conninfo.conninfo_to_dict(database.dsn), application="test")  # type: ignore[arg-type]
    with database.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO t VALUES (1, 1)")
        yield pg
    pg.close()


@pytest.mark.parametrize("name", queries.names())
def test_a_query_has_a_caller(name: str) -> None:
    call = re.compile(rf'fetch(_one)?\(\s*"{name}"')
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "perfctl").rglob("*.py"))
    assert any(call.search(source) for source in sources)


@pytest.mark.parametrize("name", queries.names())
def test_a_query_says_what_it_takes_and_needs(name: str) -> None:
    head = queries.load(name, 18).split("\n\n")[0]
    assert head.startswith("-- ")
    assert "Takes: " in head
    assert "Needs: " in head


def test_every_query_has_a_record() -> None:
    assert set(queries.names()) == set(RECORDS)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_has_exactly_the_columns(name: str, applied: Postgres) -> None:
    record, parameters = RECORDS[name]
    ((table, index, partitioned),) = applied.values("SELECT 't'::regclass::oid, 'i'::regclass::oid, 'p'::regclass::oid")
    known = {
        "{table_oid}": [table], "{index_oid}": index, "{partitioned_oid}": [partitioned], "{pids}": [applied.pid],
    }  # fmt: skip
    given = {key: known.get(value, value) if isinstance(value, str) else value for key, value in parameters.items()}
    with applied._conn.cursor() as cursor:
        cursor.execute(queries.load(name, applied.major).encode(), given)
        columns = [column.name for column in cursor.description or ()]
    assert sorted(columns) == sorted(field.name for field in fields(record))
    assert applied.fetch(name, record, given) or name in MAY_BE_EMPTY


def test_a_newer_servers_form_is_taken_from_its_version_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("q.sql", "q.14.sql", "q.16.sql"):
        (tmp_path / file).write_text(file)
    monkeypatch.setattr(queries, "files", lambda _: tmp_path)
    queries.load.cache_clear()
    assert [queries.load("q", major) for major in (13, 14, 15, 16, 18)] == [
        "q.sql",
        "q.14.sql",
        "q.14.sql",
        "q.16.sql",
        "q.16.sql",
    ]
    queries.load.cache_clear()
