"""Forward, back, forward again: the catalogue is what it was, on every server."""

from __future__ import annotations

import pytest

from tests.fix_catalogue import catalogue, indexes, journal, names
from tests.fix_perfctl import Project
from tests.fix_servers import Database
from tests.fix_sessions import send, table

ALL_KINDS = """
CREATE EXTENSION IF NOT EXISTS {extension};
SET maintenance_work_mem = '32MB';
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i_unique ON t (a) INCLUDE (b) WHERE a > 0;
CREATE INDEX CONCURRENTLY i_expression ON t ((a + b) DESC NULLS LAST, b) WITH (fillfactor = 70);
CREATE INDEX CONCURRENTLY "i Quoted" ON t USING hash (b);
CREATE INDEX CONCURRENTLY i_brin ON t USING brin (a) WITH (pages_per_range = 16);
CREATE UNIQUE INDEX CONCURRENTLY i_nulls ON t (a, b) NULLS NOT DISTINCT;
COMMENT ON INDEX "i Quoted" IS 'serves it''s query \\';
CREATE STATISTICS s (ndistinct) ON a, b FROM t;
ANALYZE t;
"""


def test_apply_verify_rollback_apply_leaves_the_same_catalogue(
    reference_project: Project, reference_db: Database
) -> None:
    before = catalogue(reference_db)
    assert reference_project.apply().report["counts"] == {"changed": 27}
    with_all = catalogue(reference_db)
    assert reference_project.run("verify").report["counts"] == {"ok": 27}
    assert reference_project.rollback().report["counts"] == {"changed": 27}
    assert catalogue(reference_db) == before
    assert reference_project.run("verify", "--absent").report["counts"] == {"ok": 27}
    assert reference_project.apply().report["counts"] == {"changed": 27}
    assert catalogue(reference_db) == with_all


