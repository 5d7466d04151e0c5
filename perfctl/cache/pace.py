"""How large a page is and how long to wait between two, so that nobody notices a walk."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

FLOOR = 100
CEILING = 1000

#: What one page may take of the server's time.
PAGE_BUDGET_S = 0.0015
#: Changes are slow: single pages tell more of the machine's scheduler than of the server.
_EVERY_S = 1.0
_STEP = 1.5
#: The pause between pages under pressure, and the least that is worth a sleep.
_PAUSE_S = (0.002, 0.2)
QUANTUM_S = 0.005


@dataclass(slots=True)
class PageSize:
    """COUNT, moved by the median time of the pages of the last second."""

    count: int
    #: a fixed COUNT was asked for
    fixed: bool = False
    most: int = CEILING
    _since: float | None = None
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=200))

    def took(self, seconds: float, now: float) -> None:
        """A page took so long, the way there and back left out."""
        self._times.append(seconds)
        self._since = now if self._since is None else self._since
        if self.fixed or now - self._since < _EVERY_S:
            return
        usual = median(self._times)
        if usual > PAGE_BUDGET_S:
            self.count = min(self.most, max(FLOOR, round(self.count / _STEP)))
        elif usual < PAGE_BUDGET_S / 2:
            self.count = min(self.most, round(self.count * _STEP))
        self._since = now
        self._times.clear()


def excess_s(idle: Sequence[float], now: Sequence[float]) -> float:
    """How much longer than before the flush an answer takes: nine of ten are at least as quick."""
    return _p90(now) - _p90(idle) if idle and now else 0.0


def _p90(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.9)]


def next_pause_s(pause_s: float, excess: float, budget_s: float) -> float:
    """The pause between pages: doubled while answers take longer than the budget allows, halved while they do not."""
    if excess > budget_s:
        return min(_PAUSE_S[1], max(_PAUSE_S[0], pause_s * 2))
    return pause_s / 2 if pause_s > _PAUSE_S[0] else 0.0


@dataclass(slots=True)
class Bucket:
    """At most ``rate`` keys a second, in sleeps that are long enough to be kept."""

    rate: float | None
    _free_at: float | None = None

    def wait_s(self, keys: int, now: float) -> float:
        """How long to wait now that so many keys went."""
        if self.rate is None:
            return 0.0
        self._free_at = max(now, self._free_at if self._free_at is not None else now) + keys / self.rate
        owed = self._free_at - now
        return owed if owed >= QUANTUM_S else 0.0
