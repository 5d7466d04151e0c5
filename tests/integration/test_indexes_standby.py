"""A standby is read-only: nothing is applied there, and verify takes the journal's word for definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perfctl.embedded import PostgresServer
from tests.fix_perfctl import Project, new_project, until
from tests.fix_replica import caught_up, replicated
from tests.fix_servers import Database
from tests.fix_sessions import send, table

MIGRATION = "CREATE INDEX CONCURRENTLY i ON t (a);"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and the standby that follows it."""
    with replicated(15) as servers:
        yield servers


@pytest.fixture
def on_standby(pair: tuple[PostgresServer, PostgresServer], tmp_path: Path) -> Iterator[Project]:
    """A project for the standby, after the migration was applied on the primary."""
    primary, standby = pair
    database = Database(primary, "postgres")
    table(database)
    (tmp_path / "primary").mkdir()
    (tmp_path / "standby").mkdir()
    there = new_project(tmp_path / "primary", database)
    there.migration("1_a", MIGRATION)
    assert there.apply().code == 0
    here = new_project(tmp_path / "standby", Database(standby, "postgres"))
    here.migration("1_a", MIGRATION)
    until(lambda: caught_up(primary, standby))
    yield here
    send(database, "DROP TABLE t", "DROP SCHEMA perfctl CASCADE")


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_nothing_is_changed_on_a_standby(on_standby: Project, command: str) -> None:
    ran = on_standby.run(command, "--yes")
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert 'database "postgres" is on a standby' in ran.stderr
    assert "point the target at the primary" in ran.report["error"]["hint"]


def test_verify_on_a_standby_takes_the_journals_definition(on_standby: Project) -> None:
    ran = on_standby.run("verify")
    assert (ran.code, ran.statuses) == (0, {"public.i": "ok"})


def test_a_definition_that_the_journal_does_not_know_is_unknown_on_a_standby(on_standby: Project) -> None:
    on_standby.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a DESC);")
    ran = on_standby.run("verify")
    assert (ran.code, ran.statuses) == (1, {"public.i": "unknown"})
    assert "standby" in ran.items["public.i"]["detail"]


def test_an_absent_index_is_absent_on_a_standby_too(on_standby: Project) -> None:
    on_standby.migration("2_b", "CREATE INDEX CONCURRENTLY j ON t (b);")
    assert on_standby.run("verify").items["public.j"]["data"]["state"] == "absent"


def test_plan_on_a_standby_says_so(on_standby: Project) -> None:
    ran = on_standby.run("plan")
    assert "this is a standby: apply will be refused here" in ran.report["notes"]


def test_status_works_on_a_standby(on_standby: Project) -> None:
    assert on_standby.run("status").items["1_a"]["detail"] == "1 of 1 indexes there, 1 made by perfctl"