def test_every_kind_of_statement_goes_forward_and_back(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX before ON t (b, a)", "COMMENT ON INDEX before IS 'was here'")
    project.migration("1_a", ALL_KINDS.replace("{extension}", "plpgsql"))
    before = catalogue(database)
    assert project.apply().code == 0
    applied = catalogue(database)
    assert project.run("verify").code == 0
    assert project.rollback().code == 0
    assert catalogue(database) == before
    assert project.apply().code == 0
    assert catalogue(database) == applied


def test_a_second_apply_does_nothing_and_says_so(reference_project18: Project, reference_db18: Database) -> None:
    reference_project18.apply()
    before = journal(reference_db18)
    again = reference_project18.apply()
    assert again.code == 0
    assert again.report["counts"] == {"skipped": 27}
    assert "nothing to do: everything is as it should be" in again.report["notes"]
    assert journal(reference_db18) == before


def test_a_second_rollback_does_nothing(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.apply()
    project.rollback()
    again = project.rollback()
    assert (again.code, again.report["items"]) == (0, [])


def test_a_rollback_where_perfctl_never_was_does_nothing(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX i ON t (a)")
    assert project.rollback().report["items"] == []
    assert names(database) == {"i"}


def test_an_index_that_was_there_before_survives_the_rollback(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX i ON t (a)")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY j ON t (b);")
    assert project.apply().statuses == {"public.i": "skipped", "public.j": "changed"}
    assert project.rollback().statuses == {"public.j": "changed"}
    assert names(database) == {"i"}


def test_a_dropped_index_is_put_back_with_its_comment(project: Project, database: Database) -> None:
    table(database)
    send(
        database,
        "CREATE UNIQUE INDEX old ON t (a DESC) INCLUDE (b) WITH (fillfactor = 80) WHERE a > 0",
        "COMMENT ON INDEX old IS 'it''s old \\'",
    )
    before = indexes(database)
    project.migration("1_a", "DROP INDEX CONCURRENTLY IF EXISTS old;")
    assert project.apply().code == 0
    assert names(database) == set()
    assert project.rollback().code == 0
    assert indexes(database) == before


def test_a_dropped_and_put_back_index_can_be_dropped_again(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX old ON t (a)")
    project.migration("1_a", "DROP INDEX CONCURRENTLY old;")
    for _ in range(2):
        project.apply()
        assert names(database) == set()
        project.rollback()
        assert names(database) == {"old"}


def test_a_redefined_index_goes_back_to_what_it_was(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX i ON t (a)", "COMMENT ON INDEX i IS 'first'")
    before = indexes(database)
    project.migration("1_a", "DROP INDEX CONCURRENTLY i; CREATE INDEX CONCURRENTLY i ON t (a, b);")
    assert project.apply().code == 0
    assert project.run("verify").code == 0
    assert project.rollback().code == 0
    assert indexes(database) == before


def test_a_redefinition_by_a_later_migration_verifies_and_goes_back_step_by_step(
    project: Project, database: Database
) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.apply()
    first = indexes(database)
    project.migration("2_b", "DROP INDEX CONCURRENTLY i; CREATE INDEX CONCURRENTLY i ON t (a, b);")
    assert project.apply().code == 0
    assert project.run("verify").code == 0
    assert project.run("status").report["counts"] == {"ok": 2}
    assert project.rollback("--to", "1").code == 0
    assert indexes(database) == first
    assert project.rollback().code == 0
    assert names(database) == set()


@pytest.fixture
def narrowed(project: Project, database: Database) -> Project:
    """An index that perfctl made by the first migration and dropped by the second, which has another one."""
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY a_k ON t (a); COMMENT ON INDEX a_k IS 'first';")
    project.apply()
    project.migration("2_b", "DROP INDEX CONCURRENTLY a_k; CREATE INDEX CONCURRENTLY a_kid ON t (a, b);")
    assert project.apply().code == 0
    assert names(database) == {"a_kid"}
    return project


def test_one_rollback_goes_all_the_way_past_what_perfctl_made_and_dropped(
    narrowed: Project, database: Database
) -> None:
    for _ in range(2):
        ran = narrowed.rollback()
        assert (ran.code, names(database)) == (0, set())
        assert narrowed.run("verify", "--absent").code == 0
        assert narrowed.rollback().report["counts"] == {}
        # What was settled is not in the way of the next time.
        assert narrowed.apply("--only", "a_k").code == 0
        assert narrowed.apply().code == 0
        assert names(database) == {"a_kid"}


def test_a_rollback_of_the_later_migration_alone_brings_back_what_it_dropped(
    narrowed: Project, database: Database
) -> None:
    assert narrowed.rollback("2_b").code == 0
    assert [(row[1], row[9]) for row in indexes(database)] == [("a_k", "first")]
    assert narrowed.rollback().code == 0
    assert names(database) == set()


def test_one_rollback_goes_all_the_way_past_a_replacement(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.apply()
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a, b);")
    assert project.apply("--replace").code == 0
    assert project.rollback().code == 0
    assert names(database) == set()
    assert project.run("verify", "--absent").code == 0


def test_a_comment_on_an_index_that_comes_back_goes_back_too(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX i ON t (a)", "COMMENT ON INDEX i IS 'theirs'")
    before = indexes(database)
    project.migration("1_a", "COMMENT ON INDEX i IS 'ours';")
    project.apply()
    project.migration("2_b", "DROP INDEX CONCURRENTLY i;")
    project.apply()
    assert project.rollback().code == 0
    assert indexes(database) == before


def test_an_index_of_the_same_definition_under_a_new_name_replaces_the_old_one(
    project: Project, database: Database
) -> None:
    table(database)
    send(database, "CREATE INDEX old ON t (a)")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY new ON t (a); DROP INDEX CONCURRENTLY old;")
    assert project.apply().code == 0
    assert names(database) == {"new"}


def test_a_changed_comment_goes_back_to_the_old_one(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX i ON t (a)", "COMMENT ON INDEX i IS 'old'")
    before = indexes(database)
    project.migration("1_a", "COMMENT ON INDEX i IS 'new';")
    project.apply()
    assert indexes(database) != before
    project.rollback()
    assert indexes(database) == before


# what is chosen

THREE = (
    "CREATE INDEX CONCURRENTLY i_a ON t (a); CREATE INDEX CONCURRENTLY i_b ON t (b);"
    " CREATE INDEX CONCURRENTLY j ON t (a, b);"
)


def test_only_builds_what_matches(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    assert project.apply("--only", "i_*").statuses == {"public.i_a": "changed", "public.i_b": "changed"}
    assert names(database) == {"i_a", "i_b"}


def test_except_builds_all_the_others(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    project.apply("--except", "public.i_*")
    assert names(database) == {"j"}


def test_only_that_matches_nothing_is_a_usage_error(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    ran = project.apply("--only", "nothing")
    assert (ran.code, ran.report["error"]["class"]) == (2, "UsageError")


def test_only_takes_off_what_matches(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    project.apply()
    project.rollback("--only", "*.i_a")
    assert names(database) == {"i_b", "j"}


def test_to_keeps_the_migrations_up_to_a_number(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.migration("2_b", "CREATE INDEX CONCURRENTLY j ON t (b);")
    project.migration("10_c", "CREATE INDEX CONCURRENTLY k ON t (a, b);")
    project.apply()
    project.rollback("--to", "2")
    assert names(database) == {"i", "j"}


def test_one_migration_is_rolled_back_by_its_name(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.migration("2_b", "CREATE INDEX CONCURRENTLY j ON t (b);")
    project.apply()
    project.rollback("1_a")
    assert names(database) == {"j"}


def test_a_migration_that_is_not_in_the_journal_is_a_usage_error(project: Project, database: Database) -> None:
    table(database)
    ran = project.rollback("9_z")
    assert (ran.code, ran.report["error"]["message"]) == (2, "not in the journal: 9_z")


def test_the_newest_is_taken_off_first(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    project.apply()
    dropped = [item["name"] for item in project.rollback().report["items"]]
    assert dropped == ["public.j", "public.i_b", "public.i_a"]


def test_a_dry_run_changes_nothing_and_shows_the_statements(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    before = catalogue(database)
    ran = project.apply("--dry-run")
    assert (ran.code, ran.report["dry_run"], ran.report["counts"]) == (0, True, {"planned": 3})
    assert ran.items["public.i_a"]["data"]["statement"] == 'CREATE INDEX CONCURRENTLY "i_a" ON "public"."t" (a)'
    assert catalogue(database) == before
    assert journal(database) == []


def test_a_dry_rollback_changes_nothing(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    project.apply()
    before = catalogue(database)
    assert project.run("rollback", "-n").report["counts"] == {"planned": 3}
    assert catalogue(database) == before


# the same names in two schemas, and a search path of the file's own


def test_the_same_name_in_two_schemas_is_two_indexes(project: Project, database: Database) -> None:
    send(database, "CREATE SCHEMA x", "CREATE SCHEMA y", "CREATE TABLE x.t (a int)", "CREATE TABLE y.t (a text)")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON x.t (a); CREATE INDEX CONCURRENTLY i ON y.t (a);")
    assert project.apply().code == 0
    assert names(database) == {"x.i", "y.i"}
    assert project.run("verify").report["counts"] == {"ok": 2}
    project.rollback("--only", "x.i")
    assert names(database) == {"y.i"}


def test_a_search_path_in_the_file_finds_the_table(project: Project, database: Database) -> None:
    send(database, "CREATE SCHEMA x", "CREATE TABLE x.t (a int)")
    project.migration("1_a", "SET search_path = x; CREATE INDEX CONCURRENTLY i ON t (a);")
    assert project.apply().statuses == {"x.i": "changed"}
    assert project.run("verify").code == 0


def test_a_dropped_index_is_found_by_the_files_search_path(project: Project, database: Database) -> None:
    send(database, "CREATE SCHEMA x", "CREATE TABLE x.t (a int)", "CREATE INDEX i ON x.t (a)")
    project.migration("1_a", "SET search_path = x; DROP INDEX CONCURRENTLY i;")
    assert project.apply().statuses == {"x.i": "changed"}
    assert names(database) == set()


def test_only_the_partitioned_table_itself_goes_forward_and_back(project: Project, database: Database) -> None:
    send(
        database,
        "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    )
    before = catalogue(database)
    project.migration("1_a", "CREATE INDEX i ON ONLY p (b); CREATE INDEX CONCURRENTLY i1 ON p1 (b);")
    assert project.apply().code == 0
    assert project.apply().report["counts"] == {"skipped": 2}
    assert project.rollback().code == 0
    assert catalogue(database) == before


def test_a_partitioned_index_is_right_once_every_part_is_attached(project: Project, database: Database) -> None:
    send(
        database,
        "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    )
    project.migration("1_a", "CREATE INDEX i ON ONLY p (b); CREATE INDEX CONCURRENTLY i1 ON p1 (b);")
    project.apply()
    assert project.run("verify").statuses == {"public.i": "finding", "public.i1": "ok"}
    send(database, "ALTER INDEX i ATTACH PARTITION i1")
    assert project.run("verify").code == 0
    assert project.rollback().code == 0
    assert names(database) == set()


def test_a_materialized_view_takes_an_index(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE MATERIALIZED VIEW v AS SELECT a, b FROM t")
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON v (a);")
    assert project.apply().code == 0
    assert project.run("verify").code == 0


def test_plain_builds_leave_the_same_catalogue(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", THREE)
    project.apply()
    concurrent = catalogue(database)
    project.rollback()
    assert project.apply("--offline").code == 0
    assert catalogue(database) == concurrent


def test_status_follows_every_step(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")

    def said() -> str:
        detail: str = project.run("status").items["1_a"]["detail"]
        return detail

    assert said() == "0 of 1 indexes there, 0 made by perfctl"
    project.apply()
    assert said() == "1 of 1 indexes there, 1 made by perfctl"
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a); -- edited")
    assert said().endswith("the file has changed since it was applied")
    project.rollback()
    assert said() == "0 of 1 indexes there, 0 made by perfctl"


def test_the_journal_says_who_when_where_and_what(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    project.apply()
    columns = "migration, migration_number, statement, undo, canonical, state, object_oid = 'i'::regclass::oid"
    assert journal(database, columns) == [
        (
            "1_a",
            1,
            'CREATE INDEX CONCURRENTLY "i" ON "public"."t" (a)',
            'DROP INDEX CONCURRENTLY "public"."i"',
            "USING btree (a)",
            "done",
            True,
        )
    ]
    assert journal(database, "size_bytes > 0, build_s >= 0, wait_s >= 0, length(migration_sha256)") == [
        (True, True, True, 64)
    ]
    with database.connect() as connection:
        runs = connection.execute("SELECT command, target, role, outcome, origin <> '' FROM perfctl.run").fetchall()
    assert runs == [("indexes apply", "test", "postgres", "done", True)]
