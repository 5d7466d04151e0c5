"""A plan as a tree: what it shows, and what it marks."""

from __future__ import annotations

from typing import Any

from inline_snapshot import snapshot

from perfctl.explain.tree import figures, lines
from tests.unit.fix_explain import index_scan, node, plan, seq_scan
from tests.unit.test_explain_plan import given


def drawn(name: str) -> list[str]:
    return [line.text for line in lines(given(name))]


def test_a_plan_is_drawn_with_its_conditions() -> None:
    found = lines(
        plan(
            node(
                "Hash Join",
                seq_scan(cost=700, rows=1234),
                node("Hash", index_scan("i", "users", "u", cost=50), cost=51),
                cost=800.5,
                conditions={"Hash Cond": "(o.u = u.id)"},
            ),
            settings={"work_mem": "1MB", "jit": "off"},
            planning_ms=0.25,
        )
    )
    assert [line.text for line in found] == snapshot(
        [
            "Hash Join  cost 800  rows 10",
            "│   Hash Cond: (o.u = u.id)",
            "├─ Seq Scan on public.orders  cost 700  rows 1,234  ◀ heaviest",
            "│      Filter: (k = 1)",
            "└─ Hash  cost 51  rows 10",
            "   └─ Index Scan using i on public.users u  cost 50  rows 10",
            "          Index Cond: (k = 1)",
            "settings: work_mem = 1MB, jit = off",
            "planning 0.25 ms",
        ]
    )
    assert [line.mark for line in found if line.mark] == ["heavy"]


def test_a_run_is_drawn_with_what_came() -> None:
    assert drawn("runpruned") == snapshot(
        [
            "Append  cost 94.93  rows 3 → 0  blocks 11",
            "├─ InitPlan 1: Result  cost 0.01  rows 1 → 1  blocks 0",
            "├─ Bitmap Heap Scan on public.ev_1  cost 33.93  rows 1  never executed",
            "│  │   Recheck Cond: (ev_1.k = 3)",
            "│  │   Filter: (ev_1.at = (InitPlan 1).col1)",
            "│  └─ Bitmap Index Scan using ev_1_k_idx  cost 4.38  rows 12  never executed",
            "│         Index Cond: (ev_1.k = 3)",
            "├─ Bitmap Heap Scan on public.ev_2  cost 29.15  rows 1 → 0  blocks 11  ◀ heaviest",
            "│  │   Recheck Cond: (ev_2.k = 3)",
            "│  │   Filter: (ev_2.at = (InitPlan 1).col1)",
            "│  │   removed by filter: 9 rows",
            "│  └─ Bitmap Index Scan using ev_2_k_idx  cost 4.35  rows 9 → 9  blocks 2",
            "│         Index Cond: (ev_2.k = 3)",
            "└─ Bitmap Heap Scan on public.ev_3  cost 31.83  rows 1  never executed",
            "   │   Recheck Cond: (ev_3.k = 3)",
            "   │   Filter: (ev_3.at = (InitPlan 1).col1)",
            "   └─ Bitmap Index Scan using ev_3_k_idx  cost 4.36  rows 10  never executed",
            "          Index Cond: (ev_3.k = 3)",
            "planning 0.21 ms, execution 0.13 ms",
        ]
    )


def test_pruned_partitions_are_said() -> None:
    assert drawn("generic_pruned")[1] == "    partitions pruned: 3"


def test_ctes_and_subplans_are_named() -> None:
    named = [text.split("  ")[0].lstrip("├─└│ ") for text in drawn("cte")]
    assert "CTE x: Bitmap Heap Scan on public.t" in named
    assert "SubPlan 3: Result" in named


def test_an_estimate_that_is_far_off_is_marked_and_one_that_was_stopped_early_is_not() -> None:
    bad = seq_scan(rows=10, actual_rows=5000.0, loops=1, blocks=9)
    (first, *_) = lines(plan(bad))
    assert (first.mark, first.text.split("  ")[-1]) == ("off", "◀ rows off 500×")
    assert not any(line.mark == "off" for line in lines(given("limit")))


def test_of_two_equal_nodes_one_is_marked() -> None:
    twice = node("Append", *(seq_scan(rows=10, actual_rows=5000.0, loops=1, blocks=n) for n in (9, 9)),
                 rows=20, actual_rows=20.0, loops=1, blocks=18)  # fmt: skip
    assert [line.text.count("◀ heaviest") for line in lines(plan(twice)) if "Seq Scan" in line.text] == [1, 0]


def test_a_limit_is_not_weighed_by_what_it_leaves_unread() -> None:
    limit = node("Limit", seq_scan(cost=9000.0), cost=5.0)
    found = lines(plan(node("Nested Loop", limit, index_scan("i", "users", cost=80.0), cost=90.0)))
    assert [line.text.split("  ")[0] for line in found if line.mark] == ["└─ Index Scan using i on public.users"]


def test_figures_say_what_there_is_to_say() -> None:
    assert figures(seq_scan(loops=0, actual_rows=0.0)) == "cost 100  rows 10  never executed"
    many: dict[str, Any] = {
        "temp_blocks": 5,
        "heap_fetches": 6,
        "lossy_blocks": 7,
        "blocks": 1234,
        "workers_planned": 2,
    }
    assert figures(seq_scan(loops=3, actual_rows=2.5, **many)) == (
        "cost 100  rows 10  workers 2 → 2.5 × 3  blocks 1,234  temp 5  lossy 7  heap fetches 6"
    )
