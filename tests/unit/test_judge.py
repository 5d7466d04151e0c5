"""What verify and status say of what the catalogue shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfctl.figures import human_bytes, human_seconds
from perfctl.indexes.judge import status, verify
from perfctl.indexes.model import Snapshot
from perfctl.migrations.model import Migration
from perfctl.report import Item, Status
from tests.unit.fix_indexes import BUILD, entry, index, migration, seen, table, wanted

CREATE = "CREATE INDEX CONCURRENTLY i ON t (a);"


def judged(*migrations: Migration, snapshot: Snapshot, **options: Any) -> list[Item]:
    return verify(migrations, wanted(migrations, snapshot), snapshot, **options)


def one(*indexes: Any, text: str = CREATE, absent: bool = False, corruption: Any = None, **facts: Any) -> Item:
    """What is said of the one index of the migration."""
    only = migration(text)
    snapshot = seen(*indexes, migrations=(only,), **facts)
    (item,) = judged(only, snapshot=snapshot, absent=absent, corruption=corruption)
    return item


def test_what_is_right_is_ok_with_size_and_scans() -> None:
    item = one(index())
    assert (item.status, item.name, item.detail) == (Status.OK, "public.i", "valid, 16 kB, 3 scans")
    assert (item.data["size_bytes"], item.data["scans"], item.data["state"]) == (16384, 3, "same")


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ((), "absent: not there"),
        ((index(definition="CREATE INDEX i ON public.t USING btree (b)"),), "different: has: USING btree (b)"),
        ((index(is_valid=False, is_ready=False),), "invalid-unready: "),
        ((index(is_valid=False),), "invalid-ready: "),
        ((index(is_valid=False, is_live=False),), "half-dropped: "),
        ((index(table_oid=101, table_name="u"),), "name-taken: the name belongs to an index of public.u"),
    ],
)
def test_what_is_not_right_is_a_finding_with_a_cure(there: Any, words: str) -> None:
    item = one(*there)
    assert item.status is Status.FINDING
    assert item.detail.startswith(words)
    assert item.remedy


def test_a_build_under_way_is_a_finding() -> None:
    item = one(index(is_valid=False, is_ready=False), builds=(BUILD,))
    assert item.status is Status.FINDING
    assert item.detail.startswith("building: being built by pid 42")


def test_covered_is_ok() -> None:
    item = one(index("j", oid=201))
    assert (item.status, item.detail) == (Status.OK, 'covered: "public.j" has the same definition')


def test_what_cannot_be_compared_is_unknown() -> None:
    item = one(index(), canonical={"i": None})
    assert (item.status, item.detail, item.exit_code) == (Status.UNKNOWN, "the server's reason", 1)


def test_a_missing_table_is_a_finding() -> None:
    item = one(text="CREATE INDEX i ON s.u (a)")
    assert (item.status, item.detail) == (Status.FINDING, 'table "s.u" does not exist')


def test_valid_but_not_usable_yet_is_a_finding() -> None:
    item = one(index(is_usable=False))
    assert item.status is Status.FINDING
    assert "cannot use it yet" in item.detail


def test_amcheck_that_finds_nothing_is_told() -> None:
    assert one(index(), corruption={200: None}).detail == "valid, 16 kB, 3 scans, amcheck ok"


def test_amcheck_that_finds_something_is_a_finding_with_the_rebuild() -> None:
    item = one(index(), corruption={200: "item order invariant violated"})
    assert (item.status, item.detail) == (Status.FINDING, "amcheck: item order invariant violated")
    assert item.remedy == 'REINDEX INDEX CONCURRENTLY "public"."i"'


# leftovers of anybody's


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x_ccnew", "failed REINDEX CONCURRENTLY"),
        ("x_ccnew12", "failed REINDEX CONCURRENTLY"),
        ("x_ccold", "unfinished REINDEX CONCURRENTLY"),
        ("index_16400", "pg_repack"),
        ("x", "a build failed"),
    ],
)
def test_anybodys_invalid_leftover_is_a_finding(name: str, words: str) -> None:
    only = migration(CREATE)
    snapshot = seen(index(), index(name, oid=300, is_valid=False), migrations=(only,))
    item = judged(only, snapshot=snapshot)[1]
    assert (item.name, item.status) == (f"public.{name}", Status.FINDING)
    assert words in item.detail
    assert f'DROP INDEX CONCURRENTLY "public"."{name}"' in (item.remedy or "")


@pytest.mark.parametrize("facts", [{}, {"is_valid": False, "relkind": "I"}])
def test_a_good_or_partitioned_index_is_no_leftover(facts: dict[str, Any]) -> None:
    only = migration(CREATE)
    other = index("x", definition="CREATE INDEX x ON public.t USING btree (b)", oid=300, **facts)
    assert len(judged(only, snapshot=seen(index(), other, migrations=(only,)))) == 1


def test_an_index_that_is_being_built_is_no_leftover() -> None:
    only = migration(CREATE)
    other = index("x", oid=300, is_valid=False, is_ready=False)
    snapshot = seen(index(), other, migrations=(only,), builds=(replace(BUILD, index_oid=300),))
    assert len(judged(only, snapshot=snapshot)) == 1


# the proof of a rollback


def test_gone_is_ok_when_it_must_be_gone() -> None:
    item = one(absent=True)
    assert (item.status, item.detail) == (Status.OK, "gone")


def test_a_renamed_index_of_perfctls_is_not_gone() -> None:
    item = one(index("k"), absent=True, journal=(entry(),))
    assert (item.status, item.detail) == (Status.FINDING, 'still there, renamed to "public.k"')


def test_what_perfctl_made_must_be_gone() -> None:
    item = one(index(), absent=True, journal=(entry(),))
    assert (item.status, item.detail) == (Status.FINDING, "still there")


def test_what_somebody_else_made_may_stay() -> None:
    item = one(index(), absent=True)
    assert (item.status, item.detail) == (Status.OK, "there, but not made by perfctl")


@pytest.mark.parametrize("state", ["failed", "started"])
def test_an_invalid_leftover_of_our_own_is_no_proof_of_a_rollback(state: str) -> None:
    left = index(is_valid=False)
    assert one(left, absent=True, journal=(entry(state=state),)).status is Status.FINDING


# dropped again by a later statement

DROP = migration("DROP INDEX CONCURRENTLY i;", "2_b")


def test_what_a_later_migration_drops_must_not_be_there() -> None:
    first = migration(CREATE)
    items = judged(first, DROP, snapshot=seen(index(), migrations=(first, DROP)))
    assert [(item.status, item.detail) for item in items] == [(Status.FINDING, "the migrations drop it")]


def test_what_a_later_migration_dropped_is_ok() -> None:
    first = migration(CREATE)
    items = judged(first, DROP, snapshot=seen(migrations=(first, DROP)))
    assert [(item.status, item.detail) for item in items] == [(Status.OK, "dropped")]


def test_what_is_created_again_must_be_there() -> None:
    again = migration(f"DROP INDEX CONCURRENTLY i; {CREATE}")
    assert judged(again, snapshot=seen(index(), migrations=(again,)))[0].status is Status.OK


def test_a_redefinition_in_a_later_migration_is_right() -> None:
    first = migration(CREATE)
    second = migration("DROP INDEX CONCURRENTLY i; CREATE INDEX CONCURRENTLY i ON t (b);", "2_b")
    texts = {
        **seen(migrations=(first,)).canonical,
        **seen(migrations=(second,), canonical={"i": "USING btree (b)"}).canonical,
    }
    there = index(definition="CREATE INDEX i ON public.t USING btree (b)")
    items = judged(first, second, snapshot=replace(seen(there), canonical=texts))
    assert {item.status for item in items} == {Status.OK}


# status


def counted(*migrations: Migration, snapshot: Snapshot) -> list[Item]:
    return status(migrations, wanted(migrations, snapshot), snapshot)


TWO = migration("CREATE INDEX i ON t (a); CREATE INDEX j ON t (b);")
J = index("j", oid=201, definition="CREATE INDEX j ON public.t USING btree (b)")
TEXTS = {"j": "USING btree (b)"}


def test_status_counts_what_is_there_and_what_perfctl_made() -> None:
    (item,) = counted(TWO, snapshot=seen(index(), J, migrations=(TWO,), canonical=TEXTS, journal=(entry(),)))
    assert (item.status, item.detail) == (Status.OK, "2 of 2 indexes there, 1 made by perfctl")


def test_status_of_a_part_is_something_to_do() -> None:
    (item,) = counted(TWO, snapshot=seen(index(), migrations=(TWO,), canonical=TEXTS))
    assert (item.status, item.detail) == (Status.PLANNED, "1 of 2 indexes there, 0 made by perfctl")
    assert item.remedy == "perfctl indexes apply"


def test_status_of_what_cannot_be_compared_is_unknown() -> None:
    (item,) = counted(TWO, snapshot=seen(index(), J, migrations=(TWO,), canonical={"j": None}))
    assert (item.status, item.data["states"]["public.j"]) == (Status.UNKNOWN, "unknown")


def test_status_tells_that_the_file_has_changed() -> None:
    journal = (entry(migration_sha256="other"),)
    (item,) = counted(TWO, snapshot=seen(index(), J, migrations=(TWO,), canonical=TEXTS, journal=journal))
    assert item.detail.endswith("the file has changed since it was applied")


def test_status_names_what_is_applied_without_a_file() -> None:
    items = counted(snapshot=seen(index(), journal=(entry(),)))
    assert [(item.name, item.status) for item in items] == [("1_a", Status.FINDING)]


def test_status_without_the_table_is_something_to_do() -> None:
    (item,) = counted(migration(CREATE), snapshot=seen(tables=(table("u"),)))
    assert item.status is Status.PLANNED


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 kB"), (16384, "16 kB"), (5 << 20, "5.0 MB"), (1 << 42, "4.0 TB")],
)
def test_bytes_are_told_in_the_largest_unit(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "40 ms"), (59.9, "59.9 s"), (600, "10 min"), (7200, "2.0 h")])
def test_seconds_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text
