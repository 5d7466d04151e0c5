"""What an apply would do: for each state that the catalogue can show, and for what the files say together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfctl.indexes.classify import classify
from perfctl.indexes.decide import steps
from perfctl.indexes.draft import Manner, Selection, again
from perfctl.indexes.model import Plan, Snapshot, State, literal
from perfctl.migrations.model import Migration, Name
from tests.unit.fix_indexes import BLOCKER, BUILD, index, migration, seen, statistics, table, wanted
from tests.unit.fix_indexes import entry as line

CREATE = "CREATE INDEX CONCURRENTLY i ON t (a);"
OTHER = "CREATE INDEX i ON public.t USING btree (b)"


def plan(*migrations: Migration, snapshot: Snapshot, only: tuple[str, ...] = (), **options: Any) -> Plan:
    return steps(migrations, wanted(migrations, snapshot), snapshot, Selection(only=only), **options)


def plan_of(text: str, *indexes: Any, only: tuple[str, ...] = (), **facts: Any) -> Plan:
    """The plan for one migration of that text on a database that holds those indexes."""
    one = migration(text)
    return plan(one, snapshot=seen(*indexes, migrations=(one,), **facts), only=only)


def sent(plan: Plan) -> list[tuple[str, str]]:
    return [(step.kind, step.name.name) for step in plan.steps]


def left(plan: Plan) -> list[tuple[str, str, State | None]]:
    return [(skip.kind, skip.why, skip.state) for skip in plan.skipped]


def no(plan: Plan) -> list[str]:
    return [refusal.why for refusal in plan.refusals]


# one state after the other


def test_absent_is_built() -> None:
    (step,) = plan_of(CREATE).steps
    assert (step.kind, step.sql) == ("create_index", 'CREATE INDEX CONCURRENTLY "i" ON "public"."t" (a)')
    assert step.undo == 'DROP INDEX CONCURRENTLY "public"."i"'
    assert step.canonical == "USING btree (a)"


def test_same_is_left_alone() -> None:
    made = plan_of(CREATE, index())
    assert (sent(made), left(made)) == ([], [("create_index", "there, valid, same definition", State.SAME)])


def test_different_is_refused_with_both_definitions() -> None:
    made = plan_of(CREATE, index(definition=OTHER))
    assert made.steps == ()
    assert "has: USING btree (b)\nwanted: USING btree (a)" in no(made)[0]
    assert 'DROP INDEX CONCURRENTLY "public"."i"' in (made.refusals[0].remedy or "")


def test_a_tablespace_of_its_own_makes_it_different() -> None:
    made = plan_of("CREATE INDEX i ON t (a) TABLESPACE fast", index())
    assert "wanted: tablespace fast" in no(made)[0]


def test_the_wanted_tablespace_is_the_same() -> None:
    made = plan_of("CREATE INDEX i ON t (a) TABLESPACE fast", index(tablespace="fast"))
    assert left(made)[0][2] is State.SAME


def test_building_is_waited_for() -> None:
    made = plan_of(CREATE, index(is_valid=False, is_ready=False), builds=(BUILD,))
    assert sent(made) == [("create_index", "i")]
    assert "pid 42 (other, psql)" in made.steps[0].why


def test_a_build_that_this_role_cannot_see_is_waited_for() -> None:
    hidden = (line_of_build(index_oid=None, table_oid=None, role=None, application=None),)
    made = plan_of(CREATE, index(is_valid=False, is_ready=False), builds=hidden)
    assert sent(made) == [("create_index", "i")]


def line_of_build(**facts: Any) -> Any:
    return replace(BUILD, **facts)


@pytest.mark.parametrize(
    ("state", "flags"),
    [
        (State.INVALID_UNREADY, {"is_valid": False, "is_ready": False}),
        (State.INVALID_READY, {"is_valid": False, "is_ready": True}),
        (State.HALF_DROPPED, {"is_valid": False, "is_ready": True, "is_live": False}),
        (State.HALF_DROPPED, {"is_valid": False, "is_ready": False, "is_live": False}),
    ],
)
def test_a_broken_one_is_dropped_and_built_anew(state: State, flags: dict[str, Any]) -> None:
    made = plan_of(CREATE, index(oid=201, **flags))
    assert sent(made) == [("drop_leftover", "i"), ("create_index", "i")]
    assert made.steps[0].why.startswith(state)
    assert (made.steps[0].oid, made.steps[0].undo) == (201, None)


def test_invalid_behind_an_unfinished_drop_of_ours_is_half_dropped() -> None:
    one = migration(CREATE)
    entries = (line(kind="create_index"), line(id=2, kind="drop_index", state="failed"))
    snapshot = seen(index(is_valid=False), migrations=(one,), journal=entries)
    assert classify(wanted((one,), snapshot)[0], snapshot).state is State.HALF_DROPPED


@pytest.mark.parametrize(("relkind", "words"), [("r", "a table"), ("v", "a view"), ("S", "a sequence")])
def test_a_name_that_belongs_to_something_else_is_refused(relkind: str, words: str) -> None:
    made = plan_of(CREATE, tables=(table(), table("i", oid=101, relkind=relkind)))
    assert no(made) == [f"the name belongs to {words}"]


def test_a_name_that_belongs_to_another_tables_index_is_refused() -> None:
    made = plan_of(CREATE, index(table_oid=101, table_name="u"))
    assert no(made) == ["the name belongs to an index of public.u"]


def test_a_name_in_another_schema_is_free() -> None:
    made = plan_of(CREATE, index(schema="other", table_oid=101, table_schema="other"))
    assert sent(made) == [("create_index", "i")]


def test_covered_by_another_name_is_left_alone() -> None:
    made = plan_of(CREATE, index("j", oid=201))
    assert left(made) == [("create_index", 'covered: "public.j" has the same definition', State.COVERED)]


@pytest.mark.parametrize(
    "facts",
    [{"is_valid": False}, {"table_oid": 101}, {"definition": "CREATE UNIQUE INDEX j ON public.t USING btree (a)"}],
)
def test_only_a_good_index_of_the_same_table_and_definition_covers(facts: dict[str, Any]) -> None:
    assert sent(plan_of(CREATE, index("j", oid=201, **facts))) == [("create_index", "i")]


def test_one_that_the_migration_drops_covers_nothing() -> None:
    made = plan_of(f"{CREATE} DROP INDEX CONCURRENTLY j;", index("j", oid=201))
    assert sent(made) == [("create_index", "i"), ("drop_index", "j")]


def test_what_cannot_be_compared_is_refused() -> None:
    made = plan_of(CREATE, index(), canonical={"i": None}, server={"in_recovery": True})
    assert no(made) == ["cannot tell whether it is right: the server's reason"]


def test_what_the_server_does_not_take_is_refused_with_its_reason() -> None:
    made = plan_of("CREATE INDEX i ON t (nothing)", canonical={"i": None})
    assert no(made) == ["the server does not take it: the server's reason"]
    assert made.refusals[0].remedy == "mend 1_a.sql:1:1"


# tables


def test_a_table_that_is_not_there_is_refused_with_the_place() -> None:
    made = plan_of("\nCREATE INDEX i ON s.u (a)")
    assert no(made) == ['table "s.u" does not exist']
    assert str(made.refusals[0].place) == "1_a.sql:2:1"


def test_a_view_takes_no_index() -> None:
    made = plan_of("CREATE INDEX i ON v (a)", tables=(table("v", relkind="v"),))
    assert no(made) == ['"public.v" is no table']


def test_a_materialized_view_takes_one() -> None:
    assert sent(plan_of("CREATE INDEX i ON v (a)", tables=(table("v", relkind="m"),))) == [("create_index", "i")]


def test_a_whole_partitioned_tables_own_index_comes_first_on_only_it() -> None:
    (step,) = plan_of(CREATE, tables=(table(relkind="p"),)).steps
    assert (step.sql, step.concurrent) == ('CREATE INDEX "i" ON ONLY "public"."t" (a)', False)


def test_only_the_partitioned_table_itself_is_built_plainly() -> None:
    (step,) = plan_of("CREATE INDEX CONCURRENTLY i ON ONLY t (a)", tables=(table(relkind="p"),)).steps
    assert (step.sql, step.undo) == ('CREATE INDEX "i" ON ONLY "public"."t" (a)', 'DROP INDEX "public"."i"')


# how it is sent


def test_if_not_exists_is_never_sent() -> None:
    (step,) = plan_of("CREATE UNIQUE INDEX IF NOT EXISTS i ON t (a) WHERE b > 1").steps
    assert step.sql == 'CREATE UNIQUE INDEX CONCURRENTLY "i" ON "public"."t" (a) WHERE b > 1'


def test_a_plain_build_is_sent_when_it_is_asked_for() -> None:
    one = migration(CREATE)
    made = plan(one, snapshot=seen(migrations=(one,)), manner=Manner(offline=True))
    assert made.steps[0].sql == 'CREATE INDEX "i" ON "public"."t" (a)'


def test_a_files_settings_go_with_its_indexes_save_those_that_cut_builds() -> None:
    (step,) = plan_of(f"SET maintenance_work_mem = '1GB'; SET lock_timeout = '1s'; {CREATE}").steps
    assert step.settings == (("maintenance_work_mem", "1GB"),)


def test_a_step_bears_its_migration_and_place() -> None:
    (step,) = plan_of(f"\n{CREATE}").steps
    assert (step.migration, step.migration_number, step.migration_sha256) == ("1_a", 1, "0")
    assert str(step.place) == "1_a.sql:2:1"


def test_who_is_in_the_way_is_told() -> None:
    assert plan_of(CREATE, blockers=(BLOCKER,)).steps[0].waits_for == (
        "pid 7 (app, web, idle in transaction, open for 12 s)",
    )


def test_who_locks_another_table_is_not_in_the_way() -> None:
    assert plan_of(CREATE, blockers=(replace(BLOCKER, table_oid=999),)).steps[0].waits_for == ()


@pytest.mark.parametrize(("age_s", "told"), [(0.1, 0), (5.0, 1)])
def test_an_old_snapshot_is_in_the_way_wherever_it_reads(age_s: float, told: int) -> None:
    snapshot = replace(BLOCKER, table_oid=None, reason="snapshot", age_s=age_s)
    assert len(plan_of(CREATE, blockers=(snapshot,)).steps[0].waits_for) == told


def test_a_build_has_an_estimate_of_at_least_two_pages() -> None:
    (step,) = plan_of(CREATE, tables=(table(rows=0.0, pages=0, size_bytes=0),)).steps
    assert step.estimate is not None
    assert (step.estimate.size_bytes, step.estimate.seconds) == (16384, 0.0)


def test_more_rows_take_more_space_and_time() -> None:
    small = plan_of(CREATE, tables=(table(rows=1e4),)).steps[0].estimate
    large = plan_of(CREATE, tables=(table(rows=1e7),)).steps[0].estimate
    assert small is not None
    assert large is not None
    assert large.size_bytes > small.size_bytes
    assert large.seconds > small.seconds


# several statements together


def test_steps_stand_in_the_files_order() -> None:
    text = "CREATE INDEX c ON t (a); CREATE INDEX a ON t (b); CREATE INDEX b ON t (a, b);"
    texts = {"a": "USING btree (b)", "b": "USING btree (a, b)"}
    assert [name for _, name in sent(plan_of(text, canonical=texts))] == ["c", "a", "b"]


def test_a_later_drop_supersedes_a_create() -> None:
    made = plan_of(f"{CREATE} DROP INDEX CONCURRENTLY i;")
    assert left(made) == [("create_index", "dropped again by 1_a", None), ("drop_index", "not there", State.ABSENT)]


def test_what_was_built_before_a_later_drop_came_is_dropped() -> None:
    made = plan_of(f"{CREATE} DROP INDEX CONCURRENTLY i;", index(comment="c"))
    (step,) = made.steps
    assert (step.kind, step.sql, step.oid) == ("drop_index", 'DROP INDEX CONCURRENTLY "public"."i"', 200)
    assert (step.undo, step.comment) == ("CREATE INDEX CONCURRENTLY i ON public.t USING btree (a)", "c")


def test_drop_then_create_redefines() -> None:
    made = plan_of(f"DROP INDEX CONCURRENTLY i; {CREATE}", index(definition=OTHER))
    assert sent(made) == [("drop_index", "i"), ("create_index", "i")]


def test_drop_then_create_of_what_is_right_already_does_nothing() -> None:
    made = plan_of(f"DROP INDEX CONCURRENTLY i; {CREATE}", index())
    assert sent(made) == []


def test_drop_then_create_of_what_is_not_there_builds() -> None:
    assert sent(plan_of(f"DROP INDEX CONCURRENTLY IF EXISTS i; {CREATE}")) == [("create_index", "i")]


def test_drop_then_create_of_a_broken_one_drops_it_once() -> None:
    made = plan_of(f"DROP INDEX CONCURRENTLY i; {CREATE}", index(is_valid=False))
    assert sent(made) == [("drop_leftover", "i"), ("create_index", "i")]


def test_a_redefinition_in_a_later_migration_is_built_once() -> None:
    first = migration(CREATE)
    second = migration("DROP INDEX CONCURRENTLY i; CREATE INDEX CONCURRENTLY i ON t (b);", "2_b")
    snapshot = seen(migrations=(first, second), canonical={"i": "USING btree (b)"})
    made = plan(first, second, snapshot=snapshot)
    assert [(step.kind, step.migration) for step in made.steps] == [("create_index", "2_b")]


def test_two_of_one_definition_are_built_once() -> None:
    made = plan_of("CREATE INDEX i ON t (a); CREATE INDEX j ON t (a);")
    assert sent(made) == [("create_index", "i")]
    assert left(made)[0][2] is State.COVERED


def test_one_refusal_does_not_hide_the_next() -> None:
    made = plan_of("CREATE INDEX i ON u (a); CREATE INDEX j ON v (a);")
    assert no(made) == ['table "u" does not exist', 'table "v" does not exist']


# DROP INDEX


def test_a_drop_of_a_constraints_index_is_refused() -> None:
    made = plan_of("DROP INDEX i", index(constraint_name="t_key"))
    assert no(made) == ['constraint "t_key" needs it']


@pytest.mark.parametrize("facts", [{"relkind": "I"}, {"parent_oid": 300}])
def test_a_drop_of_a_partitioned_index_is_refused(facts: dict[str, Any]) -> None:
    assert "partitioned index" in no(plan_of("DROP INDEX i", index(**facts)))[0]


def test_what_somebody_created_again_after_our_drop_is_left_alone() -> None:
    made = plan_of("DROP INDEX i", index(), journal=(line(kind="drop_index"),))
    assert sent(made) == []
    assert "created again since by somebody" in left(made)[0][1]


def test_what_a_rollback_put_back_is_dropped_again() -> None:
    entries = (line(kind="drop_index"), line(id=2, kind="create_index", undoes=1))
    assert sent(plan_of("DROP INDEX i", index(), journal=entries)) == [("drop_index", "i")]


# comments, statistics, extensions, ANALYZE

NOTE = "COMMENT ON INDEX i IS 'it''s'"


def test_a_comment_follows_its_index() -> None:
    made = plan_of(f"{CREATE} {NOTE};")
    assert sent(made) == [("create_index", "i"), ("comment", "i")]
    assert made.steps[1].sql == "COMMENT ON INDEX \"public\".\"i\" IS 'it''s'"


def test_a_comment_that_is_there_is_left_alone() -> None:
    assert sent(plan_of(NOTE, index(comment="it's"))) == []


def test_another_comment_is_replaced_and_can_be_put_back() -> None:
    (step,) = plan_of(NOTE, index(comment="old")).steps
    assert step.undo == 'COMMENT ON INDEX "public"."i" IS \'old\''


def test_a_comment_on_nothing_is_refused() -> None:
    assert no(plan_of(NOTE)) == ["there is no such index to comment on"]


def test_a_comment_on_a_covered_index_is_left_out() -> None:
    made = plan_of(f"{CREATE} {NOTE};", index("j", oid=201))
    assert (sent(made), no(made)) == ([], [])


STATISTICS = "CREATE STATISTICS s ON a, b FROM t"


def statistics_plan(*there: Any, text: str = "ON a, b") -> Plan:
    from perfctl.indexes.model import Canonical

    one = migration(STATISTICS)
    snapshot = seen(migrations=(one,), statistics=there)
    return plan(one, snapshot=replace(snapshot, canonical={one.statements[0].place: Canonical(text)}))


def test_statistics_are_created_in_their_tables_schema() -> None:
    (step,) = statistics_plan().steps
    assert step.sql == 'CREATE STATISTICS "public"."s" ON a, b FROM "public"."t"'
    assert step.undo == 'DROP STATISTICS IF EXISTS "public"."s"'


def test_statistics_of_the_same_definition_are_left_alone() -> None:
    assert sent(statistics_plan(statistics())) == []


def test_statistics_of_another_definition_are_refused() -> None:
    made = statistics_plan(statistics("CREATE STATISTICS public.s ON a, c FROM t"))
    assert no(made) == ["statistics of that name are there with another definition"]


def test_an_extension_is_created_once() -> None:
    text = "CREATE EXTENSION IF NOT EXISTS pg_trgm"
    assert sent(plan_of(text)) == [("create_extension", "pg_trgm")]
    assert sent(plan_of(text, server={"extensions": ["pg_trgm"]})) == []


def test_analyze_comes_after_all_builds() -> None:
    made = plan_of("ANALYZE t; CREATE INDEX i ON t (a);")
    assert sent(made) == [("create_index", "i"), ("analyze", "t")]


def test_analyze_names_its_columns() -> None:
    assert plan_of("ANALYZE t (a, b)").steps[0].sql == 'ANALYZE "public"."t" ("a", "b")'


def test_analyze_is_not_done_twice_for_one_index() -> None:
    entries = (line(kind="analyze", name="t", undo=None),)
    made = plan_of(f"{CREATE} ANALYZE t;", index(), journal=entries)
    assert sent(made) == []


# what is selected


@pytest.mark.parametrize("glob", ["j", "public.j", "*.j", "[j]"])
def test_only_what_matches_is_planned(glob: str) -> None:
    made = plan_of("CREATE INDEX i ON t (a); CREATE INDEX j ON t (b);", canonical={"j": "x"}, only=(glob,))
    assert [name for _, name in sent(made)] == ["j"]


def test_what_is_excepted_is_not_planned() -> None:
    assert not Selection(("i*",), ("i2",)).takes(Name("public", "i2"))
    assert Selection(("i*",), ("i2",)).takes(Name("public", "i1"))


@pytest.mark.parametrize(("only", "outright"), [("i", True), ("public.i", True), ("i*", False), ("j", False)])
def test_a_glob_does_not_name_outright(only: str, outright: bool) -> None:
    assert Selection((only,)).names(Name("public", "i")) is outright


# rights


def test_a_table_of_another_role_is_denied_with_the_grant() -> None:
    (refusal,) = plan_of(CREATE, tables=(table(owned=False, owner="boss"),)).refusals
    assert refusal.denied
    assert refusal.why == 'role "me" does not own table "public.t"'
    assert refusal.remedy == 'GRANT "boss" TO "me"'


def test_a_schema_where_nothing_may_be_created_is_denied_once() -> None:
    tables = (table(may_create=False), table("u", oid=101, may_create=False))
    made = plan_of("CREATE INDEX i ON t (a); CREATE INDEX j ON u (a);", tables=tables)
    assert no(made) == ['role "me" may not create in schema "public"']


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"may_create_schema": False}, 'may not create schema "perfctl"'),
        (
            {"has_journal_schema": True, "has_journal": True, "may_use_journal_schema": True},
            "may not write the journal",
        ),
        ({"has_journal_schema": True, "may_use_journal_schema": False}, "may not write the journal"),
    ],
)
def test_a_journal_that_cannot_be_written_is_denied(server: dict[str, bool], words: str) -> None:
    assert words in no(plan_of(CREATE, server=server))[0]


def test_every_missing_right_is_named_at_once() -> None:
    tables = (table(owned=False, may_create=False), table("u", oid=101, owned=False))
    made = plan_of(
        "CREATE INDEX i ON t (a); CREATE INDEX j ON u (a);", tables=tables, server={"may_create_schema": False}
    )
    assert len(made.refusals) == 4
    assert all(refusal.denied for refusal in made.refusals)


def test_nothing_to_do_needs_no_right() -> None:
    made = plan_of(CREATE, index(), tables=(table(owned=False, may_create=False),), server={"may_create_schema": False})
    assert made.refusals == ()


# text that is sent


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "NULL"), ("a", "'a'"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("\\'", "E'\\\\'''")],
)
def test_a_string_is_quoted_whatever_the_server_is_set_to(value: str | None, text: str) -> None:
    assert literal(value) == text


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ("CREATE INDEX i ON public.t USING btree (a)", "CREATE INDEX CONCURRENTLY i ON public.t USING btree (a)"),
        ('CREATE UNIQUE INDEX "a INDEX b" ON t', 'CREATE UNIQUE INDEX CONCURRENTLY "a INDEX b" ON t'),
    ],
)
def test_what_is_dropped_is_put_back_by_a_concurrent_build(definition: str, text: str) -> None:
    assert again(index(definition=definition)) == text


def test_what_is_dropped_is_put_back_in_its_tablespace() -> None:
    definition = "CREATE INDEX i ON public.t USING btree (a) WHERE (b > 1)"
    assert again(index(definition=definition, predicate="(b > 1)", tablespace="fast")) == (
        'CREATE INDEX CONCURRENTLY i ON public.t USING btree (a) TABLESPACE "fast" WHERE (b > 1)'
    )


def test_a_drop_of_a_tables_replica_identity_is_refused() -> None:
    assert "replica identity" in no(plan_of("DROP INDEX i", index(marks=["replica identity"])))[0]


def test_one_name_for_two_definitions_is_refused() -> None:
    made = plan_of("CREATE INDEX i ON t (a); CREATE INDEX i ON t (b);")
    assert [refusal.why for refusal in made.refusals] == ["1_a.sql:1:1 defines it too, and otherwise"]
