"""One item a query: what it says, its status, its exit code, and what is wrong with a query's rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfctl.errors import Busy, PerfctlError, StatementFailed, Unreachable, UsageError
from perfctl.explain import decide, look
from perfctl.explain.decide import Looked, Ruled, Subject
from perfctl.explain.model import GENERIC
from perfctl.explain.rule import Evidence
from perfctl.hotqueries.model import Expectation, HotQuery, Kind, Parameter, Problem, ValueSet
from perfctl.report import Item, Status
from tests.unit.fix_explain import index, index_scan, node, seen, seq_scan, table

QUERY = HotQuery("q", "SELECT 1", "q.sql", 9)


def said(line: int, **rule: Any) -> Expectation:
    ((key, value),) = rule.items()
    return Expectation(key, value, "q.sql", line)


def made(*rules: Expectation, everybody: tuple[Expectation, ...] = (), **keys: Any) -> Subject:
    found = decide.subject(replace(QUERY, rules=rules, **keys), everybody)
    assert isinstance(found, Subject)
    return found


def refused(*rules: Expectation, everybody: tuple[Expectation, ...] = (), **keys: Any) -> Problem:
    found = decide.subject(replace(QUERY, rules=rules, **keys), everybody)
    assert isinstance(found, Problem)
    return found


def no_tie(_subject: Subject, _evidence: Evidence, _ruled: Ruled) -> bool:
    return False


def item(subject: Subject, *evidence: Evidence, tie: decide.Tie = no_tie, **failures: PerfctlError) -> Item:
    return decide.item(subject, Looked(evidence, failures), tie)


# --- the rules of a query


def test_a_query_is_held_to_its_own_rules_and_those_of_all() -> None:
    subject = made(said(3, cost=5), everybody=(Expectation("rows", "1..5", "perfctl.yaml", 7),))
    assert [(each.said.key, each.said.file, each.said.line) for each in subject.rules] == [
        ("cost", "q.sql", 3), ("rows", "perfctl.yaml", 7),
    ]  # fmt: skip
    assert not subject.takes_a_run
    assert made(said(3, buffers=5)).takes_a_run


def test_a_query_puts_a_rule_of_all_aside_with_a_reason_and_keeps_its_own() -> None:
    aside = Expectation("cost", None, "q.sql", 4, "once a night")
    subject = made(said(3, cost=9000), everybody=(said(1, cost=5), said(2, rows="1..")), overrides=(aside,))
    assert [(each.said.key, each.said.value) for each in subject.rules] == [("cost", 9000), ("rows", "1..")]
    found = item(subject, seen(seq_scan()))
    assert (found.status, found.detail) == (Status.OK, "cost 100; 10 rows expected\ncost put aside: once a night")


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_a_rule_is_not_put_aside_without_a_reason(reason: str | None) -> None:
    found = refused(overrides=(Expectation("cost", None, "q.sql", 4, reason),))
    assert found == Problem("q", "cost is put aside without a reason", "q.sql", 4, "-- override: cost: WHY")


def test_what_is_unknown_is_said_with_what_is_known() -> None:
    aside = Expectation("costs", None, "q.sql", 4, "why")
    assert refused(overrides=(aside,)) == Problem("q", 'unknown rule "costs"; did you mean "cost"?', "q.sql", 4)
    assert refused(said(3, costs=5)) == Problem("q", 'unknown rule "costs"; did you mean "cost"?', "q.sql", 3)
    assert refused(said(3, cost="much")).message == "cost: expected a number"
    assert refused(Expectation("cost", "much")).line == QUERY.line


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((said(1, require="Sort"), said(2, forbid=["Hash", "Sort"])), "Sort is required and forbidden"),
        ((said(1, sort="absent"), said(2, require="Incremental Sort")),
         "Incremental Sort is required and ruled out by sort: absent"),
        ((said(1, no_seq_scan=True), said(2, require="Seq Scan")),
         "Seq Scan is required and ruled out by no_seq_scan: True"),
        ((said(1, index_only=True), said(2, require="Index Scan")),
         "Index Scan is required and ruled out by index_only: True"),
        ((said(1, join_method="hash"), said(2, require="Merge Join")),
         "Merge Join is required and ruled out by join_method: hash"),
        ((said(1, join_method="hash"), said(2, join_method=["merge", "nested loop"])),
         "two methods of joining that exclude each other"),
        ((said(1, rows="1..5"), said(2, cost=5), said(3, rows="6..")), "two ranges of rows that do not meet"),
        ((said(1, rows=7), said(3, rows="..6")), "two ranges of rows that do not meet"),
    ],
)  # fmt: skip
def test_rules_that_no_plan_can_hold_to_are_refused(rules: tuple[Expectation, ...], message: str) -> None:
    assert refused(*rules).message == message
    assert refused(*rules[:1], everybody=rules[1:]).message == message


@pytest.mark.parametrize(
    "rules",
    [
        (said(1, rows="1..5"), said(2, rows="5..9")),
        (said(1, join_method=["hash", "merge"]), said(2, join_method="hash"), said(3, require="Hash Join")),
        (said(1, no_seq_scan="users"), said(2, require="Seq Scan")),
        (said(1, no_seq_scan={"over_pages": 100}), said(2, require="Seq Scan")),
        (said(1, sort="absent"), said(2, forbid="Sort")),
    ],
)
def test_rules_that_a_plan_can_hold_to_are_taken(rules: tuple[Expectation, ...]) -> None:
    assert len(made(*rules).rules) == len(rules)


# --- items


def test_what_holds_is_said() -> None:
    found = item(made(said(3, uses_index="idx")), seen(index_scan("idx"), index("idx")))
    assert (found.kind, found.name, found.status, found.remedy) == ("query", "q", Status.OK, None)
    assert (found.detail, found.exit_code) == ("Index Scan using idx on public.orders", 0)


def test_without_words_of_a_rule_the_scans_are_said() -> None:
    joined = seen(node("Hash Join", seq_scan(), index_scan("i", "users")))
    assert item(made(), joined).detail == "Seq Scan on public.orders; Index Scan using i on public.users"
    assert item(made(), seen(node("Result"))).detail == "reads no table"


def test_a_finding_says_the_rule_what_was_seen_the_node_and_the_cure() -> None:
    found = item(made(said(3, no_seq_scan=True), said(4, cost=100)), seen(seq_scan()))
    assert (found.status, found.exit_code, found.remedy) == (Status.FINDING, 1, "an index for (k = 1)")
    assert found.detail == (
        "q.sql:9: no_seq_scan: public.orders of 5,000 pages is read whole\n"
        "  Seq Scan on public.orders (cost 100, rows 10) Filter: (k = 1)"
    )
    assert found.data["rules"][0] == {
        "rule": "no_seq_scan",
        "value": True,
        "angle": "default",
        "state": "fails",
        "saw": "public.orders of 5,000 pages is read whole",
        "node": "Seq Scan on public.orders (cost 100, rows 10) Filter: (k = 1)",
        "file": "q.sql",
        "line": 3,
    }
    assert [each["state"] for each in found.data["rules"]] == ["fails", "holds"]


def test_with_several_sets_of_values_a_finding_says_which() -> None:
    found = item(made(said(3, no_seq_scan=True)), seen(index_scan("i"), angle="few"), seen(seq_scan(), angle="many"))
    assert found.detail.splitlines()[0] == "q.sql:9: no_seq_scan (many): public.orders of 5,000 pages is read whole"
    assert [each["name"] for each in found.data["angles"]] == ["few", "many"]


def test_the_cures_of_several_findings_are_said_once_each() -> None:
    found = item(made(said(3, no_seq_scan=True)), seen(seq_scan(), angle="a"), seen(seq_scan(), angle="b"))
    assert found.remedy == "an index for (k = 1)"


def test_what_cannot_be_told_is_no_finding_and_never_silent() -> None:
    some = item(made(said(3, buffers=5), said(4, cost=900)), seen(seq_scan()))
    assert (some.status, some.detail) == (Status.OK, "cost 100\ncannot tell: buffers: it takes a run: say --analyze")
    none = item(made(said(3, buffers=5)), seen(seq_scan(), angle="a"), seen(seq_scan(), angle="b"))
    assert (none.status, none.exit_code) == (Status.SKIPPED, 0)
    assert none.detail.count("cannot tell: buffers") == 1


def test_small_tables_are_in_the_data() -> None:
    found = item(made(), seen(seq_scan(), table("orders", 3)))
    assert found.data["angles"][0]["small_tables"] == ["public.orders"]
    assert "small_tables" not in item(made(), seen(seq_scan())).data["angles"][0]


def test_a_run_is_in_the_data() -> None:
    run = seq_scan(actual_rows=3.0, loops=1, blocks=7, temp_blocks=0)
    (angle,) = item(made(), seen(seq_scan(), ran=run)).data["angles"]
    assert (angle["actual_rows"], angle["blocks"], angle["temp_blocks"], angle["execution_ms"]) == (3.0, 7, 0, None)
    assert angle["access"] == ["Seq Scan public.orders"]


def test_a_tie_is_no_finding() -> None:
    asked: list[tuple[str, str]] = []

    def tie(_subject: Subject, evidence: Evidence, ruled: Ruled) -> bool:
        asked.append((evidence.angle, ruled.said.key))
        return True

    found = item(made(said(3, no_seq_scan=True), said(4, cost=1)), seen(seq_scan()), tie=tie)
    # A figure is what it is; only what the planner chose may be a tie.
    assert asked == [("default", "no_seq_scan")]
    assert (found.status, found.data["rules"][0]["state"]) == (Status.FINDING, "cannot tell")
    assert "cannot tell: no_seq_scan: public.orders of 5,000 pages is read whole: a tie, for" in found.detail


def test_what_holds_is_not_asked_for_a_tie() -> None:
    def tie(_subject: Subject, _evidence: Evidence, _ruled: Ruled) -> bool:
        raise AssertionError("it held")

    assert item(made(said(3, no_seq_scan=True)), seen(index_scan("i")), tie=tie).status is Status.OK


def test_the_generic_plan_is_compared_from_the_side_of_the_values() -> None:
    subject = made(said(3, generic_equals_custom=True))
    custom = seen(index_scan("i"), generic=index_scan("i"))
    generic = seen(index_scan("i"), angle=GENERIC, generic=index_scan("i"))
    both = item(subject, custom, generic)
    assert (both.status, [each["angle"] for each in both.data["rules"]]) == (Status.OK, ["default"])
    alone = item(subject, generic)
    assert (alone.status, alone.detail) == (
        Status.SKIPPED,
        "Index Scan using i on public.orders\n"
        "cannot tell: generic_equals_custom: there are no values to plan it for",
    )  # fmt: skip


def test_a_query_that_cannot_be_planned_is_unknown_with_the_errors_exit_code() -> None:
    error = Busy("no lock on orders", hint="try again")
    found = item(made(said(3, cost=5)), default=error)
    assert (found.status, found.exit_code, found.remedy) == (Status.UNKNOWN, 6, "try again")
    assert (found.detail, found.data["class"]) == ("q.sql:9: no lock on orders", "Busy")


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("x"), 2), (Unreachable("x"), 3), (Busy("x"), 6), (StatementFailed("x"), StatementFailed.exit_code)],
)
def test_the_exit_code_is_that_of_the_cause(error: PerfctlError, code: int) -> None:
    assert item(made(), default=error).exit_code == code


def test_one_angle_that_fails_leaves_the_others_judged() -> None:
    holds = item(made(said(3, cost=900)), seen(seq_scan(), angle="a"), b=UsageError('parameter "x" has no value'))
    assert (holds.status, holds.exit_code) == (Status.UNKNOWN, 2)
    assert holds.detail == 'q.sql:9: parameter "x" has no value (b)'
    assert [each["state"] for each in holds.data["rules"]] == ["holds"]
    fails = item(made(said(3, cost=9)), seen(seq_scan(), angle="a"), b=UsageError('parameter "x" has no value'))
    assert (fails.status, fails.exit_code) == (Status.FINDING, 1)
    assert fails.detail.splitlines()[:2] == ['q.sql:9: parameter "x" has no value (b)', "cost: cost 100, more than 9"]


def test_a_problem_is_an_item_with_its_place() -> None:
    found = decide.problem(Problem("q", "no statement", "q.sql", 4, "write one"))
    assert (found.status, found.exit_code, found.remedy) == (Status.UNKNOWN, 2, "write one")
    assert found.detail == "q.sql:4: no statement"
    assert found.data == {"file": "q.sql", "line": 4, "exit_code": 2, "class": "UsageError"}


def test_a_node_in_a_line_says_what_came() -> None:
    assert decide.node_line(seq_scan(actual_rows=2.5, loops=4)) == (
        "Seq Scan on public.orders (cost 100, rows 10, came 2.5 × 4) Filter: (k = 1)"
    )


# --- which plans are asked for


def angles(query: HotQuery, **manner: Any) -> list[tuple[str, tuple[str | None, ...] | None, bool]]:
    subject = decide.subject(query, ())
    assert isinstance(subject, Subject)
    return [(name, r.values, r.run) for name, r in look.requests(subject, look.Manner(**manner))]


TWO = replace(
    QUERY,
    parameters=(Parameter("x", "bigint"),),
    sets=(ValueSet("default", {"x": "1"}), ValueSet("none", {"x": None})),
)


def test_a_query_is_looked_at_with_each_set_and_for_any_value() -> None:
    assert angles(TWO) == [("default", ("1",), False), ("none", (None,), False), (GENERIC, None, False)]
    assert angles(TWO, generic=False) == [("default", ("1",), False), ("none", (None,), False)]
    assert angles(replace(TWO, sets=()), generic=False) == [(GENERIC, None, False)]
    assert angles(replace(QUERY, sets=(ValueSet("default", {}),))) == [("default", (), False)]


def test_what_is_run_is_what_may_be_run_with_values() -> None:
    assert angles(TWO, analyze=True)[3:] == [("default", ("1",), True), ("none", (None,), True)]
    assert not any(run for _, _, run in angles(replace(TWO, kind=Kind.WRITE), analyze=True))


def test_a_set_that_lacks_a_value_is_passed_over() -> None:
    assert angles(replace(TWO, sets=(ValueSet("half", {}),))) == [(GENERIC, None, False)]


def test_partitions_that_are_read_alike_are_said_once() -> None:
    facts = [table(f"ev_{n}", root="ev") for n in range(100)]
    own = [index(f"ev_{n}_k_idx", f"ev_{n}", part_of="ev_k") for n in range(100)]
    scans = [index_scan(f"ev_{n}_k_idx", f"ev_{n}", f"ev_{n}") for n in range(99)]
    found = item(made(), seen(node("Append", *scans, seq_scan("ev_99")), *facts, *own))
    assert found.detail == "Index Scan using ev_k on public.ev (99 partitions); Seq Scan on public.ev_99"


def test_a_cure_is_said_once_for_all_values() -> None:
    custom = seen(seq_scan(conditions={"Filter": "(k = '7'::bigint)"}))
    any_value = replace(seen(seq_scan(conditions={"Filter": "(k = $1)"})), angle=GENERIC)
    found = item(made(said(1, no_seq_scan=True)), custom, any_value)
    assert found.remedy == "an index for (k = '7'::bigint)"
    other = replace(seen(seq_scan(conditions={"Filter": "(j = $1)"})), angle=GENERIC)
    assert item(made(said(1, no_seq_scan=True)), custom, other).remedy == (
        "an index for (k = '7'::bigint); an index for (j = $1)"
    )
