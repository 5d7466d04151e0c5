"""What a step has to wait for before it is sent. Pure: what was seen of the neighbours in, an Obstacle or None out."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime, timedelta

from perfctl.figures import human_bytes, human_seconds
from perfctl.indexes.model import Blocker, Step
from perfctl.indexes.running import Limits, Neighbours, Obstacle, TableLoad

#: What a step of these kinds builds has to read the table first: a wait after that costs the whole work.
_BUILDS = frozenset({"create_index"})

#: A sort writes about as much again to temporary files as the index that comes of it.
SPACE_FACTOR = 2


def obstacle(
    step: Step,
    table_oid: int | None,
    near: Neighbours,
    limits: Limits,
    *,
    now: datetime,
    wall: Container[tuple[object, ...]] | None = None,
    lost_to: Container[tuple[object, ...]] = (),
    worked_here: bool = False,
) -> Obstacle | None:
    """The first thing that keeps a step from being sent now.

    ``wall`` holds the transactions that were in the way at the first look: later ones are not waited for, or a busy
    server would never be ready. ``lost_to`` are those that an earlier try of this step was lost to: they have to
    end first, however young. ``worked_here`` says that this run has built on the table before.
    """
    if step.kind == "settle":
        # The journal alone is written.
        return None
    return (
        _too_late(step, limits, now)
        or _no_space(step, near, limits)
        or _held(step, table_oid, near)
        or _in_the_way(step, table_oid, near, limits, wall, lost_to)
        or _replica_behind(step, near, limits)
        or (_owed_to_autovacuum(table_oid, near, limits) if worked_here else None)
    )


def _too_late(step: Step, limits: Limits, now: datetime) -> Obstacle | None:
    if limits.not_after is None or step.kind not in _BUILDS:
        return None
    seconds = step.estimate.seconds if step.estimate else 0.0
    if now + timedelta(seconds=seconds) <= limits.not_after:
        return None
    end = limits.not_after.strftime("%H:%M")
    why = f"it would not be done by {end}" if now < limits.not_after else f"it is past {end}"
    return Obstacle(f"--not-after: {why}", hint="run it again in the next window", final=True)


def _no_space(step: Step, near: Neighbours, limits: Limits) -> Obstacle | None:
    if near.free_bytes is None or step.kind not in _BUILDS:
        return None
    need = SPACE_FACTOR * (step.estimate.size_bytes if step.estimate else 0)
    if near.free_bytes - need >= limits.min_free_bytes:
        return None
    kept = f" and {human_bytes(limits.min_free_bytes)} have to stay free" if limits.min_free_bytes else ""
    return Obstacle(
        f"{human_bytes(near.free_bytes)} free on the server's disk; the build may take {human_bytes(need)}{kept}",
        hint="make room, or lower --min-free",
    )


def _held(step: Step, table_oid: int | None, near: Neighbours) -> Obstacle | None:
    """Somebody's lock keeps the statement from beginning. An autovacuum yields to it, unless against wraparound."""
    if table_oid is None:
        return None
    # A prepared transaction has no pid, and a step that follows nobody has none to follow.
    followed = {step.follows} - {None}
    holders = [b for b in near.blockers if b.table_oid == table_oid and b.reason == "holder" and b.pid not in followed]
    for each in holders:
        if each.is_wraparound:
            return Obstacle(
                f"an autovacuum against transaction id wraparound works on the table and yields to nobody: {each}",
                hint="let it end; it must not be cancelled",
                of_table=True,
                blockers=(each,),
            )
    stubborn = tuple(each for each in holders if each.is_client or each.pid is None)
    if not stubborn:
        return None
    names = "; ".join(each.named() for each in stubborn)
    return Obstacle(f"the table is locked by {names}", of_table=True, blockers=stubborn)


def _in_the_way(
    step: Step,
    table_oid: int | None,
    near: Neighbours,
    limits: Limits,
    wall: Container[tuple[object, ...]] | None,
    lost_to: Container[tuple[object, ...]],
) -> Obstacle | None:
    if step.kind not in _BUILDS or not step.concurrent:
        return None
    if step.follows is not None and not lost_to:
        # It waits for the build that is under way already, and for nobody else.
        return None
    found = tuple(
        each
        for each in near.blockers
        if (each.reason == "snapshot" or (each.reason == "writer" and each.table_oid == table_oid))
        if each.identity in lost_to or (_is_old(each, limits) and (wall is None or each.identity in wall))
    )
    if not found:
        return None
    names = "; ".join(each.named() for each in found)
    of_table = all(each.reason == "writer" for each in found)
    return Obstacle(f"a build would wait for {names}", of_table=of_table, blockers=found)


def _is_old(blocker: Blocker, limits: Limits) -> bool:
    return (blocker.age_s or 0.0) >= limits.blocker_age_s


def _replica_behind(step: Step, near: Neighbours, limits: Limits) -> Obstacle | None:
    if limits.max_replica_lag_s is None or step.kind not in _BUILDS:
        return None
    for replica in near.replicas:
        if replica.replay_lag_s is not None and replica.replay_lag_s > limits.max_replica_lag_s:
            lag, most = human_seconds(replica.replay_lag_s), human_seconds(limits.max_replica_lag_s)
            return Obstacle(
                f"{replica} is {lag} behind, more than {most}",
                hint="wait for it, or say --max-replica-lag 0s",
            )
    return None


def _owed_to_autovacuum(table_oid: int | None, near: Neighbours, limits: Limits) -> Obstacle | None:
    """A chain of builds keeps autovacuum off its table: between two of them it gets its turn."""
    load = next((each for each in near.loads if each.oid == table_oid), None)
    if load is None:
        return None
    if load.vacuum_pid is not None:
        return Obstacle(f"pid {load.vacuum_pid} vacuums the table", of_table=True, at_most_s=limits.wait_budget_s)
    if load.dead_rows_limit is None or load.dead_rows <= load.dead_rows_limit:
        return None
    return Obstacle(
        f"autovacuum gets its turn: {load.dead_rows} dead rows, and it comes for {load.dead_rows_limit:.0f}",
        of_table=True,
        at_most_s=min(limits.wait_budget_s, _turn_s(load)),
    )


def _turn_s(load: TableLoad) -> float:
    """Long enough for the launcher to come round once and for its statistics to be written."""
    return 1.5 * load.naptime_s + 5.0
