"""What the demo has shown: the queries compared, the promises held or broken. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from perfctl.demo.measure import Timing
from perfctl.demo.traffic import Traffic
from perfctl.hotqueries.model import HotQuery
from perfctl.report import Item, Report, Status

#: An application's user does not notice a pause below this.
STALL_LIMIT_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One query before and after."""

    query: HotQuery
    before: Timing
    after: Timing

    @property
    def ratio(self) -> float:
        """How many times faster it has become."""
        return self.before.median_ms / max(self.after.median_ms, 1e-6)

    @property
    def index_is_used(self) -> bool:
        """Whether the server finds the rows by the index that was made for it."""
        return self.query.index in self.after.indexes

    def item(self) -> Item:
        """The query as one item of the report."""
        detail = f"{say_ms(self.before.median_ms)} before, {say_ms(self.after.median_ms)} after ({self.ratio:.1f}x)"
        if not self.index_is_used:
            detail += f'; "{self.query.index}" is not used: {", ".join(self.after.scans)}'
        data = {
            "purpose": self.query.purpose,
            "index": self.query.index,
            "index_used": self.index_is_used,
            "before_ms": round(self.before.median_ms, 4),
            "after_ms": round(self.after.median_ms, 4),
            "ratio": round(self.ratio, 2),
            "before_scans": list(self.before.scans),
            "after_scans": list(self.after.scans),
            "before_runs": self.before.runs,
            "after_runs": self.after.runs,
        }
        return Item("query", self.query.name, Status.OK if self.index_is_used else Status.FINDING, detail, None, data)


@dataclass(frozen=True, slots=True)
class Shown:
    """What each step left."""

    plan: Report
    apply: Report
    traffic: Traffic
    verify: Report
    queries: tuple[Compared, ...]
    rollback: Report
    absent: Report

    @property
    def planned(self) -> int:
        """Indexes that the plan names."""
        return counted(self.plan, Status.PLANNED)

    @property
    def built(self) -> int:
        """Indexes that were built."""
        return counted(self.apply, Status.CHANGED)

    @property
    def verified(self) -> int:
        """Indexes of which everything holds."""
        return counted(self.verify, Status.OK)

    @property
    def used(self) -> int:
        """Queries whose index is used."""
        return sum(compared.index_is_used for compared in self.queries)

    @property
    def gone(self) -> int:
        """Indexes that the rollback took off."""
        return counted(self.rollback, Status.CHANGED)

    @property
    def median_ratio(self) -> float:
        """The middle query's speed-up."""
        return median(compared.ratio for compared in self.queries)

    @property
    def p95_before_ms(self) -> float:
        """95 of 100 queries took no longer than this before."""
        return p95([compared.before.median_ms for compared in self.queries])

    @property
    def p95_after_ms(self) -> float:
        """… and after."""
        return p95([compared.after.median_ms for compared in self.queries])

    def promises(self, left_behind: Sequence[str] = ()) -> list[Item]:
        """One item a promise; a broken one is a finding."""
        t = self.traffic
        held = (
            ("built", 0 < self.built == self.planned, f"{self.built} of {self.planned} indexes built"),
            ("nobody failed", t.failed == 0, f"{t.failed} of {t.requests} requests failed{_first(t.errors)}"),
            ("nobody waited", t.longest_stall_ms <= STALL_LIMIT_MS, f"longest stall {say_ms(t.longest_stall_ms)}"),
            ("verified", _all_ok(self.verify, self.built), f"{self.verified} of {self.built} indexes verified"),
            ("used", self.used == len(self.queries), f"{self.used} of {len(self.queries)} queries use their index"),
            (
                "gone again",
                self.gone == self.built and _all_ok(self.absent, self.built),
                f"{self.gone} of {self.built} indexes taken off, {counted(self.absent, Status.OK)} proven absent",
            ),
            ("nothing left", not left_behind, f"left behind: {', '.join(left_behind) or 'nothing'}"),
        )
        return [Item("promise", name, Status.OK if kept else Status.FINDING, text) for name, kept, text in held]

    def figures(self) -> Item:
        """What it all came to, in figures."""
        data = {
            "indexes": self.built,
            "requests": self.traffic.requests,
            "failed_requests": self.traffic.failed,
            "longest_stall_ms": self.traffic.longest_stall_ms,
            "median_ratio": round(self.median_ratio, 2),
            "p95_before_ms": round(self.p95_before_ms, 3),
            "p95_after_ms": round(self.p95_after_ms, 3),
        }
        return Item("verdict", "demo", Status.OK, self.speed(), None, data)

    def speed(self) -> str:
        """The speed-up in words."""
        ratio = self.median_ratio
        return (
            f"median {ratio:.{1 if ratio < 10 else 0}f}x faster; p95 {say_ms(self.p95_before_ms)} before, "
            f"{say_ms(self.p95_after_ms)} after"
        )


def counted(report: Report, status: Status) -> int:
    """How many items of the report have the status."""
    return report.counts.get(str(status), 0)


def p95(values: Sequence[float]) -> float:
    """The 95th percentile by nearest rank, which is one of the values."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def say_ms(ms: float) -> str:
    """Milliseconds with about three digits."""
    return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:,.0f} ms"


def _all_ok(report: Report, expected: int) -> bool:
    return counted(report, Status.OK) == len(report.items) == expected


def _first(errors: Sequence[str]) -> str:
    return f": {errors[0]}" if errors else ""
