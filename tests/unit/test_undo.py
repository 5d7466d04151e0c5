"""What a rollback would do: what the journal says perfctl made, newest first, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfctl.indexes.draft import Selection
from perfctl.indexes.model import Entry, Index, Plan
from perfctl.indexes.owned import standing
from perfctl.indexes.undo import steps
from tests.unit.fix_indexes import SERVER, entry, index, seen, table

DROPPED = entry(
    kind="drop_index",
    statement='DROP INDEX CONCURRENTLY "public"."i"',
    undo="CREATE INDEX CONCURRENTLY i ON public.t USING btree (a)",
    canonical=None,
    comment="it's",
)
J = {"name": "j", "undo": 'DROP INDEX CONCURRENTLY "public"."j"', "object_oid": 201}


def plan(
    *journal: Entry, there: tuple[Index, ...] = (), only: tuple[str, ...] = (), without: tuple[str, ...] = (), **to: Any
) -> Plan:
    return steps(seen(*there, journal=journal), Selection(only, without), **to)


def sent(plan: Plan) -> list[str]:
    return [step.sql for step in plan.steps]


# what perfctl made


def test_what_perfctl_made_is_taken_off() -> None:
    (step,) = plan(entry(), there=(index(),)).steps
    assert (step.kind, step.sql) == ("drop_index", 'DROP INDEX CONCURRENTLY "public"."i"')
    assert (step.oid, step.undoes) == (200, 1)


def test_the_newest_goes_first() -> None:
    made = plan(entry(), entry(id=2, **J), there=(index(), index("j", oid=201)))
    assert [step.name.name for step in made.steps] == ["j", "i"]


def test_an_index_that_perfctl_did_not_make_stays() -> None:
    assert plan(there=(index(),)) == Plan(())


def test_what_is_gone_already_is_skipped() -> None:
    made = plan(entry())
    assert (sent(made), made.skipped[0].why) == ([], "gone already")


def test_what_was_rolled_back_is_not_rolled_back_again() -> None:
    assert plan(entry(), entry(id=2, kind="drop_index", undoes=1), there=(index(),)) == Plan(())


def test_a_rollback_that_failed_is_tried_again() -> None:
    failed = entry(id=2, kind="drop_index", undoes=1, state="failed")
    assert len(sent(plan(entry(), failed, there=(index(),)))) == 1


@pytest.mark.parametrize("state", ["failed", "started"])
def test_a_build_that_did_not_end_well_stands_for_nothing(state: str) -> None:
    assert standing([entry(state=state)]) == []


@pytest.mark.parametrize("end", [{"state": "done", "undo": None}, {"state": "failed"}])
def test_a_build_that_was_renamed_stands_as_what_it_became(end: dict[str, Any]) -> None:
    # Journals hold either end.
    built = entry(name="i_perfctl_new", object_oid=201, detail="renamed to i", **end)
    journal = [built, replace(DROPPED, id=2), entry(id=3, object_oid=201)]
    assert [line.id for line in standing(journal)] == [2, 3]


def test_what_was_built_anew_after_a_rollback_stands_again() -> None:
    journal = [entry(), entry(id=2, kind="drop_index", undoes=1), entry(id=3)]
    assert [line.id for line in standing(journal)] == [3]


# what perfctl made and dropped again

ENDED = replace(DROPPED, id=2, migration="2_b", migration_number=2, object_oid=200)


def test_a_build_and_the_drop_that_ended_it_need_no_statement() -> None:
    made = plan(entry(), ENDED)
    assert [(step.kind, step.undoes) for step in made.steps] == [("settle", 2), ("settle", 1)]
    settled = [entry(id=n + 3, kind="settle", undoes=step.undoes, comment=None) for n, step in enumerate(made.steps)]
    assert standing([entry(), ENDED, *settled]) == []


def test_a_drop_of_what_somebody_else_made_is_taken_back() -> None:
    foreign = replace(ENDED, object_oid=999)
    assert [step.kind for step in plan(entry(), foreign).steps] == ["create_index", "comment"]


def test_what_was_built_anew_after_its_drop_goes_and_nothing_comes_back() -> None:
    made = plan(entry(), ENDED, entry(id=3, object_oid=300), there=(index(oid=300),))
    assert [(step.kind, step.undoes) for step in made.steps] == [("drop_index", 3), ("settle", 2), ("settle", 1)]


def test_a_drop_alone_is_taken_back_although_perfctl_made_the_index() -> None:
    made = plan(entry(), ENDED, migrations=["2_b"])
    assert [step.kind for step in made.steps] == ["create_index", "comment"]


# what was changed since


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"definition": "CREATE INDEX i ON public.t USING btree (b)"}, "its definition is now USING btree (b)"),
        ({"table_name": "u", "table_oid": 101}, "it is an index of public.u now"),
    ],
)
def test_what_was_changed_since_is_refused(now: dict[str, Any], words: str) -> None:
    made = plan(entry(), there=(index(**now),))
    assert sent(made) == []
    assert made.refusals[0].why == f"changed since perfctl made it: {words}"
    assert made.refusals[0].remedy


@pytest.mark.parametrize("name", ["i", "public.i"])
def test_what_was_changed_since_goes_when_it_is_named_outright(name: str) -> None:
    there = index(oid=999, definition="CREATE INDEX i ON public.t USING btree (b)")
    (step,) = plan(entry(), there=(there,), only=(name,)).steps
    assert step.oid == 999


def test_what_was_reindexed_since_is_still_the_same() -> None:
    (step,) = plan(entry(), there=(index(oid=999),)).steps
    assert step.oid == 999


def test_a_glob_does_not_open_what_was_changed_since() -> None:
    there = index(definition="CREATE INDEX i ON public.t USING btree (b)")
    made = plan(entry(), there=(there,), only=("*",))
    assert (sent(made), len(made.refusals)) == ([], 1)


def test_what_was_renamed_is_refused_with_its_new_name() -> None:
    made = plan(entry(), there=(index("k"),))
    assert made.refusals[0].why == 'it is called "public.k" now'


def test_what_carries_a_constraint_now_is_refused_even_by_name() -> None:
    made = plan(entry(), there=(index(constraint_name="t_key"),), only=("i",))
    assert made.refusals[0].why == 'constraint "t_key" needs it now'


# what was dropped


def test_what_a_migration_dropped_is_put_back_with_its_comment() -> None:
    made = plan(DROPPED)
    assert sent(made) == [
        "CREATE INDEX CONCURRENTLY i ON public.t USING btree (a)",
        "COMMENT ON INDEX \"public\".\"i\" IS 'it''s'",
    ]


def test_what_is_there_again_is_skipped() -> None:
    made = plan(DROPPED, there=(index(),))
    assert (sent(made), made.skipped[0].why) == ([], "there again already")


def test_a_broken_leftover_makes_way_for_what_is_put_back() -> None:
    made = plan(replace(DROPPED, comment=None), there=(index(is_valid=False),))
    assert [step.kind for step in made.steps] == ["drop_leftover", "create_index"]


def test_a_redefinition_is_turned_back_into_what_was_there_before() -> None:
    redefined = entry(id=2, canonical="USING btree (b)", object_oid=201)
    there = index(oid=201, definition="CREATE INDEX i ON public.t USING btree (b)")
    made = plan(DROPPED, redefined, there=(there,))
    assert [step.kind for step in made.steps] == ["drop_index", "create_index", "comment"]


def test_a_drop_is_not_taken_back_by_clearing_its_way_alone() -> None:
    cleared = entry(id=2, kind="drop_leftover", undo=None, undoes=1)
    failed = entry(id=3, undo=None, undoes=1, state="failed")
    assert DROPPED in standing([DROPPED, cleared, failed])


# comments, statistics and the rest

COMMENT = entry(id=2, kind="comment", undo='COMMENT ON INDEX "public"."i" IS NULL', migration_number=2, migration="2_b")


def test_a_comment_goes_with_its_index() -> None:
    made = plan(entry(), COMMENT, there=(index(comment="x"),))
    assert [step.kind for step in made.steps] == ["drop_index"]


def test_a_comment_on_an_index_that_stays_is_taken_back() -> None:
    assert sent(plan(COMMENT, there=(index(comment="x"),))) == ['COMMENT ON INDEX "public"."i" IS NULL']


def test_a_comment_is_taken_back_when_its_index_is_kept_by_to() -> None:
    made = plan(entry(), COMMENT, there=(index(comment="x"),), to=1)
    assert sent(made) == ['COMMENT ON INDEX "public"."i" IS NULL']


def test_statistics_are_dropped() -> None:
    made = plan(entry(kind="create_statistics", name="s", undo='DROP STATISTICS "public"."s"'))
    assert (sent(made), made.steps[0].kind) == (['DROP STATISTICS "public"."s"'], "undo_create_statistics")


def test_analyze_has_no_way_back() -> None:
    assert plan(entry(kind="analyze", undo=None)) == Plan(())


# what is chosen

TWO = (entry(), entry(id=2, migration="2_b", migration_number=2, **J))
THERE = (index(), index("j", oid=201))


def test_to_keeps_migrations_up_to_that_number() -> None:
    assert [step.name.name for step in plan(*TWO, there=THERE, to=1).steps] == ["j"]


def test_to_zero_takes_off_all() -> None:
    assert [step.name.name for step in plan(*TWO, there=THERE, to=0).steps] == ["j", "i"]


def test_one_migration_is_rolled_back_by_name() -> None:
    assert [step.name.name for step in plan(*TWO, there=THERE, migrations=["1_a"]).steps] == ["i"]


def test_only_takes_off_what_matches() -> None:
    assert [step.name.name for step in plan(*TWO, there=THERE, only=("*.i",)).steps] == ["i"]


def test_except_leaves_what_matches() -> None:
    assert [step.name.name for step in plan(*TWO, there=THERE, without=("i",)).steps] == ["j"]


def test_a_missing_right_is_named_before_the_first_drop() -> None:
    snapshot = seen(index(), journal=(entry(),), tables=(table(owned=False, owner="boss"),))
    (refusal,) = steps(replace(snapshot, server=replace(SERVER, has_journal_schema=True)), Selection()).refusals[:1]
    assert (refusal.denied, refusal.why) == (True, 'role "me" does not own table "public.t"')
