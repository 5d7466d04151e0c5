"""What a step waits for before it is sent, and what it does not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perfctl.indexes import gates
from perfctl.indexes.model import Blocker, Estimate, Step
from perfctl.indexes.running import Limits, Neighbours, Obstacle, Replica, TableLoad
from perfctl.migrations.model import Name
from tests.unit.fix_indexes import BLOCKER

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
T = 100
BUILD = Step(
    "create_index", Name("public", "i"), "", None, "", Name("public", "t"), estimate=Estimate(1000, 60.0, 60.0)
)
LIMITS = Limits()
DROP = replace(BUILD, kind="drop_index", estimate=None)
PLAIN = replace(BUILD, concurrent=False)


def blocker(reason: str = "writer", **facts: Any) -> Blocker:
    """Somebody in the way, at the table unless it is said otherwise."""
    return replace(BLOCKER, **{"reason": reason, "table_oid": T, **facts})


def snapshot(**facts: Any) -> Blocker:
    """Somebody with a snapshot, somewhere in the database."""
    return blocker("snapshot", **{"table_oid": None, **facts})


def found(
    *blockers: Blocker,
    step: Step = BUILD,
    limits: Limits = LIMITS,
    wall: Collection[tuple[object, ...]] | None = None,
    lost_to: Collection[tuple[object, ...]] = (),
    worked_here: bool = False,
    **near: Any,
) -> Obstacle | None:
    """What keeps a step from being sent."""
    return gates.obstacle(
        step,
        T,
        Neighbours(blockers=blockers, **near),
        limits,
        now=NOW,
        wall=wall,
        lost_to=lost_to,
        worked_here=worked_here,
    )


def why(obstacle: Obstacle | None) -> str:
    assert obstacle is not None
    return obstacle.why


def test_nothing_in_the_way() -> None:
    assert found() is None


# the window


@pytest.mark.parametrize(("minutes", "words"), [(-5, "it is past 02:55"), (0.5, "it would not be done by 03:00")])
def test_no_build_begins_that_would_end_too_late(minutes: float, words: str) -> None:
    obstacle = found(limits=Limits(not_after=NOW + timedelta(minutes=minutes)))
    assert words in why(obstacle)
    assert obstacle is not None
    assert obstacle.final


def test_a_build_that_ends_in_time_begins() -> None:
    assert found(limits=Limits(not_after=NOW + timedelta(minutes=2))) is None


def test_a_drop_needs_no_window() -> None:
    assert found(step=DROP, limits=Limits(not_after=NOW - timedelta(hours=1))) is None


# space


def test_a_build_needs_its_size_twice() -> None:
    assert "free on the server's disk; the build may take 2.0 kB" in why(found(free_bytes=1999))
    assert found(free_bytes=2000) is None


def test_what_has_to_stay_free_counts_too() -> None:
    limits = Limits(min_free_bytes=500)
    assert "have to stay free" in why(found(free_bytes=2499, limits=limits))
    assert found(free_bytes=2500, limits=limits) is None


def test_a_drop_needs_no_space() -> None:
    assert found(step=DROP, free_bytes=0) is None


def test_a_disk_that_cannot_be_seen_is_not_judged() -> None:
    assert found(free_bytes=None, limits=Limits(min_free_bytes=10**12)) is None


# locks on the table


@pytest.mark.parametrize("step", [BUILD, DROP, PLAIN])
def test_a_holder_of_the_tables_lock_is_waited_for(step: Step) -> None:
    obstacle = found(blocker("holder", age_s=0.1), step=step)
    assert "the table is locked by pid 7" in why(obstacle)
    assert obstacle is not None
    assert obstacle.of_table


@pytest.mark.parametrize("query", ["COMMIT;", "COMMIT ; ", " COMMIT\n;;"])
def test_a_statements_own_semicolon_is_not_doubled(query: str) -> None:
    words = why(found(blocker("holder", query=query), blocker("holder", pid=8, query=query)))
    assert ": COMMIT; pid 8" in words
    assert words.endswith(": COMMIT")


def test_a_holder_of_another_tables_lock_is_not() -> None:
    assert found(blocker("holder", table_oid=T + 1)) is None


def test_the_build_that_the_step_follows_is_not_in_its_way() -> None:
    assert found(blocker("holder"), step=replace(BUILD, follows=7)) is None


def test_an_autovacuum_yields() -> None:
    assert found(blocker("holder", is_client=False)) is None


def test_an_autovacuum_against_wraparound_does_not() -> None:
    obstacle = found(blocker("holder", is_client=False, is_wraparound=True))
    assert "wraparound" in why(obstacle)
    assert obstacle is not None
    assert obstacle.hint == "let it end; it must not be cancelled"


def test_a_prepared_transaction_does_not_yield_either() -> None:
    prepared = blocker("holder", pid=None, application="prepared transaction x", is_client=False)
    assert "prepared transaction x" in why(found(prepared))


# transactions that a build would wait for


def test_an_old_writer_is_waited_for_before_the_build() -> None:
    obstacle = found(blocker(age_s=12.0))
    assert "a build would wait for pid 7" in why(obstacle)
    assert obstacle is not None
    assert obstacle.of_table


def test_a_young_writer_is_left_to_the_build_itself() -> None:
    assert found(blocker(age_s=9.9)) is None
    assert found(blocker(age_s=None)) is None


def test_with_no_age_every_writer_is_waited_for() -> None:
    assert found(blocker(age_s=0.0), limits=Limits(blocker_age_s=0.0)) is not None


def test_a_writer_of_another_table_is_not_in_the_way() -> None:
    assert found(blocker(table_oid=T + 1)) is None


def test_an_old_snapshot_is_in_the_way_wherever_it_reads() -> None:
    obstacle = found(snapshot())
    assert obstacle is not None
    assert not obstacle.of_table


@pytest.mark.parametrize("step", [DROP, PLAIN])
def test_who_only_a_concurrent_build_waits_for_is_not_in_anothers_way(step: Step) -> None:
    assert found(blocker(), snapshot(), step=step) is None


def test_who_came_after_the_first_look_is_not_waited_for() -> None:
    late = snapshot(pid=8)
    assert found(snapshot(), late, wall={snapshot().identity}) is not None
    assert found(late, wall={snapshot().identity}) is None


def test_another_transaction_of_the_same_session_is_another_one() -> None:
    again = snapshot(started_at=NOW)
    assert found(again, wall={snapshot().identity}) is None


def test_who_an_earlier_try_was_lost_to_has_to_end_first_however_young() -> None:
    young = blocker(age_s=0.1)
    assert found(young, wall=set(), lost_to={young.identity}) is not None


def test_everybody_in_the_way_is_named() -> None:
    words = why(found(blocker(pid=7), snapshot(pid=8)))
    assert "pid 7" in words
    assert "pid 8" in words


# replicas


def behind(lag_s: float | None) -> Replica:
    return Replica("standby1", None, "streaming", lag_s)


def test_a_build_waits_for_a_replica_that_is_behind() -> None:
    assert "replica standby1 (local) is 2 min behind" in why(found(replicas=(behind(1.0), behind(120.0))))


@pytest.mark.parametrize("lag_s", [None, 0.0, 60.0])
def test_a_replica_that_keeps_up_or_tells_nothing_is_not_waited_for(lag_s: float | None) -> None:
    assert found(replicas=(behind(lag_s),)) is None


def test_replicas_can_be_left_alone() -> None:
    assert found(replicas=(behind(1000.0),), limits=Limits(max_replica_lag_s=None)) is None
    assert found(replicas=(behind(1000.0),), step=DROP) is None


# autovacuum's turn


def load(**facts: Any) -> TableLoad:
    return TableLoad(
        **{"oid": T, "dead_rows": 100, "dead_rows_limit": 50.0, "vacuum_pid": None, "naptime_s": 60.0, **facts}
    )


def test_autovacuum_gets_its_turn_between_two_builds_and_no_longer() -> None:
    obstacle = found(loads=(load(),), worked_here=True)
    assert "100 dead rows, and it comes for 50" in why(obstacle)
    assert obstacle is not None
    assert obstacle.at_most_s == 95.0


def test_it_gets_no_longer_than_the_budget() -> None:
    obstacle = found(loads=(load(),), worked_here=True, limits=Limits(wait_budget_s=3.0))
    assert obstacle is not None
    assert obstacle.at_most_s == 3.0


def test_a_vacuum_that_is_at_the_table_is_let_end() -> None:
    assert "pid 9 vacuums the table" in why(found(loads=(load(vacuum_pid=9, dead_rows=0),), worked_here=True))


@pytest.mark.parametrize("facts", [{"dead_rows": 50}, {"dead_rows_limit": None}, {"oid": T + 1}])
def test_where_autovacuum_has_nothing_to_do_nobody_waits(facts: dict[str, Any]) -> None:
    assert found(loads=(load(**facts),), worked_here=True) is None


def test_before_the_first_build_autovacuum_is_owed_nothing() -> None:
    assert found(loads=(load(),)) is None
