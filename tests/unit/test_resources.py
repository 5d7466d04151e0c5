"""How much memory and how many workers a build gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfctl.indexes.model import Estimate
from perfctl.indexes.resources import default_jobs, settings
from tests.unit.fix_indexes import SERVER

MB = 1024
GB = 1024 * MB


def chosen(
    size_mb: float,
    *,
    method: str = "btree",
    jobs: int = 1,
    cores: int | None = 8,
    memory_kb: int = 64 * MB,
    workers: int = 2,
    buffers_kb: int = 4 * GB,
    version_num: int = 180002,
) -> dict[str, str]:
    """What a build of that size gets."""
    server = replace(
        SERVER,
        maintenance_work_mem_kb=memory_kb,
        max_parallel_maintenance_workers=workers,
        shared_buffers_kb=buffers_kb,
        version_num=version_num,
    )
    guess = Estimate(int(size_mb * MB * MB), 1.0, 1.0)
    return settings(method, guess, server, jobs=jobs, cores=cores)


@pytest.mark.parametrize(("cores", "jobs"), [(None, 1), (0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (16, 8), (64, 8)])
def test_half_of_the_cores_build_one_to_eight(cores: int | None, jobs: int) -> None:
    assert default_jobs(cores) == jobs


def test_a_small_build_gets_enough_for_its_workers() -> None:
    # Leader and two workers need 32 MB each, however small the index.
    assert chosen(1) == {"maintenance_work_mem": "96MB"}


def test_a_server_with_enough_memory_keeps_its_own() -> None:
    assert chosen(10, memory_kb=512 * MB) == {}


def test_a_large_build_sorts_in_one_go() -> None:
    assert chosen(400)["maintenance_work_mem"] == "600MB"


def test_no_build_gets_more_than_a_gigabyte() -> None:
    assert chosen(40_000, buffers_kb=64 * GB)["maintenance_work_mem"] == "1024MB"


def test_all_jobs_together_get_half_of_shared_buffers() -> None:
    assert chosen(40_000, buffers_kb=2 * GB, jobs=4)["maintenance_work_mem"] == "256MB"


def test_a_small_server_keeps_what_it_is_set_to() -> None:
    assert "maintenance_work_mem" not in chosen(40_000, buffers_kb=128 * MB)
    # Its owner has allowed more than half of shared_buffers: that is not taken back.
    assert "maintenance_work_mem" not in chosen(40_000, buffers_kb=128 * MB, memory_kb=256 * MB)


@pytest.mark.parametrize(("cores", "jobs", "workers"), [(1, 1, "0"), (2, 1, "1"), (4, 2, "1"), (2, 2, "0")])
def test_workers_are_as_many_as_cores_go_round(cores: int, jobs: int, workers: str) -> None:
    assert chosen(1, cores=cores, jobs=jobs)["max_parallel_maintenance_workers"] == workers


def test_workers_stay_the_servers_where_there_are_cores_enough() -> None:
    assert "max_parallel_maintenance_workers" not in chosen(1, cores=16)


def test_workers_stay_the_servers_where_the_cores_are_not_known() -> None:
    assert "max_parallel_maintenance_workers" not in chosen(1, cores=None)


def test_a_server_without_parallel_builds_gets_none() -> None:
    assert chosen(1, workers=0) == {}


@pytest.mark.parametrize(
    ("method", "version_num", "parallel"),
    [
        ("gin", 170000, False), ("gin", 180000, True), ("brin", 160000, False), ("brin", 170000, True),
        ("btree", 130000, True), ("gist", 180000, False), ("hash", 180000, False),
    ],
)  # fmt: skip
def test_workers_are_left_alone_where_a_method_makes_no_use_of_them(
    method: str, version_num: int, parallel: bool
) -> None:
    found = chosen(1, method=method, version_num=version_num, cores=1)
    assert ("max_parallel_maintenance_workers" in found) is parallel
