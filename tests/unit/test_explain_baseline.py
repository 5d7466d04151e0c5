"""What is another than the accepted plan, what gates and what is only told, and why it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import yaml

from perfctl.errors import UsageError
from perfctl.explain import baseline_file
from perfctl.explain.baseline import Baseline, Change, Now, compare, keep_blocks, take
from perfctl.explain.model import Access, Catalogue, IndexFacts, Node, Plan, Relation, TableFacts
from perfctl.explain.rule import Evidence, State
from perfctl.hotqueries.model import HotQuery, Parameter, ValueSet

T = Relation("public", "t")
QUERY = HotQuery(
    "q",
    "SELECT FROM t WHERE a = $1",
    "q.sql",
    2,
    parameters=(Parameter("a", "int"),),
    sets=(ValueSet("default", {"a": "1"}),),
)
TABLE = TableFacts(100, "public", "t", "r", pages=1000, rows=50_000.0, root_schema=None, root_name=None, partitions=0)
BY_A = IndexFacts("public", "t", "by_a", "btree", ["a"], True, "CREATE INDEX by_a ON t (a)", None)
BY_B = replace(BY_A, name="by_b", definition="CREATE INDEX by_b ON t (a, b)")
STATISTICS = {100: "0123456789ab"}


def scan(index: str | None = "by_a", *, rows: float = 500, cost: float = 100.0, **facts: Any) -> Node:
    """A scan of t, by an index or whole."""
    kind = "Index Scan" if index else "Seq Scan"
    conditions = (("Index Cond" if index else "Filter", "(t.a = '1'::integer)"),)
    return Node(kind, rows, cost, 0.0, 8, T, alias="t", index=index, conditions=conditions, **facts)


def seen(
    node: Node,
    *,
    indexes: Sequence[IndexFacts] = (BY_A,),
    table: TableFacts = TABLE,
    settings: Mapping[str, str] | None = None,
    ran: Node | None = None,
) -> Evidence:
    """What was seen of the query."""
    facts = Catalogue({T: table}, tuple(indexes))
    return Evidence("default", Plan(node, settings or {}), facts, ran=Plan(ran) if ran else None)


def accepted(evidence: Evidence | None = None, query: HotQuery = QUERY) -> Baseline:
    """The baseline that the evidence makes."""
    return take(query, [evidence or seen(scan())], STATISTICS, server="18.6", on="2026-01-01", reason="right")


def compared(
    now: Evidence,
    then: Baseline | None = None,
    *,
    query: HotQuery = QUERY,
    near: Sequence[tuple[Access, ...]] = (),
    under: tuple[Access, ...] | None = None,
    server: str = "18.6",
    statistics: Mapping[int, str] = STATISTICS,
) -> list[Change]:
    """The changes since the baseline."""
    ask = Now(server, statistics, near=lambda _: near, under=lambda _, __: under)
    return compare(then or accepted(), query, [now], ask)


def one(*arguments: Any, **options: Any) -> Change:
    (change,) = compared(*arguments, **options)
    return change


# what gates


def test_the_same_plan_is_no_change() -> None:
    assert compared(seen(scan())) == []


def test_another_access_path_is_a_finding_that_names_both() -> None:
    change = one(seen(scan(None, cost=900)), statistics={100: "other"})
    assert (change.state, change.angle) == (State.FAILS, "default")
    assert "read by Index Scan using by_a on public.t on 2026-01-01, now by Seq Scan on public.t" in change.what
    assert change.part == scan(None, cost=900)


def test_a_plan_that_comes_back_with_costs_a_little_off_is_a_tie() -> None:
    change = one(seen(scan(None, cost=900)), near=[seen(scan()).plan.access])
    assert (change.state, "a tie" in change.what) == (State.CANNOT_TELL, True)


def test_a_plan_that_costs_what_the_old_one_did_is_a_tie() -> None:
    then = accepted(seen(scan("by_a"), indexes=(BY_A, BY_B)))
    change = one(seen(scan("by_b", cost=101.0), indexes=(BY_A, BY_B)), then)
    assert (change.state, "costs what the old plan cost" in change.what) == (State.CANNOT_TELL, True)


def test_a_dearer_one_over_the_same_indexes_is_none() -> None:
    then = accepted(seen(scan("by_a"), indexes=(BY_A, BY_B)))
    assert one(seen(scan("by_b", cost=110.0), indexes=(BY_A, BY_B)), then).state is State.FAILS


@pytest.mark.parametrize(("rows", "states"), [(990, []), (1010, [State.FAILS]), (240, [State.FAILS])])
def test_an_estimate_gates_from_a_factor_of_two(rows: float, states: list[State]) -> None:
    assert [change.state for change in compared(seen(scan(rows=rows)))] == states


def test_an_estimate_of_a_few_rows_does_not_gate() -> None:
    assert compared(seen(scan(rows=9)), accepted(seen(scan(rows=1)))) == []


def test_an_estimate_that_grows_with_its_table_is_told() -> None:
    change = one(seen(scan(rows=2000), table=replace(TABLE, pages=4000)))
    assert (change.state, "the table has grown 4 times" in change.what) == (State.HOLDS, True)


@pytest.mark.parametrize(("blocks", "states"), [(105, []), (109, []), (111, [State.FAILS]), (60, [])])
def test_blocks_of_a_warm_run_gate(blocks: int, states: list[State]) -> None:
    then = accepted(seen(scan(), ran=scan(blocks=100, actual_rows=1, loops=1)))
    now = seen(scan(), ran=scan(blocks=blocks, actual_rows=1, loops=1))
    assert [change.state for change in compared(now, then)] == states


RAN = seen(scan(), ran=scan(blocks=100, actual_rows=1, loops=1))


def test_without_a_run_it_is_told_that_blocks_are_not_compared() -> None:
    change = one(seen(scan()), accepted(RAN))
    assert (change.state, change.what) == (State.HOLDS, "blocks not compared: say --analyze")


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ({"pages": 4000}, State.FAILS),
        ({"pages": 4000, "rows": 200_000.0}, State.HOLDS),
        ({"pages": 4000, "rows": -1.0}, State.HOLDS),
    ],
)
def test_rows_that_have_come_excuse_blocks_and_bloat_does_not(now: dict[str, Any], state: State) -> None:
    then = accepted(RAN)
    run = seen(scan(), table=replace(TABLE, **now), ran=scan(blocks=390, actual_rows=1, loops=1))
    assert one(run, then).state is state


def test_growth_of_a_table_that_few_blocks_are_read_of_excuses_nothing() -> None:
    other = Relation("public", "u")
    facts = {T: TABLE, other: replace(TABLE, oid=101, name="u")}
    beside = Node("Seq Scan", 5, 5.0, 0.0, 8, other, alias="u", blocks=5, actual_rows=5, loops=1)

    def evidence(blocks: int, rows: float) -> Evidence:
        root = Node("Nested Loop", 5, 9.0, 0.0, 8, blocks=blocks + 5, plans=(scan(blocks=blocks), beside))
        grown = {**facts, other: replace(facts[other], rows=rows)}
        return Evidence("default", Plan(root), Catalogue(grown, (BY_A,)), ran=Plan(root))

    assert one(evidence(390, 200_000.0), accepted(evidence(100, 50_000.0))).state is State.FAILS


def test_blocks_are_kept_where_the_same_is_read_alike() -> None:
    before = accepted(RAN)
    kept, lost = keep_blocks(accepted(seen(scan())), before)
    assert (kept.plans["default"].blocks, lost) == (100, [])
    kept, lost = keep_blocks(accepted(seen(scan(None))), before)
    assert (kept.plans["default"].blocks, lost) == (None, ["default"])


def test_a_set_without_an_accepted_plan_is_told() -> None:
    change = one(seen(scan()), replace(accepted(), plans={}))
    assert (change.state, change.what) == (State.HOLDS, "no accepted plan for set default")


def test_the_plan_of_a_small_table_is_not_accepted() -> None:
    assert accepted(seen(scan(), table=replace(TABLE, pages=3))).plans == {}


# what is only told


def test_cost_alone_is_told() -> None:
    change = one(seen(scan(cost=130)))
    assert (change.state, change.what) == (State.HOLDS, "told: cost 100 then, 130 now")


def test_another_shape_over_the_same_scans_is_told() -> None:
    joined = Node("Sort", 500, 100.0, 0.0, 8, plans=(scan(),))
    assert one(seen(joined)).what == "told: another shape over the same scans"


def test_other_constants_are_no_other_shape() -> None:
    other = replace(scan(), conditions=(("Index Cond", "(t.a = '2'::integer)"),))
    assert compared(seen(other)) == []


def test_a_small_table_does_not_tell() -> None:
    change = one(seen(scan(None), table=replace(TABLE, pages=1)))
    assert change.state is State.CANNOT_TELL


def test_an_angle_that_is_gone_is_told() -> None:
    (change,) = compare(accepted(), QUERY, [], Now("18.6", {}, near=lambda _: (), under=lambda _, __: None))
    assert (change.state, "not looked at any more" in change.what) == (State.HOLDS, True)


# why

WHOLE = scan(None, cost=900)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"query": replace(QUERY, sql="SELECT 1")}, "the query's text has changed"),
        (
            {"query": replace(QUERY, sets=(ValueSet("default", {"a": "2"}),))},
            "the values that it is planned for have changed",
        ),
        ({"server": "19.1"}, "the server was PostgreSQL 18.6 and is 19.1"),
        ({"statistics": {100: "ffff"}}, "the statistics of public.t are others"),
        ({}, "nothing that is kept has changed"),
    ],
)
def test_the_cause_is_named(options: dict[str, Any], words: str) -> None:
    assert words in one(seen(WHOLE), **options).what


@pytest.mark.parametrize(
    ("indexes", "words"),
    [
        ((), 'index "by_a" of public.t is gone'),
        ((BY_A, BY_B), 'index "by_b" of public.t is new'),
        ((replace(BY_A, definition="CREATE INDEX by_a ON t (b)"),), 'index "by_a" of public.t has another definition'),
    ],
)
def test_a_changed_index_is_the_cause(indexes: Sequence[IndexFacts], words: str) -> None:
    assert words in one(seen(WHOLE, indexes=indexes)).what


def test_growth_is_the_cause() -> None:
    assert "public.t has 3 times the pages" in one(seen(WHOLE, table=replace(TABLE, pages=3000))).what


def test_a_setting_is_the_cause_for_certain_where_its_old_value_gives_the_old_plan() -> None:
    now = seen(WHOLE, settings={"random_page_cost": "40"})
    change = one(now, under=seen(scan()).plan.access, server="19.1")
    assert change.what.endswith(
        "because random_page_cost was the default and is 40: with the old value it is the old plan"
    )


def test_a_setting_that_does_not_explain_it_is_one_of_several() -> None:
    now = seen(WHOLE, settings={"work_mem": "1MB"})
    assert "because work_mem was the default and is 1MB\n  because the server was" in one(now, server="19.1").what


# the file


def test_a_baseline_reads_back_as_it_was_written(tmp_path: Any) -> None:
    then = accepted(seen(scan(), settings={"work_mem": "64MB"}, ran=scan(blocks=7, actual_rows=1, loops=1)))
    path = baseline_file.write(tmp_path, then)
    assert path.name == "q.yaml"
    assert baseline_file.read(tmp_path, "q") == then
    assert list(tmp_path.iterdir()) == [path]


def test_it_holds_no_value_of_a_parameter() -> None:
    assert "'1'" not in baseline_file.dump(accepted())


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("(customer_id = 5)", "(customer_id = ?)"),
        ("((a > '-1.5e3'::numeric) AND (b < -2.5))", "((a > ?::numeric) AND (b < ?))"),
        ("(t1.a2 = $1)", "(t1.a2 = $1)"),
        ('("5" = (InitPlan 1).col1)', '("5" = (InitPlan 1).col1)'),
        ("(a = ANY ('{1,2}'::integer[]))", "(a = ANY (?::integer[]))"),
    ],
)
def test_its_tree_holds_no_constant(condition: str, kept: str) -> None:
    tree = accepted(seen(replace(scan(), conditions=(("Filter", condition),)))).plans["default"].tree
    assert tree[1] == f"    Filter: {kept}"


def test_a_name_with_a_newline_is_one_line_of_the_tree(tmp_path: Any) -> None:
    then = accepted(seen(scan("by\n\u2028a")))
    assert len(then.plans["default"].tree) == 2
    baseline_file.write(tmp_path, then)
    assert baseline_file.read(tmp_path, "q") == then


def test_there_may_be_none(tmp_path: Any) -> None:
    assert baseline_file.read(tmp_path, "q") is None


@pytest.mark.parametrize("text", ["", "- 1", "version: 2", "version: 1\nquery: q", "a: [", "version: 1\nplans: 3"])
def test_what_is_no_baseline_is_refused(tmp_path: Any, text: str) -> None:
    (tmp_path / "q.yaml").write_text(text)
    with pytest.raises(UsageError, match="is no baseline"):
        baseline_file.read(tmp_path, "q")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("plans",), None, "plans: expected keys and values"),
        (("plans", "default"), None, "plans.default: expected keys and values"),
        (("plans", "default", "cost"), None, "plans.default.cost: expected a number"),
        (("plans", "default", "cost"), float("nan"), "plans.default.cost: expected a number"),
        (("plans", "default", "rows"), True, "plans.default.rows: expected a number"),
        (("plans", "default", "blocks"), "7", "plans.default.blocks: expected a whole number"),
        (("plans", "default", "plan"), 5, "plans.default.plan: expected a text"),
        (("plans", "default", "reads"), "Seq Scan", "plans.default.reads: expected a list"),
        (("plans", "default", "reads"), [["Seq Scan", "t", "", "many"]], "plans.default.reads: expected lists of"),
        (("plans", "default", "settings"), [], "plans.default.settings: expected keys and values"),
        (("tables", "public.t", "pages"), None, "tables.public.t.pages: expected a whole number"),
        (("tables", "public.t", "indexes", "by_a"), None, "tables.public.t.indexes.by_a: expected a text"),
        (("tables",), {5: {}}, "tables.5: expected a text for the key"),
        (("reason",), None, "reason: expected a text"),
        (("version",), 2, "version: 2 is not known"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_by_its_key(
    tmp_path: Any, place: tuple[str, ...], value: object, words: str
) -> None:
    document = yaml.safe_load(baseline_file.dump(accepted()))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "q.yaml").write_text(yaml.dump(document))
    with pytest.raises(UsageError) as refused:
        baseline_file.read(tmp_path, "q")
    assert f'q.yaml" is no baseline: {words}' in str(refused.value)


def test_a_key_that_is_not_there_is_named(tmp_path: Any) -> None:
    (tmp_path / "q.yaml").write_text(baseline_file.dump(accepted()).replace("\nserver: ", "\nservr: "))
    with pytest.raises(UsageError, match="is no baseline: server is missing"):
        baseline_file.read(tmp_path, "q")


def test_the_plan_stands_in_it_as_a_tree() -> None:
    document = yaml.safe_load(baseline_file.dump(accepted()))
    assert document["plans"]["default"]["plan"] == (
        "Index Scan using by_a on public.t\n    Index Cond: (t.a = ?::integer)\n"
    )
