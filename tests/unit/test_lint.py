"""Each rule of lint, with the cases where it must stay silent."""

from __future__ import annotations

import pytest

from perfctl.indexes.lint import lint
from perfctl.migrations.files import load
from perfctl.migrations.model import Migration
from perfctl.report import Status
from tests.fix_perfctl import ROOT
from tests.unit.fix_indexes import migration

GOOD = "CREATE INDEX CONCURRENTLY i ON s.t (a);"
UNDO = "DROP INDEX CONCURRENTLY IF EXISTS s.i;"


def found(*migrations: Migration) -> list[tuple[str, str]]:
    """Rule and line of each finding."""
    items = lint(migrations)
    assert all(item.remedy for item in items if item.status is Status.FINDING)
    return [
        (item.data["rule"], f"{item.data['file']}:{item.data['line']}")
        for item in items
        if item.status is Status.FINDING
    ]


def rules(text: str, rollback: str | None = UNDO) -> list[str]:
    return [rule for rule, _ in found(migration(text, rollback=rollback))]


def test_a_good_file_is_one_ok_item() -> None:
    (item,) = lint([migration(GOOD, rollback=UNDO)])
    assert (item.status, item.detail) == (Status.OK, "1 indexes, nothing to mend")


def test_the_27_have_nothing_to_mend() -> None:
    assert found(*load([ROOT / "sql" / "migrations"])) == []


def test_a_plain_create_is_found_with_its_line() -> None:
    assert found(migration("\nCREATE INDEX i ON s.t (a);", rollback=UNDO)) == [("concurrently", "1_a.sql:2")]


def test_a_plain_drop_is_found_in_the_migration() -> None:
    undo = "CREATE INDEX CONCURRENTLY i ON s.t (a)"
    assert rules("DROP INDEX s.i", undo) == ["concurrently"]


def test_a_plain_drop_is_found_in_the_rollback() -> None:
    assert found(migration(GOOD, rollback="DROP INDEX s.i;")) == [("concurrently", "1_a_rollback.sql:1")]


def test_only_the_partitioned_table_itself_is_rightly_built_plainly() -> None:
    assert rules("CREATE INDEX i ON ONLY s.t (a)") == []


def test_only_the_partitioned_table_itself_is_rightly_dropped_plainly() -> None:
    assert rules("CREATE INDEX i ON ONLY s.t (a)", "DROP INDEX IF EXISTS s.i") == []


def test_a_cascade_is_found() -> None:
    undo = "CREATE INDEX CONCURRENTLY i ON s.t (a)"
    assert rules("DROP INDEX CONCURRENTLY s.i CASCADE", undo) == ["cascade"]


def test_restrict_is_silent() -> None:
    assert rules("DROP INDEX CONCURRENTLY s.i RESTRICT", "CREATE INDEX CONCURRENTLY i ON s.t (a)") == []


@pytest.mark.parametrize("name", ["lock_timeout", "statement_timeout", "idle_session_timeout"])
def test_a_timeout_in_the_file_is_found(name: str) -> None:
    assert rules(f"SET {name} = '1s'; {GOOD}") == ["timeout"]


@pytest.mark.parametrize("setting", ["maintenance_work_mem = '1GB'", "search_path = s", "work_mem = '1GB'"])
def test_another_setting_is_silent(setting: str) -> None:
    assert rules(f"SET {setting}; {GOOD}") == []


def test_an_exact_duplicate_is_found_at_the_second() -> None:
    text = f"{GOOD}\nCREATE INDEX CONCURRENTLY j ON s.t USING btree (a);"
    items = found(migration(text, rollback=f"{UNDO} DROP INDEX CONCURRENTLY s.j;"))
    assert items == [("duplicate", "1_a.sql:2")]


def test_a_duplicate_in_another_migration_is_found() -> None:
    second = migration("CREATE INDEX CONCURRENTLY j ON s.t (a);", "2_b", "DROP INDEX CONCURRENTLY s.j;")
    assert found(migration(GOOD, rollback=UNDO), second) == [("duplicate", "2_b.sql:1")]


