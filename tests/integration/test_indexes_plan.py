"""What plan shows, and that a saved plan is carried out as it was reviewed or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fix_catalogue import catalogue, journal, names
from tests.fix_perfctl import Project
from tests.fix_servers import Cluster, Database
from tests.fix_sessions import old_snapshot, send, table, writer

TWO = "CREATE INDEX CONCURRENTLY i ON t (a);\nCREATE INDEX CONCURRENTLY j ON t (b) WHERE b = 1;\n"


@pytest.fixture
def two(project: Project, database: Database) -> Project:
    """A table t and a migration that wants two indexes on it."""
    table(database, rows=5000)
    send(database, "ANALYZE t")
    project.migration("1_a", TWO)
    return project


@pytest.fixture
def saved(two: Project) -> Path:
    """A saved plan."""
    path = two.folder / "plan.json"
    assert two.run("plan", "--out", str(path)).code == 0
    return path


def test_a_plan_shows_statement_reason_size_and_time(two: Project) -> None:
    item = two.run("plan").items["public.i"]
    assert item["status"] == "planned"
    assert item["detail"].startswith("build: not there; about ")
    assert item["data"]["statement"] == 'CREATE INDEX CONCURRENTLY "i" ON "public"."t" (a)'
    assert item["data"]["undo"] == 'DROP INDEX CONCURRENTLY "public"."i"'
    assert item["data"]["estimated_bytes"] > 0
    assert item["data"]["estimated_s"] >= 0
    assert (item["data"]["migration"], item["data"]["line"]) == ("1_a", 1)


def test_a_plan_estimates_a_partial_index_by_its_rows(two: Project) -> None:
    items = two.run("plan").items
    assert items["public.j"]["data"]["estimated_bytes"] < items["public.i"]["data"]["estimated_bytes"] / 2


def test_an_estimate_is_near_the_truth(two: Project) -> None:
    planned = two.run("plan").items["public.i"]["data"]["estimated_bytes"]
    built = two.apply().items["public.i"]["data"]["size_bytes"]
    assert built / 3 < planned < built * 3


def test_a_plan_names_who_would_be_waited_for(two: Project, database: Database) -> None:
    with writer(database) as blocker:
        waits_for = two.run("plan").items["public.i"]["data"]["waits_for"]
        assert waits_for[0].startswith(f"pid {blocker.info.backend_pid} (postgres, web, idle in transaction")


def test_a_plan_names_an_old_snapshot(two: Project, database: Database) -> None:
    with old_snapshot(database) as blocker:
        blocker.execute("SELECT pg_sleep(1)")
        waits_for = two.run("plan").items["public.i"]["data"]["waits_for"]
        assert waits_for[0].startswith(f"pid {blocker.info.backend_pid} (postgres, pg_dump")


def test_a_plan_names_a_prepared_transaction_and_its_end(two: Project, database: Database) -> None:
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (-1, -1)")
        connection.execute("PREPARE TRANSACTION 'forgotten'")
        connection.commit()
    waits_for = two.run("plan").items["public.i"]["data"]["waits_for"]
    assert waits_for[0].startswith("prepared transaction forgotten (postgres")


def test_a_plan_names_nobody_when_nobody_is_in_the_way(two: Project, database: Database) -> None:
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        assert "waits_for" not in two.run("plan").items["public.i"]["data"]


def test_a_plan_changes_nothing(two: Project, database: Database) -> None:
    before = catalogue(database)
    two.run("plan", "--out", str(two.folder / "plan.json"))
    assert catalogue(database) == before
    assert journal(database) == []


def test_a_plan_with_a_refusal_is_a_finding(two: Project, database: Database) -> None:
    send(database, "CREATE INDEX i ON t (b)")
    ran = two.run("plan")
    assert (ran.code, ran.statuses) == (1, {"public.j": "planned", "public.i": "finding"})
    assert ran.items["public.i"]["remedy"]


def test_check_exits_1_when_there_is_something_to_do(two: Project) -> None:
    assert two.run("plan").code == 0
    assert two.run("plan", "--check").code == 1


def test_check_exits_0_when_there_is_nothing_to_do(two: Project) -> None:
    two.apply()
    ran = two.run("plan", "--check")
    assert ran.code == 0
    assert "nothing to do: everything is there and right" in ran.report["notes"]


# saved plans


def test_a_saved_plan_is_carried_out(two: Project, saved: Path, database: Database) -> None:
    ran = two.apply(str(saved))
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed", "public.j": "changed"})
    assert names(database) == {"i", "j"}


def test_a_saved_plan_needs_no_question(two: Project, saved: Path, database: Database) -> None:
    assert two.run("apply", str(saved)).code == 0
    assert names(database) == {"i", "j"}


def test_a_saved_plan_keeps_its_own_text(two: Project, saved: Path, database: Database) -> None:
    two.migration("1_a", "CREATE INDEX CONCURRENTLY other ON t (a, b);")
    assert two.apply(str(saved)).code == 0
    assert names(database) == {"i", "j"}


def test_a_saved_plan_keeps_its_selection(two: Project, database: Database) -> None:
    path = two.folder / "plan.json"
    two.run("plan", "--only", "j", "--out", str(path))
    two.apply(str(path))
    assert names(database) == {"j"}


@pytest.mark.parametrize(
    ("moved", "told"),
    [
        ("CREATE INDEX i ON t (a)", "nothing: there, valid, same definition"),
        ("CREATE INDEX i ON t (b)", "an index of that name is there with another definition"),
        ("CREATE INDEX other ON t (a)", "covered"),
        ("DROP TABLE t", 'table "t" does not exist'),
        ("ALTER TABLE t RENAME COLUMN a TO z", 'column "a" does not exist'),
    ],
)
def test_a_saved_plan_is_refused_with_the_difference_when_the_catalogue_moved(
    two: Project, saved: Path, database: Database, moved: str, told: str
) -> None:
    send(database, moved)
    before = catalogue(database)
    ran = two.apply(str(saved))
    assert (ran.code, ran.report["error"]["class"]) == (4, "PlanMoved")
    assert told in ran.stderr
    assert catalogue(database) == before


def test_a_saved_plan_is_refused_when_the_table_was_made_anew(two: Project, saved: Path, database: Database) -> None:
    send(database, "DROP TABLE t", "CREATE TABLE t (a int, b int)")
    assert two.apply(str(saved)).code == 4
    assert names(database) == set()


def test_a_saved_plan_is_refused_a_second_time(two: Project, saved: Path) -> None:
    two.apply(str(saved))
    assert two.apply(str(saved)).code == 4


def test_a_saved_plan_is_refused_on_another_database(
    two: Project, saved: Path, database: Database, pg_server: Cluster
) -> None:
    with pg_server.fresh() as other:
        table(other, rows=5000)
        two.config.write_text(two.config.read_text().replace(f"/{database.name}?", f"/{other.name}?"))
        ran = two.apply(str(saved))
    assert ran.code == 4
    assert f"database name: the plan was made for {database.name}, this is {other.name}" in ran.stderr


def test_a_saved_plan_is_refused_on_another_target(two: Project, saved: Path) -> None:
    two.configure(two.config.read_text().replace("  test:", "  production:"))
    ran = two.apply(str(saved))
    assert ran.code == 4
    assert 'the plan was made for target "test", this is "production"' in ran.stderr


def test_a_saved_plan_that_was_edited_is_refused(two: Project, saved: Path, database: Database) -> None:
    text = saved.read_text().replace("ON t (a)", "ON t (a, b)")
    saved.write_text(text)
    assert two.apply(str(saved)).code == 4
    assert names(database) == set()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"perfctl_plan": 99}', '{"perfctl_plan": 1}'])
def test_what_is_no_plan_is_a_usage_error(two: Project, text: str) -> None:
    path = two.folder / "plan.json"
    path.write_text(text)
    ran = two.apply(str(path))
    assert ran.code == 2
    assert ran.report["error"]["hint"]


def test_a_plan_that_is_not_there_is_a_usage_error(two: Project) -> None:
    ran = two.apply(str(two.folder / "none.json"))
    assert (ran.code, "No such file" in ran.stderr) == (2, True)


def test_a_saved_plan_stands_alone(two: Project, saved: Path) -> None:
    assert two.apply(str(saved), "--only", "i").code == 2
    assert two.apply(str(saved), str(two.migrations)).code == 2


def test_a_plan_that_cannot_be_written_is_a_usage_error(two: Project) -> None:
    assert two.run("plan", "--out", str(two.folder / "no" / "plan.json")).code == 2


def test_a_saved_plan_holds_no_address(saved: Path) -> None:
    assert "postgresql://" not in saved.read_text()
    assert json.loads(saved.read_text())["target"] == "test"
