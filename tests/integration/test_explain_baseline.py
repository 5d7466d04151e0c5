"""Accepted plans on real servers: written, held to, accepted anew, and why they changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fix_perfctl import Project, Ran, run
from tests.fix_servers import Database
from tests.fix_sessions import send

QUERY = "-- name: of_a\n-- param: a int = '7'\nSELECT b FROM t WHERE a = :a ORDER BY b;\n"


@pytest.fixture
def hot(project: Project, database: Database) -> Project:
    """A table that is large enough to matter, an index, and a query that uses it."""
    send(
        database,
        "CREATE TABLE t (a int, b int, c text)",
        "INSERT INTO t SELECT i % 1000, i, repeat('x', 50) FROM generate_series(1, 20000) AS i",
        "CREATE INDEX by_a ON t (a)",
        "ALTER TABLE t SET (autovacuum_enabled = off)",
        "VACUUM ANALYZE t",
    )
    (project.folder / "queries").mkdir()
    (project.folder / "queries" / "q.sql").write_text(QUERY)
    project.configure(
        "version: 1\ntargets:\n  test: {database: {dsn: '{dsn}'}}\nqueries: {dir: queries, baselines: b}\n"
    )
    return project


def explain(project: Project, *words: str) -> Ran:
    """``perfctl explain`` with its result as JSON."""
    return run("explain", *words, "--config", str(project.config), "--format", "json")


def of_a(ran: Ran) -> tuple[str, str]:
    item = ran.items["of_a"]
    return item["status"], item["detail"]


def written(project: Project) -> Path:
    return project.folder / "b" / "of_a.yaml"


def test_a_plan_is_written_once_and_held_to(hot: Project) -> None:
    assert of_a(explain(hot, "baseline", "--analyze"))[0] == "changed"
    text = written(hot).read_text()
    assert "[Bitmap Index Scan, public.t, by_a, " in text
    assert "'7'" not in text
    assert of_a(explain(hot, "baseline"))[0] == "skipped"
    assert written(hot).read_text() == text
    assert (explain(hot, "check", "--analyze").code, explain(hot, "check").code) == (0, 0)


def test_a_dry_run_writes_nothing(hot: Project) -> None:
    assert of_a(explain(hot, "baseline", "--dry-run"))[0] == "planned"
    assert not written(hot).exists()


def test_a_dropped_index_is_a_finding_with_its_cause_until_it_is_accepted(hot: Project, database: Database) -> None:
    explain(hot, "baseline")
    send(database, "DROP INDEX by_a")
    ran = explain(hot, "check")
    status, detail = of_a(ran)
    assert (ran.code, status) == (1, "finding")
    assert 'because index "by_a" of public.t is gone' in detail
    assert "Seq Scan on public.t" in detail
    assert "explain baseline accept of_a --reason" in ran.items["of_a"]["remedy"]
    assert (explain(hot, "baseline").code, run("verify", "--config", str(hot.config)).code) == (1, 1)
    assert explain(hot, "baseline", "accept", "of_a", "--reason", "read once a year").code == 0
    assert "reason: read once a year" in written(hot).read_text()
    assert explain(hot, "check").code == 0


def test_a_setting_is_named_as_the_cause_for_certain(hot: Project, database: Database) -> None:
    explain(hot, "baseline")
    send(database, f"ALTER DATABASE {database.name} SET random_page_cost = 4000")
    ran = explain(hot, "check")
    assert of_a(ran)[0] == "finding"
    assert "random_page_cost was the default and is 4000: with the old value it is the old plan" in of_a(ran)[1]


def test_growth_is_told_and_fails_nothing(hot: Project, database: Database) -> None:
    explain(hot, "baseline", "--analyze")
    send(
        database,
        "INSERT INTO t SELECT i % 1000, i, repeat('x', 50) FROM generate_series(1, 60000) AS i",
        "VACUUM ANALYZE t",
    )
    ran = explain(hot, "check", "--analyze")
    assert ran.code == 0
    assert "grown" in of_a(ran)[1]


def test_other_values_are_the_cause(hot: Project, database: Database) -> None:
    send(database, "INSERT INTO t SELECT 5000, i, '' FROM generate_series(1, 40000) AS i", "VACUUM ANALYZE t")
    explain(hot, "baseline")
    (hot.folder / "queries" / "q.sql").write_text(QUERY.replace("'7'", "'5000'"))
    status, detail = of_a(explain(hot, "check"))
    assert (status, "the values that it is planned for have changed" in detail) == ("finding", True)


def test_statistics_that_are_gathered_anew_change_nothing(hot: Project, database: Database) -> None:
    explain(hot, "baseline", "--analyze")
    for _ in range(5):
        send(database, "ANALYZE t")
        assert explain(hot, "check", "--analyze").code == 0


def test_a_file_that_is_no_baseline_is_its_querys_trouble_alone(hot: Project) -> None:
    (hot.folder / "queries" / "other.sql").write_text("SELECT count(*) FROM t")
    explain(hot, "baseline")
    written(hot).write_text("a: [")
    ran = explain(hot, "check")
    assert (ran.code, ran.statuses) == (2, {"of_a": "unknown", "other": "ok"})
    assert explain(hot, "baseline", "accept", "of_a", "--reason", "mended").code == 0


def test_show_draws_the_accepted_plan_beside_the_new_one(hot: Project, database: Database) -> None:
    explain(hot, "baseline")
    send(database, "DROP INDEX by_a")
    ran = run("explain", "show", "of_a", "--before", "--config", str(hot.config))
    assert "Bitmap Index Scan using by_a  ◀ not so now" in ran.stdout
    assert "Sort  ◀" not in ran.stdout
    assert ran.stdout.index("Bitmap Index Scan using by_a") < ran.stdout.index("Seq Scan on public.t")


def test_show_gives_postgresqls_own_json(hot: Project) -> None:
    (document,) = json.loads(explain(hot, "show", "of_a", "--analyze").stdout)
    assert document["Plan"]["Actual Rows"] == 20


def test_a_reason_is_asked_for_in_earnest(hot: Project) -> None:
    assert explain(hot, "baseline", "accept", "of_a", "--reason", " ").code == 2


def test_blocks_outlive_an_acceptance_without_a_run(hot: Project) -> None:
    explain(hot, "baseline", "--analyze")
    explain(hot, "baseline", "accept", "of_a", "--reason", "as before")
    assert "blocks: " in written(hot).read_text()
    assert "blocks not compared: say --analyze" in of_a(explain(hot, "check"))[1]


def test_the_plan_of_an_empty_table_is_not_accepted(hot: Project, database: Database) -> None:
    send(database, "TRUNCATE t")
    status, detail = of_a(explain(hot, "baseline"))
    assert (status, detail.startswith("too small here to accept a plan")) == ("skipped", True)
    assert not written(hot).exists()


def test_the_baseline_of_a_query_that_was_renamed_is_told(hot: Project) -> None:
    explain(hot, "baseline")
    (hot.folder / "queries" / "q.sql").write_text(QUERY.replace("of_a", "of_b"))
    words = "baseline of of_a, which is no hot query any more"
    assert words in run("explain", "check", "--config", str(hot.config)).stdout
    assert words not in run("explain", "check", "of_b", "--config", str(hot.config)).stdout
