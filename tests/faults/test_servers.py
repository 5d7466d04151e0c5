"""Servers that build indexes wrong, or that show a good index too late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.declare import fault
from tests.fix_catalogue import catalogue, flags, journal
from tests.fix_old_postgres import pg14_server
from tests.fix_perfctl import Project, new_project
from tests.fix_servers import Cluster, Database
from tests.fix_sessions import send, table

__all__ = ["pg14_server"]
GOOD = (True, True, True)
TWO = "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY k ON t (b);"


@pytest.fixture
def old_database(pg14_server: Cluster) -> Iterator[Database]:
    """A fresh database on PostgreSQL 14.3."""
    with pg14_server.connect() as postgres:
        postgres.execute("CREATE DATABASE old")
    yield Database(pg14_server.server, "old")
    with pg14_server.connect() as postgres:
        postgres.execute("DROP DATABASE old WITH (FORCE)")


@pytest.fixture
def old_project(tmp_path: Path, old_database: Database) -> Project:
    """A project for a table with two indexes to come, on PostgreSQL 14.3."""
    table(old_database)
    project = new_project(tmp_path, old_database)
    project.migration("1_a", TWO)
    return project


@fault(
    44,
    "a server whose concurrent builds miss rows",
    does="refuses to build there and names the release that mends it",
)
def test_a_server_that_builds_wrong_is_refused(old_project: Project, old_database: Database) -> None:
    before = catalogue(old_database)
    ran = old_project.apply()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    for word in ("public.i", "public.k", "PostgreSQL 14.3", "misses rows", "upgrade to 14.4", "--offline"):
        assert word in ran.stderr
    assert (catalogue(old_database), journal(old_database)) == (before, [])


@fault(
    44,
    "a server whose concurrent builds miss rows",
    does="refuses to build there and names the release that mends it",
)
def test_the_plan_shows_the_refusal(old_project: Project) -> None:
    ran = old_project.run("plan")
    assert ran.statuses == {"public.i": "finding", "public.k": "finding"}
    assert "release notes 14.4" in ran.items["public.i"]["detail"]


@fault(44, "a server whose concurrent builds miss rows", does="builds there with --offline, and undoes it")
def test_plain_builds_are_allowed_there(old_project: Project, old_database: Database) -> None:
    before = catalogue(old_database)
    ran = old_project.apply("--offline")
    assert ran.code == 0
    assert any("PostgreSQL 14.3" in note and "mended in 14.14" in note for note in ran.report["notes"])
    assert (flags(old_database, "i"), flags(old_database, "k")) == (GOOD, GOOD)
    assert old_project.run("verify").code == 0
    assert old_project.rollback().code == 0
    assert catalogue(old_database) == before


@fault(44, "a server whose concurrent builds miss rows", does="leaves alone what is there already")
def test_what_is_there_is_not_refused(old_project: Project, old_database: Database) -> None:
    send(old_database, "CREATE INDEX i ON t (a)", "CREATE INDEX k ON t (b)")
    assert old_project.apply().statuses == {"public.i": "skipped", "public.k": "skipped"}