@pytest.mark.parametrize(
    "other",
    [
        "CREATE INDEX CONCURRENTLY j ON s.t (b)",
        "CREATE UNIQUE INDEX CONCURRENTLY j ON s.t (a)",
        "CREATE INDEX CONCURRENTLY j ON s.t (a) WHERE a > 1",
        "CREATE INDEX CONCURRENTLY j ON s.t (a, b)",
        "CREATE INDEX CONCURRENTLY j ON s.u (a)",
        "CREATE INDEX CONCURRENTLY j ON s.t (a DESC)",
    ],
)
def test_what_only_resembles_is_no_duplicate(other: str) -> None:
    assert rules(f"{GOOD} {other}", f"{UNDO} DROP INDEX CONCURRENTLY s.j") == []


def test_what_was_dropped_before_is_no_duplicate() -> None:
    second = migration(
        "DROP INDEX CONCURRENTLY s.i; CREATE INDEX CONCURRENTLY j ON s.t (a);",
        "2_b",
        "DROP INDEX CONCURRENTLY s.j; CREATE INDEX CONCURRENTLY i ON s.t (a);",
    )
    assert found(migration(GOOD, rollback=UNDO), second) == []


def test_a_migration_without_a_rollback_file_is_found() -> None:
    assert rules(GOOD, None) == ["rollback-missing"]


def test_an_index_that_the_rollback_forgets_is_found() -> None:
    assert rules(f"{GOOD} CREATE INDEX CONCURRENTLY j ON s.t (b);") == ["rollback-incomplete"]


def test_an_index_of_another_schema_is_not_what_the_rollback_drops() -> None:
    assert sorted(rules(GOOD, "DROP INDEX CONCURRENTLY u.i")) == ["rollback-foreign", "rollback-incomplete"]


def test_a_rollback_may_leave_the_schema_to_the_search_path() -> None:
    assert rules(GOOD, "DROP INDEX CONCURRENTLY i") == []


def test_an_index_that_only_the_rollback_knows_is_found_there() -> None:
    items = found(migration(GOOD, rollback=f"{UNDO}\nDROP INDEX CONCURRENTLY s.other;"))
    assert items == [("rollback-foreign", "1_a_rollback.sql:2")]


def test_a_dropped_index_that_the_rollback_does_not_create_again_is_found() -> None:
    assert rules(f"{GOOD} DROP INDEX CONCURRENTLY s.old;") == ["rollback-incomplete"]


def test_a_dropped_index_that_the_rollback_creates_again_is_silent() -> None:
    undo = f"{UNDO} CREATE INDEX CONCURRENTLY old ON s.t (c);"
    assert rules(f"{GOOD} DROP INDEX CONCURRENTLY s.old;", undo) == []


def test_a_redefinition_is_silent_when_the_rollback_turns_it_back() -> None:
    text = "DROP INDEX CONCURRENTLY s.i; CREATE INDEX CONCURRENTLY i ON s.t (a, b);"
    assert rules(text, f"{UNDO} CREATE INDEX CONCURRENTLY i ON s.t (a);") == []


def test_findings_stand_in_the_order_of_lines() -> None:
    text = "CREATE INDEX i ON s.t (a);\nSET lock_timeout = '1s';\nCREATE INDEX j ON s.t (b);"
    undo = "DROP INDEX CONCURRENTLY s.i, s.j"
    assert [rule for rule, _ in found(migration(text, rollback=undo))] == ["concurrently", "timeout", "concurrently"]


def test_one_name_for_two_definitions_is_found() -> None:
    found = lint([migration("CREATE INDEX CONCURRENTLY i ON t (a); CREATE INDEX CONCURRENTLY i ON t (b);")])
    assert "defined-twice" in [item.data["rule"] for item in found]


def test_one_name_defined_anew_after_its_drop_is_silent() -> None:
    text = "CREATE INDEX CONCURRENTLY i ON t (a); DROP INDEX CONCURRENTLY i; CREATE INDEX CONCURRENTLY i ON t (b);"
    assert "defined-twice" not in [item.data["rule"] for item in lint([migration(text)])]
