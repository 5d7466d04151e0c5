"""``perfctl cache stats --watch``: a line an interval, and at the end the whole window. Loaded only when it runs."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from perfctl.cache import vitals, windows
from perfctl.cache.counters import Counters
from perfctl.cache.windows import Moment, Window
from perfctl.cli.session import Session
from perfctl.errors import Busy, ConnectionLost, Interrupted, PerfctlError, StopRequested, Unreachable
from perfctl.figures import human_bytes
from perfctl.report import Item, Report
from perfctl.servers.deployment import Deployment
from perfctl.servers.redis import Node

#: samples that the report holds at most
_KEPT = 10_000
#: lines after which a terminal is told again what the columns are
_HEAD_EVERY = 20
#: how long a last look may take once a signal has ended the watch
_LAST_S = 1.0

_HEAD = (
    f"{'time':<8} {'hit ratio':>9} {'ops/s':>9} {'memory':>8} {'keys':>12} "
    f"{'evicted/s':>9} {'expired/s':>9} {'clients':>7}"
)


class Watch:
    """Looks at the counters again and again."""

    def __init__(
        self, session: Session, deployment: Deployment, nodes: Sequence[Node], ask: Callable[[], Counters | None]
    ) -> None:
        self._session = session
        self._deployment = deployment
        self._nodes = list(nodes)
        self._ask = ask
        self._app = session.target.app is not None and session.target.app.cache_metrics is not None
        self._lines = session.options.format not in ("json", "ndjson")
        self._told = 0
        self._whole = windows.NOTHING
        self._voids = 0
        self._why_void = ""
        self._samples: deque[dict[str, object]] = deque(maxlen=_KEPT)

    def run(self, facts: Sequence[Item], every_s: float, times: int | None, notes: Sequence[str]) -> Report:
        """Tell a line each interval; the report of all of it, also when a signal ends it."""
        error: PerfctlError | None = None
        try:
            self._go(every_s, times)
        except PerfctlError as ended:
            # What was seen until then is told all the same.
            error = ended
        except StopRequested as stopped:
            if self._lines and sys.stdout.isatty():
                # A terminal shows ^C where the next line would begin.
                sys.stdout.write("\n")
            error = Interrupted(stopped.signum, f"stopped by a signal after {self._told:,} samples")
        item = windows.item(self._whole, self._told, self._voids, self._why_void, list(self._samples))
        return self._session.report([*facts, item], notes=notes, error=error)

    def _go(self, every_s: float, times: int | None) -> None:
        before = self._look_again()
        began = time.monotonic()
        tick = 0
        while times is None or self._told < times:
            # By the clock, so that lines do not drift; looks that took longer than an interval leave lines out.
            tick = max(tick + 1, int((time.monotonic() - began) / every_s))
            try:
                time.sleep(max(0.0, began + tick * every_s - time.monotonic()))
            except StopRequested:
                self._look_last(before)
                raise
            try:
                after = self._look_again()
                if self._demoted(after):
                    # Its counters go on, and are not those of the cluster any more.
                    self._lose()
                    self._tell(Window(after.at_s - before.at_s, void=windows.DEMOTED), None)
                    before = self._look_again()
                    continue
            except (Unreachable, Busy) as error:
                self._lose()
                self._tell(Window(every_s, void=error.message), None)
                # The last look stays: whoever comes back as the same server has counted on.
                continue
            self._tell(windows.between(before, after), after)
            before = after

    def _demoted(self, seen: Moment) -> bool:
        return self._deployment.kind != "standalone" and any(each.replica for each in seen.vitals)

    def _look(self) -> Moment:
        """Raises Unreachable, Denied, Busy."""
        if not self._nodes:
            # Of one server the address is known, and of a cluster or behind Sentinels somebody else may have its place.
            primaries = self._deployment.primaries()
            self._nodes = [self._deployment.open(each.address) for each in primaries]
        seen = vitals.figures(self._nodes, self._deployment.seeds.login.db)
        return Moment(time.monotonic(), seen, self._ask())

    def _look_again(self) -> Moment:
        """A look, with new connections where one was closed: a server closes those that were idle for long."""
        try:
            return self._look()
        except ConnectionLost:
            self._lose()
            return self._look()

    def _look_last(self, before: Moment) -> None:
        """What was counted in the interval that a signal has ended, as far as the servers tell it at once."""
        try:
            for node in self._nodes:
                node.answer_within_s = _LAST_S
            after = self._look() if self._nodes else None
        except PerfctlError:
            return
        if after is not None and not self._demoted(after):
            self._tell(windows.between(before, after), after)

    def _lose(self) -> None:
        """Who is there is asked anew: after a failover it is somebody else."""
        for node in self._nodes:
            node.close()
        self._nodes = []

    def _tell(self, window: Window, after: Moment | None) -> None:
        if window.void:
            self._voids += 1
            self._why_void = self._why_void or window.void
        self._whole = windows.added(self._whole, window)
        facts = {"at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **windows.sample(window, after)}
        if self._session.streams_events:
            self._session.event(event="sample", **facts)
        elif self._lines:
            if self._told == 0 or (sys.stdout.isatty() and self._told % _HEAD_EVERY == 0):
                sys.stdout.write(_HEAD + (f" {'app ratio':>9}" if self._app else "") + "\n")
            sys.stdout.write(self._line(facts) + "\n")
            sys.stdout.flush()
        else:
            self._samples.append(facts)
        self._told += 1

    def _line(self, facts: dict[str, object]) -> str:
        from perfctl.render.plain import escape

        at = time.strftime("%H:%M:%S")
        if facts["void"]:
            return f"{at:<8} void: {escape(str(facts['void']))}"
        shown = [
            f"{_share(facts['hit_ratio']):>9}",
            f"{_number(facts['ops_per_s']):>9}",
            f"{human_bytes(facts['used_bytes']) if isinstance(facts['used_bytes'], int) else '?':>8}",
            f"{_number(facts['keys']):>12}",
            f"{_number(facts['evicted_per_s']):>9}",
            f"{_number(facts['expired_per_s']):>9}",
            f"{_number(facts['clients']):>7}",
        ]
        if self._app:
            shown.append(f"{_share(facts['app_hit_ratio']):>9}")
        return " ".join([f"{at:<8}", *shown])


def _share(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, float) else "-"


def _number(value: object) -> str:
    return "?" if not isinstance(value, int | float) else f"{value:,.0f}"
