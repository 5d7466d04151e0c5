"""Each rule on plans made for it: it holds, it fails with words, node and cure, or it cannot tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfctl.explain.model import GENERIC, Plan
from perfctl.explain.rule import BadRule, Evidence, State, Verdict
from perfctl.explain.rules import RULES, read
from tests.unit.fix_explain import bitmap_scan, index, index_scan, node, relation, seen, seq_scan, table


def judged(key: str, value: Any, evidence: Evidence) -> Verdict:
    return read(key, value).judge(evidence)


def assert_holds(key: str, value: Any, evidence: Evidence, saw: str = "") -> None:
    found = judged(key, value, evidence)
    assert (found.state, found.saw) == (State.HOLDS, saw)


def assert_fails(
    key: str, value: Any, evidence: Evidence, saw: str, part: str | None = None, cure: str | None = None
) -> None:
    found = judged(key, value, evidence)
    assert (found.state, found.saw) == (State.FAILS, saw)
    assert (str(found.part) if found.part else None, found.cure) == (part, cure)


def assert_unsure(key: str, value: Any, evidence: Evidence, why: str) -> None:
    found = judged(key, value, evidence)
    assert (found.state, found.saw) == (State.CANNOT_TELL, why)


SMALL, EMPTY = table("orders", 3), table("orders", 0)
IDX = index("idx", "orders", "user_id", "created_at")
PRUNED = node("Append", removed=3)
PRUNES = "3 partitions pruned as the plan is started: values decide"
NO_RUN = "it takes a run: say --analyze"
FIT = "does the index fit what is asked for, (k = 1), with the type that is bound?"


# --- reading


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("uses_indx", "i", 'unknown rule "uses_indx"; did you mean "uses_index"?'),
        ("zzz", 1, f'unknown rule "zzz"; known: {", ".join(RULES)}'),
        ("uses_index", "", "uses_index: expected an index"),
        ("uses_index", 5, "uses_index: expected an index's name, or {leading: column}"),
        ("uses_index", {"table": "t"}, "uses_index: expected name or leading"),
        ("uses_index", {"lead": "k"}, 'uses_index: unknown key "lead"; known: leading, name, table'),
        ("uses_index", {"leading": 5}, "uses_index: expected text for leading"),
        ("no_seq_scan", False, "no_seq_scan: expected a table, {over_pages: N}, or true"),
        ("no_seq_scan", {"over_pages": -1}, "no_seq_scan: expected a number"),
        ("no_seq_scan", {}, "no_seq_scan: expected a table, {over_pages: N}, or true"),
        ("forbid", "Hash Jion", "forbid: there is no node 'Hash Jion'; did you mean 'Hash Join'?"),
        ("forbid", [], "forbid: expected a node, such as Hash Join"),
        ("require", 5, "require: there is no node 5"),
        ("join_method", "loop", "join_method: expected hash, merge, nested loop, or a list of them"),
        ("join_method", [], "join_method: expected hash, merge, nested loop, or a list of them"),
        ("rows", "5", "rows: expected a range such as 1..100, ..100 or 5.."),
        ("rows", "..", "rows: expected a range such as 1..100, ..100 or 5.."),
        ("rows", "9..1", "rows: expected a range such as 1..100, ..100 or 5.."),
        ("rows", "nan..5", "rows: expected a range such as 1..100, ..100 or 5.."),
        ("rows", "-5..5", "rows: expected a range such as 1..100, ..100 or 5.."),
        ("rows", True, "rows: expected a range such as 1..100, ..100 or 5.."),
        ("q_error", "ten", "q_error: expected a number"),
        ("q_error", 0.5, "q_error: expected a factor of at least 1"),
        ("cost", float("nan"), "cost: expected a number"),
        ("cost", True, "cost: expected a number"),
        ("cost", "1e", "cost: expected a number"),
        ("cost", "1e999", "cost: expected a number"),
        ("buffers", float("inf"), "buffers: expected a number"),
        ("temp", None, "temp: expected a number"),
        ("heap_fetches", -1, "heap_fetches: expected a number"),
        ("time", 200, "time: expected a duration such as 200ms or 2s"),
        ("time", "200", "time: expected a duration such as 200ms or 2s"),
        ("time", "-1s", "time: expected a duration such as 200ms or 2s"),
        ("planning_time", "infs", "planning_time: expected a duration such as 200ms or 2s"),
        ("partitions_scanned", "1", "partitions_scanned: expected a number, or {table: name, most: N}"),
        ("partitions_scanned", {"table": "t"}, "partitions_scanned: expected most: N"),
        ("sort", True, "sort: expected absent"),
        ("index_only", False, "index_only: expected true, or a table"),
        ("generic_equals_custom", "yes", "generic_equals_custom: expected true"),
    ],
)  # fmt: skip
def test_a_value_that_means_nothing_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(BadRule) as bad:
        read(key, value)
    assert str(bad.value) == message


@pytest.mark.parametrize(("text", "ms"), [("20ms", 20.0), ("1.5s", 1500.0), ("2 min", 120_000.0), ("1m", 60_000.0)])
def test_durations_have_a_unit(text: str, ms: float) -> None:
    assert read("time", text) == type(read("time", "1s"))(ms)  # type: ignore[call-arg]


# --- uses_index


@pytest.mark.parametrize(
    "value",
    ["idx", "id*", "public.idx", {"name": "idx", "table": "orders"}, {"leading": "user_id"},
     {"leading": "user_id", "table": "public.orders"}],
)  # fmt: skip
def test_uses_index_takes_a_name_a_glob_or_a_leading_column(value: object) -> None:
    assert_holds("uses_index", value, seen(index_scan("idx"), IDX), "Index Scan using idx on public.orders")


def test_uses_index_sees_the_index_below_a_bitmap_heap_scan() -> None:
    assert_holds("uses_index", "idx", seen(bitmap_scan("idx"), IDX), "Bitmap Index Scan using idx")


def test_uses_index_says_what_is_read_instead() -> None:
    evidence = seen(node("Limit", seq_scan()), IDX)
    words = "Seq Scan on public.orders"
    assert_fails("uses_index", "idx", evidence, f'index "idx" is not used; instead: {words}', words, FIT)
    assert_fails(
        "uses_index", {"leading": "user_id", "table": "orders"}, evidence,
        f"index that leads with user_id on orders is not used; instead: {words}", words, FIT,
    )  # fmt: skip


def test_uses_index_wants_the_leading_column_not_another_one() -> None:
    assert_fails(
        "uses_index", {"leading": "created_at"}, seen(index_scan("idx"), IDX),
        "there is no index that leads with created_at", "Index Scan using idx on public.orders",
        "CREATE INDEX CONCURRENTLY ON … (created_at)",
    )  # fmt: skip
    named = {"leading": "created_at", "table": "public.orders"}
    cure = "CREATE INDEX CONCURRENTLY ON public.orders (created_at)"
    assert judged("uses_index", named, seen(index_scan("idx"), IDX)).cure == cure


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("(a + b)", "(a + b)"), ("a + b", "(a + b)"), ("((a  + b))", "(a + b)"), ('"User"', '"User"'),
        ("User", '"User"'), ('"k"', "k"), ("(k)", "k"), ("lower(k)", "lower(k)"), ("(a) || (b)", "((a) || (b))"),
        ("(k ->> ')')", "(k ->> ')'::text)"), ('a"b', '"a""b"'),
    ],
)  # fmt: skip
def test_uses_index_takes_a_leading_expression_as_people_write_it(said: str, key: str) -> None:
    found = judged("uses_index", {"leading": said}, seen(index_scan("i"), index("i", "orders", key)))
    assert (found.state is State.HOLDS) is ("::text" not in key)


def test_uses_index_tells_an_absent_and_a_broken_index_from_an_unused_one() -> None:
    words = "Seq Scan on public.orders"
    assert_fails("uses_index", "x", seen(seq_scan(), IDX), 'there is no index "x"', words, "perfctl indexes apply")
    broken = index("idx", is_usable=False)
    assert_fails(
        "uses_index", "idx", seen(seq_scan(), broken), 'index "idx" is not valid', words, "perfctl indexes apply"
    )


def test_uses_index_tells_schemas_apart() -> None:
    tables = (table("a.orders"), table("b.orders"), index("idx", "a.orders"), index("idx", "b.orders"))
    joined = node("Nested Loop", seq_scan("a.orders"), index_scan("idx", "b.orders", "orders_1"))
    assert_holds("uses_index", {"name": "idx", "table": "b.orders"}, seen(joined, *tables),
                 "Index Scan using idx on b.orders orders_1")  # fmt: skip
    assert_fails(
        "uses_index", {"name": "idx", "table": "a.orders"}, seen(joined, *tables),
        'index "idx" on a.orders is not used; instead: Seq Scan on a.orders', "Seq Scan on a.orders", FIT,
    )  # fmt: skip


def test_uses_index_takes_the_index_of_the_partitioned_table_for_that_of_a_partition() -> None:
    facts = (table("ev_1", root="ev"), index("ev_1_k_idx", "ev_1", part_of="ev_k"))
    scan = index_scan("ev_1_k_idx", "ev_1", "ev")
    assert_holds("uses_index", "ev_k", seen(scan, *facts), "Index Scan using ev_1_k_idx on public.ev_1 ev")
    assert_holds("uses_index", {"leading": "k", "table": "ev"}, seen(scan, *facts), str(scan))


@pytest.mark.parametrize("value", ["ev_k", "ev_*", {"leading": "k"}, {"leading": "k", "table": "ev"}])
def test_uses_index_wants_every_partition_that_is_read_to_be_read_by_it(value: object) -> None:
    facts = [table(f"ev_{n}", root="ev") for n in (1, 2, 3)]
    own = [index(f"ev_{n}_k_idx", f"ev_{n}", part_of="ev_k") for n in (1, 2, 3)]
    some = node("Append", index_scan("ev_1_k_idx", "ev_1"), seq_scan("ev_2"), index_scan("ev_3_k_idx", "ev_3"))
    found = judged("uses_index", value, seen(some, *facts, *own))
    assert (found.state, str(found.part)) == (State.FAILS, "Seq Scan on public.ev_2")
    assert found.saw.endswith("is not used for 1 partition; instead: Seq Scan on public.ev_2")
    each = node("Append", *(index_scan(i.name, i.table) for i in own))
    assert judged("uses_index", value, seen(each, *facts, *own)).state is State.HOLDS
    empty = [facts[0], table("ev_2", 0, root="ev"), facts[2]]
    assert judged("uses_index", value, seen(some, *empty, *own, served=each)).state is State.HOLDS
    assert judged("uses_index", value, seen(some, *empty, *own, served=some)).state is State.FAILS


def test_uses_index_may_name_the_index_of_one_partition() -> None:
    facts = (table("ev_1", root="ev"), table("ev_2", root="ev"), index("ev_1_k_idx", "ev_1", part_of="ev_k"))
    some = node("Append", index_scan("ev_1_k_idx", "ev_1"), seq_scan("ev_2"))
    assert judged("uses_index", "ev_1_k_idx", seen(some, *facts)).state is State.HOLDS


def test_uses_index_of_many_small_partitions_is_judged_as_of_a_large_table() -> None:
    facts = [table(f"ev_{n}", 8, root="ev") for n in range(200)]
    own = [index(f"ev_{n}_k_idx", f"ev_{n}", part_of="ev_k") for n in range(200)]
    whole = node("Append", *(seq_scan(f"ev_{n}") for n in range(200)))
    assert judged("uses_index", "ev_k", seen(whole, *facts, *own)).state is State.FAILS


def test_an_index_of_a_small_table_that_is_read_whole_does_not_serve() -> None:
    def with_served(served: Any, *facts: Any) -> Verdict:
        return judged("uses_index", "idx", seen(seq_scan(), SMALL, *(facts or [IDX]), served=served))

    whole = index_scan("idx", conditions={})
    filtered = index_scan("idx", conditions={"Filter": "(k = 1)"})
    for served in (whole, filtered, node("Limit", filtered), node("Limit", node("Sort", whole))):
        words = 'too small here to choose index "idx"; Index Scan using idx on public.orders would read it whole'
        assert with_served(served) == Verdict(State.CANNOT_TELL, words)
    assert with_served(node("Limit", whole)).state is State.HOLDS
    partial = index("idx", definition="CREATE INDEX idx ON orders (k) WHERE (k = 1)")
    assert with_served(whole, partial).state is State.HOLDS


def test_uses_index_asks_of_a_small_table_whether_the_index_can_serve() -> None:
    assert_holds(
        "uses_index", "idx", seen(seq_scan(), SMALL, IDX, served=bitmap_scan("idx")),
        "too small here to choose it; an index can serve it: Bitmap Index Scan using idx",
    )  # fmt: skip
    assert_fails(
        "uses_index", "idx", seen(seq_scan(), SMALL, IDX, served=seq_scan()),
        'no scan can use index "idx", also without sequential scans', "Seq Scan on public.orders", FIT,
    )  # fmt: skip
    assert_unsure(
        "uses_index", "idx", seen(seq_scan(), SMALL, IDX, index("pk"), served=index_scan("pk")),
        'too small here to choose index "idx"; another index serves it: Index Scan using pk on public.orders',
    )  # fmt: skip
    assert_unsure(
        "uses_index",
        "idx",
        seen(seq_scan(), SMALL, IDX),
        'too small here to choose index "idx", and no other plan came',
    )


def test_uses_index_cannot_tell_where_nothing_is_read() -> None:
    assert_unsure("uses_index", "idx", seen(node("Result"), IDX), "the plan reads no table")
    assert_unsure("uses_index", "idx", seen(PRUNED), PRUNES)
    ev = (table("ev_1", root="ev"), table("orders"), index("ev_1_k_idx", "ev_1", part_of="ev_k"))
    assert_unsure("uses_index", "ev_k", seen(node("Hash Join", PRUNED, seq_scan()), *ev), PRUNES)


# --- no_seq_scan


def test_no_seq_scan_finds_the_table_that_is_read_whole() -> None:
    evidence = seen(node("Hash Join", index_scan("idx"), seq_scan("users")), table("orders"), table("users"))
    finding = ("public.users of 5,000 pages is read whole", "Seq Scan on public.users", "an index for (k = 1)")
    for value in (True, "users", "public.users", "*", {"over_pages": 100}, {"table": "users", "over_pages": 4999}):
        assert_fails("no_seq_scan", value, evidence, *finding)
    for value in ("orders", "public.ord*", {"over_pages": 5000}, {"table": "orders", "over_pages": 1}):
        assert_holds("no_seq_scan", value, evidence)


def test_no_seq_scan_does_not_hold_for_a_table_that_is_nowhere() -> None:
    evidence = seen(index_scan("idx"), table("orders"), table("users"), table("ev_1", root="log.ev"))
    for name in ("ordres", "other.orders", "usr*"):
        assert_unsure("no_seq_scan", name, evidence, f'no such table in the plan: "{name}"')
    assert_unsure("no_seq_scan", {"table": "x", "over_pages": 5}, evidence, 'no such table in the plan: "x"')
    for known in ("orders", "users", "log.ev", True, {"over_pages": 5}):
        assert_holds("no_seq_scan", known, evidence)


def test_no_seq_scan_without_a_condition_has_another_cure() -> None:
    assert_fails(
        "no_seq_scan", True, seen(seq_scan(conditions={})), "public.orders of 5,000 pages is read whole",
        "Seq Scan on public.orders", "it has no condition on the table: read less, or allow it",
    )  # fmt: skip


def test_no_seq_scan_of_a_partitioned_table_meets_its_partitions() -> None:
    evidence = seen(node("Append", seq_scan("ev_1"), seq_scan("ev_2")), table("ev_1", root="ev"), table("ev_2"))
    assert_fails(
        "no_seq_scan", "public.ev", evidence, "public.ev_1 of 5,000 pages is read whole", "Seq Scan on public.ev_1",
        "an index for (k = 1)",
    )  # fmt: skip
    assert_unsure("no_seq_scan", "ev", seen(PRUNED), PRUNES)


def parts(count: int, pages: int, **keys: Any) -> Evidence:
    """So many partitions of ev, each of some pages and read whole."""
    names = [f"ev_{number}" for number in range(count)]
    facts = [table(name, pages, root="ev") for name in names]
    return seen(node("Append", *(seq_scan(name) for name in names)), *facts, **keys)


def test_many_small_partitions_are_no_small_table() -> None:
    saw = "200 partitions of public.ev, 1,600 pages, are read whole"
    for value in (True, "ev", {"over_pages": 1599}):
        assert_fails("no_seq_scan", value, parts(200, 8), saw, "Seq Scan on public.ev_0", "an index for (k = 1)")
    assert_holds("no_seq_scan", {"over_pages": 1600}, parts(200, 8))
    assert judged("no_seq_scan", True, parts(3, 3)).state is State.CANNOT_TELL
    assert judged("index_only", True, parts(200, 8)).state is State.FAILS


def test_an_empty_partition_beside_large_ones_is_small() -> None:
    facts = (table("ev_1", root="ev"), table("ev_2", 0, root="ev"))
    plain = node("Append", index_scan("i1", "ev_1"), seq_scan("ev_2"))
    served = node("Append", index_scan("i1", "ev_1"), index_scan("i2", "ev_2"))
    assert judged("no_seq_scan", True, seen(plain, *facts, served=served)).state is State.HOLDS


def test_no_seq_scan_asks_of_a_small_table_whether_an_index_can_serve() -> None:
    can = "too small here to choose an index; one can serve it"
    assert_holds("no_seq_scan", True, seen(seq_scan(), EMPTY, served=bitmap_scan("idx")), can)
    assert_fails(
        "no_seq_scan", True, seen(seq_scan(), EMPTY, served=seq_scan()), "no index can serve public.orders",
        "Seq Scan on public.orders", "an index for (k = 1)",
    )  # fmt: skip
    assert_unsure(
        "no_seq_scan", True, seen(seq_scan(), EMPTY),
        "public.orders is too small here to choose an index, and no other plan came",
    )  # fmt: skip


def test_an_index_that_is_read_whole_serves_no_condition() -> None:
    whole = index_scan("pk", conditions={"Filter": "(k = 1)"})
    assert_unsure(
        "no_seq_scan", True, seen(seq_scan(), EMPTY, served=whole),
        "public.orders is too small here; Index Scan using pk on public.orders would read it whole",
    )  # fmt: skip
    ordered = index_scan("near", conditions={"Filter": "(k = 1)", "Order By": "(p <-> '(0,0)'::point)"})
    assert judged("no_seq_scan", True, seen(seq_scan(), EMPTY, served=ordered)).state is State.HOLDS


def test_no_seq_scan_tells_both_sides_of_a_self_join_apart() -> None:
    plain = node("Nested Loop", seq_scan(alias="a"), seq_scan(alias="b"))
    served = node("Nested Loop", index_scan("idx", alias="a"), seq_scan(alias="b"))
    assert_fails(
        "no_seq_scan", True, seen(plain, EMPTY, served=served), "no index can serve public.orders",
        "Seq Scan on public.orders b", "an index for (k = 1)",
    )  # fmt: skip


def test_a_large_table_is_judged_beside_a_small_one() -> None:
    plain = node("Hash Join", seq_scan("kinds"), seq_scan())
    served = node("Hash Join", index_scan("pk", "kinds"), seq_scan())
    found = judged("no_seq_scan", True, seen(plain, table("kinds", 1), table("orders"), served=served))
    assert (found.state, found.saw) == (State.FAILS, "public.orders of 5,000 pages is read whole")


# --- nodes and joins


def test_forbid_and_require_look_for_kinds_of_node() -> None:
    evidence = seen(node("Nested Loop", seq_scan(), node("Memoize", index_scan("idx", alias="b"))))
    assert_fails("forbid", ["Sort", "nested loop"], evidence, "Nested Loop is in the plan", "Nested Loop")
    assert_holds("forbid", "Merge Join", evidence)
    assert_holds("require", ["memoize", "Nested Loop"], evidence)
    assert_fails("require", ["Memoize", "Gather"], evidence, "there is no Gather", "Nested Loop")


def test_every_join_has_to_be_of_the_method() -> None:
    evidence = seen(node("Hash Join", node("Merge Join", seq_scan(), seq_scan(alias="b")), seq_scan(alias="c")))
    assert_fails("join_method", "hash", evidence, "Merge Join, not Hash Join", "Merge Join")
    assert_fails(
        "join_method", ["nested loop", "merge"], evidence, "Hash Join, not Nested Loop or Merge Join", "Hash Join"
    )
    assert_holds("join_method", ["Hash", "merge"], evidence)
    assert_unsure("join_method", "hash", seen(seq_scan()), "the plan has no join")


@pytest.mark.parametrize(("key", "value"), [("forbid", "Seq Scan"), ("require", "Memoize"), ("join_method", "hash")])
def test_small_tables_are_joined_in_any_way(key: str, value: str) -> None:
    evidence = seen(node("Nested Loop", seq_scan(), seq_scan("users")), SMALL, table("users", 1))
    assert_unsure(key, value, evidence, "too small here to tell: public.orders (3 pages), public.users (1 page)")


def test_a_lookup_table_of_a_page_does_not_keep_a_large_query_from_being_judged() -> None:
    evidence = seen(node("Nested Loop", seq_scan(), seq_scan("kinds")), table("orders"), table("kinds", 1))
    assert judged("forbid", "Nested Loop", evidence).state is State.FAILS
    assert judged("cost", 5, evidence).state is State.FAILS


def test_an_empty_table_beside_a_large_one_makes_figures_doubtful() -> None:
    evidence = seen(node("Nested Loop", seq_scan(), seq_scan("users")), table("orders"), table("users", 0))
    assert_unsure("cost", 5, evidence, "too small here to tell: public.users (0 pages)")


def test_small_partitions_are_taken_together() -> None:
    parts = [table(f"ev_{n}", 6 if n else 0, root="ev") for n in range(3)]
    evidence = seen(node("Append", *(seq_scan(each.name) for each in parts)), *parts)
    assert_fails("cost", 5, evidence, "cost 100, more than 5", "Seq Scan on public.ev_0")


def test_require_cannot_tell_what_pruned_partitions_would_hold() -> None:
    assert_unsure("require", "Index Scan", seen(PRUNED), PRUNES)


def test_sort_wants_the_order_from_an_index() -> None:
    sorted_ = node("Sort", seq_scan(), conditions={"Sort Key": "orders.at DESC"})
    assert_holds("sort", "absent", seen(index_scan("idx")))
    assert_fails(
        "sort", "absent", seen(sorted_), "sorts by orders.at DESC", "Sort", "an index that ends in orders.at DESC"
    )
    partly = node("Incremental Sort", index_scan("idx"), conditions={"Sort Key": "a, b", "Presorted Key": "a"})
    assert_fails("sort", "absent", seen(partly), "sorts by a, b", "Incremental Sort", "an index that ends in a, b")


def test_sort_of_a_small_table_proves_nothing() -> None:
    sorted_ = node("Sort", bitmap_scan("idx"), conditions={"Sort Key": "at"})
    assert_unsure(
        "sort", "absent", seen(sorted_, EMPTY, served=sorted_), "too small here to tell: public.orders (0 pages)"
    )
    assert_holds("sort", "absent", seen(sorted_, EMPTY, served=index_scan("idx")),
                 "too small here to choose it; an index can give the order")  # fmt: skip


def test_index_only_means_that_tables_are_not_looked_into() -> None:
    only, other = index_scan("idx", kind="Index Only Scan"), index_scan("pk", "users")
    cure = "INCLUDE the columns that it gives, and VACUUM the table"
    joined = seen(node("Nested Loop", only, other), table("orders"), table("users"))
    assert_holds("index_only", "orders", joined)
    for value in (True, "public.users"):
        assert_fails("index_only", value, joined, "public.users is read by Index Scan", str(other), cure)
    assert_fails(
        "index_only", True, seen(bitmap_scan("idx")), "public.orders is read by Bitmap Heap Scan",
        "Bitmap Heap Scan on public.orders", cure,
    )  # fmt: skip
    assert_unsure("index_only", "other", joined, "no such table is in the plan")
    assert_unsure("index_only", True, seen(PRUNED), PRUNES)


def test_index_only_asks_of_a_small_table_whether_an_index_can_serve() -> None:
    only = index_scan("idx", kind="Index Only Scan")
    unsure = "public.orders is too small here for its index alone to be chosen"
    assert_holds("index_only", True, seen(seq_scan(), EMPTY, served=only),
                 "too small here to choose it; an index alone can serve it")  # fmt: skip
    assert_unsure("index_only", True, seen(seq_scan(), EMPTY, served=bitmap_scan("idx")), unsure)
    assert_unsure("index_only", True, seen(seq_scan(), EMPTY), unsure)


# --- figures


def test_rows_of_a_write_are_those_that_it_is_given() -> None:
    target = relation("orders")
    first = node("Result", relationship="InitPlan", rows=1)
    update = node("Update", first, seq_scan(rows=5000, relationship="Outer"), rows=0, target=target)
    assert_holds("rows", "1..5000", seen(update), "5,000 rows expected")
    assert_fails("rows", "..100", seen(update), "5,000 rows expected, not 0..100", "Seq Scan on public.orders",
                 "ANALYZE the tables if the estimate is wrong")  # fmt: skip
    assert_holds("rows", 1, seen(node("Insert", node("Result", rows=1), rows=0, target=target)), "1 row expected")


def test_rows_are_those_of_the_run_or_else_the_estimate() -> None:
    estimate = seen(seq_scan(rows=500))
    assert_holds("rows", "1..500", estimate, "500 rows expected")
    assert_holds("rows", 500, estimate, "500 rows expected")
    words, cure = "Seq Scan on public.orders", "ANALYZE the tables if the estimate is wrong"
    assert_fails("rows", "..100", estimate, "500 rows expected, not 0..100", words, cure)
    assert_fails("rows", "1000..", estimate, "500 rows expected, not 1,000..", words, cure)
    run = seen(seq_scan(rows=500), ran=seq_scan(rows=500, actual_rows=3.0, loops=1))
    assert_holds("rows", "1..5", run, "3 rows")
    assert_fails("rows", "5..", run, "3 rows, not 5..", words)
    assert_unsure("rows", "5..", seen(seq_scan(), SMALL), "too small here to tell: public.orders (3 pages)")


def test_cost_is_the_whole_statements() -> None:
    evidence = seen(node("Sort", seq_scan(cost=80.5), index_scan("i", cost=20), cost=101.25))
    assert_holds("cost", 101.25, evidence, "cost 101")
    assert_fails("cost", 100, evidence, "cost 101, more than 100", "Seq Scan on public.orders")
    assert_unsure("cost", 1, seen(seq_scan(), EMPTY), "too small here to tell: public.orders (0 pages)")


def ran(root: Any, **keys: Any) -> Evidence:
    return seen(root, ran=Plan(root, **keys))


@pytest.mark.parametrize(
    ("key", "value"),
    [("buffers", 1), ("temp", 0), ("q_error", 2), ("heap_fetches", 0), ("time", "1ms")],
)  # fmt: skip
def test_what_takes_a_run_says_why_there_was_none(key: str, value: object) -> None:
    assert read(key, value).takes_a_run
    assert_unsure(key, value, seen(seq_scan()), NO_RUN)
    assert_unsure(key, value, seen(seq_scan(), why_not_run="it writes"), "not run: it writes")
    run = seq_scan(blocks=9, temp_blocks=9, actual_rows=900.0, loops=1, heap_fetches=9)
    small = seen(seq_scan(), SMALL, ran=Plan(run, execution_ms=9.0))
    assert_unsure(key, value, small, "too small here to tell: public.orders (3 pages)")


def test_buffers_names_the_scan_that_touches_most() -> None:
    run = ran(node("Hash Join", seq_scan(blocks=900), index_scan("i", blocks=100, alias="b"), blocks=1000))
    assert_holds("buffers", 1000, run, "1,000 blocks")
    assert_fails("buffers", 999, run, "1,000 blocks, more than 999", "Seq Scan on public.orders")
    assert_unsure("buffers", 1, ran(seq_scan()), "the server counted no blocks")


def test_temp_names_the_node_that_spills_not_the_one_above_it() -> None:
    run = ran(node("Sort", node("Hash", seq_scan(temp_blocks=0), temp_blocks=70), temp_blocks=100))
    assert_holds("temp", 100, run, "100 temporary blocks")
    assert_holds("temp", 0, ran(seq_scan()), "0 temporary blocks")
    cure = "more work_mem, or fewer rows to sort and hash"
    assert_fails("temp", 0, run, "100 temporary blocks, more than 0", "Hash", cure)


def test_time_is_that_of_the_run() -> None:
    run = ran(node("Limit", seq_scan(blocks=5), blocks=5), execution_ms=250.0)
    assert_holds("time", "1s", run, "250 ms")
    assert_fails("time", "200ms", run, "250 ms, more than 200 ms", "Seq Scan on public.orders")
    assert_unsure("time", "1s", ran(seq_scan()), "the server gave no execution time")


def test_a_run_that_its_time_out_ended_was_too_slow_for_less() -> None:
    ended = replace(seen(seq_scan()), why_not_run="canceling statement due to statement timeout", ended_after_ms=2000.0)
    assert_fails("time", "500ms", ended, "did not end in 2,000 ms, more than 500 ms")
    assert_unsure("time", "1min", ended, "not run: canceling statement due to statement timeout")


def test_planning_time_needs_no_run() -> None:
    assert_holds("planning_time", "20ms", seen(seq_scan(), planning_ms=1.25), "planned in 1.25 ms")
    assert_fails(
        "planning_time", "1ms", seen(seq_scan(), planning_ms=1.25), "planned in 1.25 ms, more than 1 ms",
        "Seq Scan on public.orders", "fewer partitions or joins, or a prepared statement",
    )  # fmt: skip
    assert_unsure("planning_time", "1ms", seen(seq_scan()), "the server gave no planning time")


def test_heap_fetches_are_those_of_all_index_only_scans() -> None:
    scans = [index_scan("i", alias=a, kind="Index Only Scan", heap_fetches=n) for a, n in (("a", 30), ("b", 80))]
    run = ran(node("Nested Loop", *scans))
    assert_holds("heap_fetches", 110, run, "110 heap fetches")
    assert_fails("heap_fetches", 100, run, "110 heap fetches, more than 100", str(scans[1]), "VACUUM public.orders")
    assert_unsure("heap_fetches", 1, ran(seq_scan()), "the plan has no index-only scan")


def test_q_error_names_the_node_that_is_misjudged_most() -> None:
    run = ran(node("Hash Join", seq_scan(rows=10, actual_rows=1000.0, loops=1), rows=20, actual_rows=40.0, loops=1))
    assert_holds("q_error", 100, run, "estimates within 100 times")
    assert_fails(
        "q_error", 50, run, "10 rows expected, 1,000 came: off 100 times", "Seq Scan on public.orders",
        "ANALYZE public.orders, or CREATE STATISTICS on what its condition joins",
    )  # fmt: skip
    assert_unsure("q_error", 2, ran(seq_scan(actual_rows=0.0, loops=0)), "no node was executed to its end")


def test_q_error_does_not_believe_what_a_brin_index_reports() -> None:
    brin = node("Bitmap Index Scan", on="orders", index="b", rows=20, actual_rows=12800.0, loops=1)
    run = node("Bitmap Heap Scan", brin, on="orders", rows=20, actual_rows=20.0, loops=1)
    evidence = seen(run, table("orders"), index("b", method="brin"), ran=run)
    assert_holds("q_error", 2, evidence, "estimates within 1 times")


# --- partitions, generic plans


def test_partitions_scanned_counts_each_partition_once() -> None:
    facts = [table(f"ev_{n}", root="ev") for n in (1, 2, 3)]
    three = node("Append", bitmap_scan("i1", "ev_1"), bitmap_scan("i2", "ev_2"), seq_scan("ev_3"), seq_scan("ev_3"))
    assert_holds("partitions_scanned", 3, seen(three, *facts), "3 partitions")
    cure = "the condition has to be on the partition key, with its type"
    for value in (2, {"table": "public.ev", "most": 2}):
        assert_fails("partitions_scanned", value, seen(three, *facts), "3 partitions of public.ev, more than 2",
                     "Bitmap Heap Scan on public.ev_1", cure)  # fmt: skip
    assert_holds("partitions_scanned", 1, seen(seq_scan("ev_1", "ev"), *facts), "1 partition")
    assert_unsure(
        "partitions_scanned", {"table": "x", "most": 1}, seen(three, *facts), "no partition of it is in the plan"
    )
    assert_unsure("partitions_scanned", 1, seen(seq_scan()), "no partition of it is in the plan")


def test_partitions_scanned_leaves_out_what_was_never_executed() -> None:
    facts = [table(f"ev_{n}", root="ev") for n in (1, 2)]
    run = node("Append", seq_scan("ev_1", loops=0, actual_rows=0.0), seq_scan("ev_2", loops=1, actual_rows=1.0))
    assert_holds("partitions_scanned", 1, seen(run, *facts, ran=run), "1 partition")


def test_partitions_that_were_all_pruned_are_none_for_values_and_unknown_for_any() -> None:
    assert_holds("partitions_scanned", 1, seen(PRUNED), "0 partitions")
    assert_unsure("partitions_scanned", 1, seen(PRUNED, angle=GENERIC), PRUNES)


def test_the_generic_plan_has_to_read_as_the_custom_one() -> None:
    same = seen(index_scan("idx", rows=5), generic=node("Limit", index_scan("idx", rows=900)))
    assert_holds("generic_equals_custom", True, same)
    assert_fails(
        "generic_equals_custom", True, seen(index_scan("idx"), generic=node("Limit", seq_scan())),
        "the generic plan reads otherwise: Seq Scan on public.orders", "Seq Scan on public.orders",
        "plan_cache_mode = force_custom_plan for the role, or no prepared statement here",
    )  # fmt: skip
    assert_unsure("generic_equals_custom", True, seen(seq_scan()), "there is no generic plan of it")
    assert_unsure("generic_equals_custom", True, seen(seq_scan(), angle=GENERIC), "there are no values to plan it for")
    small = seen(index_scan("idx"), EMPTY, generic=seq_scan())
    assert_unsure("generic_equals_custom", True, small, "too small here to tell: public.orders (0 pages)")


def test_both_sides_of_a_self_join_are_compared_each_with_itself() -> None:
    mine = node("Nested Loop", index_scan("i", alias="a"), index_scan("j", alias="b"))
    other = node("Nested Loop", index_scan("j", alias="a"), index_scan("i", alias="b"))
    found = judged("generic_equals_custom", True, seen(mine, generic=other))
    assert (found.state, str(found.part)) == (State.FAILS, "Index Scan using j on public.orders a")


def test_how_partitions_are_read_is_compared_and_not_how_many() -> None:
    facts = [table(f"ev_{n}", root="ev") for n in (1, 2)]
    facts_of_indexes = [index(f"ev_{n}_k_idx", f"ev_{n}", part_of="ev_k") for n in (1, 2)]
    one = index_scan("ev_1_k_idx", "ev_1", "ev")
    both = node("Append", index_scan("ev_1_k_idx", "ev_1"), index_scan("ev_2_k_idx", "ev_2"))
    assert_holds("generic_equals_custom", True, seen(one, *facts, *facts_of_indexes, generic=both))
    whole = node("Append", seq_scan("ev_1"), seq_scan("ev_2"))
    found = judged("generic_equals_custom", True, seen(one, *facts, *facts_of_indexes, generic=whole))
    assert found.state is State.FAILS
    assert_unsure(
        "generic_equals_custom", True, seen(one, *facts, *facts_of_indexes, generic=PRUNED),
        "which partitions are read is decided as the plan is started",
    )  # fmt: skip


def test_every_rule_has_a_file_named_as_its_key() -> None:
    assert {rule.__module__.rsplit(".", 1)[1]: key for key, rule in RULES.items()} == {key: key for key in RULES}
