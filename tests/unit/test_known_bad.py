"""Which minor releases a build is refused or warned for, and which release mends them."""

from __future__ import annotations

import pytest

from perfctl.indexes.known_bad import FAULTS, Fault, fault, mended_in


def refused(version_num: int, method: str = "btree", *, concurrent: bool = True) -> str | None:
    """The release that a refused build asks for; None for one that is not refused."""
    found = fault(version_num, method=method, concurrent=concurrent, refuse=True)
    return mended_in(version_num, found) if found else None


def warned(version_num: int, method: str = "btree", *, concurrent: bool = True) -> str | None:
    """The release that a warning asks for; None without one."""
    found = fault(version_num, method=method, concurrent=concurrent, refuse=False)
    return mended_in(version_num, found) if found else None


@pytest.mark.parametrize(
    ("version_num", "release"),
    [
        (130000, "13.5"), (130004, "13.5"), (130005, None), (130023, None),
        (140000, "14.4"), (140003, "14.4"), (140004, None),
        (150000, None), (160000, None), (170000, None), (180000, None), (190000, None),
    ],
)  # fmt: skip
def test_a_server_whose_concurrent_builds_miss_rows_is_refused(version_num: int, release: str | None) -> None:
    assert refused(version_num) == release


@pytest.mark.parametrize("version_num", [130000, 130004, 140000, 140003])
def test_a_plain_build_is_never_refused(version_num: int) -> None:
    assert refused(version_num, concurrent=False) is None


@pytest.mark.parametrize("method", ["gin", "gist", "brin", "hash"])
def test_a_concurrent_build_is_refused_whatever_its_method(method: str) -> None:
    assert refused(140003, method) == "14.4"


@pytest.mark.parametrize(
    ("version_num", "method", "release"),
    [
        (150008, "btree", "15.9"), (150009, "btree", None), (160004, "btree", "16.5"), (170000, "btree", "17.1"),
        (180001, "gin", "18.2"), (180002, "gin", None), (180001, "btree", None),
        (150012, "brin", "15.13"), (170004, "brin", "17.5"), (170005, "brin", None),
        (160000, "gist", "16.5"), (150004, "gist", "15.9"), (160005, "gist", None),
    ],
)  # fmt: skip
def test_a_rarer_fault_is_a_warning(version_num: int, method: str, release: str | None) -> None:
    assert warned(version_num, method) == release


def test_a_plain_build_is_warned_too() -> None:
    assert warned(180001, "gin", concurrent=False) == "18.2"


@pytest.mark.parametrize("each", FAULTS, ids=[each.source for each in FAULTS])
def test_every_fault_names_its_source_and_whole_ranges(each: Fault) -> None:
    assert "release notes" in each.source
    assert all(first <= last for first, last in each.minors.values())
