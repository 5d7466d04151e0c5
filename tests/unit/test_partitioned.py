"""The index of a partitioned table: which parts it needs, what is there of them, and in which order they come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfctl.indexes.decide import steps
from perfctl.indexes.model import Partition, Plan, Snapshot
from perfctl.indexes.partitioned import LONGEST_NAME, fitted, parts, shortened, suffixed
from perfctl.migrations.model import Name
from tests.unit.fix_indexes import BUILD, TABLE, index, migration, seen, table, wanted

CREATE = migration("CREATE INDEX CONCURRENTLY i ON t (a);")
ROOT = table(relkind="p")
TEXT = "USING btree (a)"


def partition(oid: int, name: str, parent_oid: int = TABLE.oid, **facts: Any) -> Partition:
    """A partition of t, or of the one whose OID is given."""
    return Partition(
        **{
            "root_oid": TABLE.oid, "parent_oid": parent_oid, "oid": oid, "schema": "public", "name": name,
            "relkind": "r", "pages": 1, "rows": 1.0, "size_bytes": 8192, "owner": "me", "owned": True,
            "may_create": True, **facts,
        }
    )  # fmt: skip


TWO = (partition(101, "p1"), partition(102, "p2"))
#: t → q → q1, and t → p1
DEEP = (partition(101, "p1"), partition(103, "q", relkind="p"), partition(104, "q1", 103))
WHOLE = index(oid=200, table_oid=TABLE.oid, relkind="I", is_valid=False)


def part(name: str, on: Partition, oid: int, **facts: Any) -> Any:
    """An index of a partition, of the wanted definition."""
    return index(
        name, f"CREATE INDEX {name} ON public.{on.name} USING btree (a)",
        oid=oid, table_oid=on.oid, table_name=on.name, **facts,
    )  # fmt: skip


def look(*indexes: Any, partitions: tuple[Partition, ...] = TWO, **facts: Any) -> Snapshot:
    return seen(*indexes, migrations=(CREATE,), tables=(ROOT,), partitions=partitions, **facts)


def plan(snapshot: Snapshot) -> Plan:
    return steps((CREATE,), wanted((CREATE,), snapshot), snapshot)


def sent(made: Plan) -> list[tuple[str, str]]:
    return [(step.kind, step.name.name) for step in made.steps]


def found(snapshot: Snapshot) -> dict[str, tuple[str, bool]]:
    """Each part's name and whether it is attached, by its partition's name."""
    (one,) = wanted((CREATE,), snapshot)
    return {each.partition.name: (each.name.name, each.attached) for each in parts(one, TEXT, snapshot)}


# the parts


def test_every_partition_needs_a_part_of_a_name_that_is_always_the_same() -> None:
    assert found(look()) == {"p1": ("p1_i", False), "p2": ("p2_i", False)}


def test_another_partitioned_tables_partitions_are_not_its() -> None:
    assert found(look(partitions=(*TWO, partition(109, "x", 900, root_oid=900)))).keys() == {"p1", "p2"}


def test_a_part_that_is_attached_is_known_by_its_parent_whatever_its_name() -> None:
    snapshot = look(WHOLE, part("anything", TWO[0], 301, parent_oid=200))
    assert found(snapshot) == {"p1": ("anything", True), "p2": ("p2_i", False)}


def test_an_equivalent_index_of_a_partition_becomes_its_part() -> None:
    assert found(look(part("theirs", TWO[0], 301)))["p1"] == ("theirs", False)


@pytest.mark.parametrize(
    "facts",
    [
        {"is_valid": False},
        {"constraint_name": "c"},
        {"parent_oid": 999},
        {"definition": "CREATE INDEX theirs ON public.p1 USING btree (b)"},
    ],
)
def test_an_index_that_is_not_fit_does_not(facts: dict[str, Any]) -> None:
    theirs = replace(part("theirs", TWO[0], 301), **facts)
    assert found(look(theirs))["p1"] == ("p1_i", False)


# the steps


def test_the_parents_index_comes_first_then_the_parts_then_the_ties() -> None:
    made = plan(look())
    assert sent(made) == [
        ("create_index", "i"), ("create_index", "p1_i"), ("create_index", "p2_i"),
        ("attach_index", "p2_i"), ("attach_index", "p1_i"),
    ]  # fmt: skip
    whole, first, *_ = made.steps
    assert whole.sql == 'CREATE INDEX "i" ON ONLY "public"."t" (a)'
    assert not whole.concurrent
    assert first.sql == 'CREATE INDEX CONCURRENTLY "p1_i" ON "public"."p1" (a)'
    assert first.after == (("create_index", Name("public", "i")),)
    assert made.steps[-1].sql == 'ALTER INDEX "public"."i" ATTACH PARTITION "public"."p1_i"'


def test_in_a_deep_tree_the_lowest_are_attached_first() -> None:
    made = plan(look(partitions=DEEP))
    assert sent(made) == [
        ("create_index", "i"), ("create_index", "p1_i"), ("create_index", "q_i"), ("create_index", "q1_i"),
        ("attach_index", "q1_i"), ("attach_index", "q_i"), ("attach_index", "p1_i"),
    ]  # fmt: skip
    by_name = {(step.kind, step.name.name): step for step in made.steps}
    assert by_name["create_index", "q_i"].sql == 'CREATE INDEX "q_i" ON ONLY "public"."q" (a)'
    assert ("attach_index", Name("public", "q1_i")) in by_name["attach_index", "q_i"].after


def test_what_is_there_is_not_built_and_what_is_attached_is_not_attached() -> None:
    snapshot = look(WHOLE, part("p1_i", TWO[0], 301, parent_oid=200), part("p2_i", TWO[1], 302))
    assert sent(plan(snapshot)) == [("attach_index", "p2_i")]


def test_an_equivalent_index_is_attached_with_a_warning_for_the_rollback() -> None:
    made = plan(look(part("theirs", TWO[0], 301)))
    assert ("create_index", "p1_i") not in sent(made)
    assert ("attach_index", "theirs") in sent(made)
    assert any("theirs" in warning and "rollback" in warning for warning in made.warnings)


def test_a_broken_part_is_dropped_and_built_anew_before_it_is_attached() -> None:
    broken = part("p1_i", TWO[0], 301, is_valid=False)
    assert [kind for kind, name in sent(plan(look(WHOLE, broken))) if name == "p1_i"] == [
        "drop_leftover", "create_index", "attach_index",
    ]  # fmt: skip


def test_a_part_that_is_being_built_is_followed() -> None:
    made = plan(look(WHOLE, part("p1_i", TWO[0], 301, is_valid=False), builds=(replace(BUILD, index_oid=301),)))
    (step,) = (step for step in made.steps if (step.kind, step.name.name) == ("create_index", "p1_i"))
    assert step.follows == BUILD.pid


def test_a_broken_part_that_is_attached_already_is_refused() -> None:
    made = plan(look(WHOLE, part("p1_i", TWO[0], 301, parent_oid=200, is_valid=False)))
    assert made.steps == ()
    assert made.refusals[0].why.startswith("attached to it and not valid: public.p1_i")


def test_a_foreign_partition_is_refused_by_name() -> None:
    made = plan(look(partitions=(*TWO, partition(105, "far", relkind="f"))))
    assert made.steps == ()
    assert "public.far" in made.refusals[0].why


def test_a_partitioned_table_without_partitions_needs_its_own_index_alone() -> None:
    assert sent(plan(look(partitions=()))) == [("create_index", "i")]


def test_a_whole_tree_is_left_alone() -> None:
    snapshot = look(
        replace(WHOLE, is_valid=True),
        part("p1_i", TWO[0], 301, parent_oid=200),
        part("p2_i", TWO[1], 302, parent_oid=200),
    )
    assert sent(plan(snapshot)) == []


# names


def test_a_name_that_fits_stays_as_it_is() -> None:
    assert shortened("x" * LONGEST_NAME) == "x" * LONGEST_NAME
    assert fitted(Name("s", "p"), "i") == Name("s", "p_i")
    assert suffixed(Name("s", "i"), "new") == Name("s", "i_new")


def test_names_that_are_too_long_are_told_apart_by_more_than_their_beginning() -> None:
    one, other = (fitted(Name("s", "p" * 60 + end), "i").name for end in "12")
    assert one != other
    assert len(one) == len(other) == LONGEST_NAME
    assert one == fitted(Name("s", "p" * 60 + "1"), "i").name


def test_no_letter_is_cut_in_two() -> None:
    name = shortened("ä" * 40)
    assert len(name.encode()) <= LONGEST_NAME
    assert name.startswith("ä" * 20)
