"""Which steps may run side by side, and which wait for which."""

from __future__ import annotations

from typing import Any

import pytest

from perfctl.indexes.model import Estimate, Step
from perfctl.indexes.schedule import Schedule, links
from perfctl.migrations.model import Name


def step(kind: str, name: str, table: str | None = "t", *, s: float = 1.0, **facts: Any) -> Step:
    """A step about an index of a table."""
    on = Name("public", table) if table else None
    return Step(kind, Name("public", name), "", None, "", on, estimate=Estimate(0, s, s), **facts)


def build(name: str, table: str = "t", **facts: Any) -> Step:
    return step("create_index", name, table, **facts)


def ready(schedule: Schedule) -> list[str]:
    return [schedule.steps[number].name.name for number in schedule.ready()]


def schedule(*steps: Step, jobs: int = 2) -> Schedule:
    return Schedule(steps, jobs=jobs)


# what may start


def test_one_table_has_one_concurrent_build_at_a_time() -> None:
    made = schedule(build("i"), build("k"), build("other", "u"))
    made.start(0)
    assert ready(made) == ["other"]


def test_plain_builds_share_their_table() -> None:
    made = schedule(build("i", concurrent=False), build("k", concurrent=False))
    made.start(0)
    assert ready(made) == ["k"]


def test_a_plain_and_a_concurrent_build_do_not() -> None:
    made = schedule(build("i", concurrent=False), build("k"))
    made.start(0)
    assert ready(made) == []


def test_a_drop_does_not_share_its_table() -> None:
    made = schedule(build("i", concurrent=False), step("drop_index", "k"))
    made.start(0)
    assert ready(made) == []


def test_one_job_keeps_the_files_order() -> None:
    made = schedule(build("short", s=1), build("long", "u", s=100), jobs=1)
    assert ready(made) == ["short", "long"]


def test_with_several_jobs_the_table_with_most_work_comes_first() -> None:
    made = schedule(build("a", "small", s=1), build("b", "big", s=10), build("c", "big", s=10))
    assert ready(made) == ["b", "c", "a"]


def test_what_stalls_the_others_comes_last() -> None:
    made = schedule(build("partial", "big", s=100, safe=False), build("plain", "small", s=1))
    assert ready(made) == ["plain", "partial"]


def test_a_leftover_goes_first_however_much_work_others_have() -> None:
    made = schedule(build("a", "big", s=100), build("b", "large", s=90), step("drop_leftover", "u", "small", s=0))
    assert ready(made) == ["u", "a", "b"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_steps_may_end_while_the_ready_ones_are_gone_through(jobs: int) -> None:
    made = schedule(build("i"), step("comment", "i"), build("k", "u"), step("comment", "k", "u"), jobs=jobs)
    seen = []
    for number in made.ready():
        seen.append(number)
        made.end(number, well=False)
        made.lost()
    assert seen == [0, 2]
    assert not made.todo


# how it ends


def test_what_waits_for_a_failed_step_is_lost_and_so_is_what_waits_for_that() -> None:
    made = schedule(
        step("drop_leftover", "i"), build("i"), step("comment", "i"), build("other", "u"),
    )  # fmt: skip
    made.start(0)
    made.end(0, well=False)
    assert made.lost() == {1: 0, 2: 1}
    assert ready(made) == ["other"]


def test_a_step_that_is_put_back_keeps_its_place() -> None:
    made = schedule(build("i"), build("k", "u"), jobs=1)
    made.start(0)
    made.put_back(0)
    assert ready(made) == ["i", "k"]
    assert made.under_way == set()


def test_a_step_that_is_done_lets_the_next_one_start() -> None:
    made = schedule(step("drop_leftover", "i"), build("i"))
    assert ready(made) == ["i"]
    made.start(0)
    assert ready(made) == []
    made.end(0, well=True)
    assert [made.steps[n].kind for n in made.ready()] == ["create_index"]


# what waits for what


def test_builds_of_a_table_wait_for_nothing() -> None:
    assert links([build("i"), build("k"), build("m")]) == [[], [], []]


def test_a_drop_after_builds_waits_for_all_of_them_and_the_next_builds_for_it() -> None:
    found = links([build("i"), build("k"), step("drop_index", "old"), build("m")])
    assert found == [[], [], [0, 1], [2]]


def test_tables_wait_for_nobody_elses() -> None:
    assert links([build("i"), step("drop_index", "old", "u")]) == [[], []]


def test_what_is_about_no_table_parts_what_is_before_from_what_is_after() -> None:
    found = links([build("i"), build("k", "u"), step("create_extension", "x", None), build("m"), build("n", "u")])
    assert found == [[], [], [0, 1], [2], [2]]


def test_steps_about_one_name_keep_their_order_across_tables() -> None:
    assert links([build("i"), build("i", "u")]) == [[], [0]]


def test_a_part_is_attached_after_it_and_its_parent_are_built() -> None:
    whole, part = Name("public", "i"), Name("public", "p_i")
    steps = [
        build("i", "whole"),
        build("p_i", "p", after=(("create_index", whole),)),
        step("attach_index", "p_i", "p", after=(("create_index", whole), ("create_index", part))),
    ]
    assert [set(each) for each in links(steps)] == [set(), {0}, {0, 1}]


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_every_schedule_comes_to_its_end(jobs: int) -> None:
    steps = [
        *(build(f"i{n}", f"t{n % 3}") for n in range(6)),
        step("create_extension", "x", None),
        *(step("comment", f"i{n}", f"t{n % 3}") for n in range(6)),
    ]
    made = schedule(*steps, jobs=jobs)
    order = []
    while made.todo:
        for number in list(made.ready())[:jobs]:
            if number in set(made.ready()):
                made.start(number)
        assert made.under_way
        for number in list(made.under_way):
            made.end(number, well=True)
            order.append(number)
    assert sorted(order) == list(range(len(steps)))
    assert all(order.index(other) < order.index(number) for number, each in enumerate(links(steps)) for other in each)
