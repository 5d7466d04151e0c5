"""What happened between two looks at a cache's counters. A window whose counters are not those of one life is void."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from perfctl.cache.counters import Counters
from perfctl.cache.records import Vitals
from perfctl.cache.stats import rounded, total
from perfctl.figures import human_seconds
from perfctl.report import Item, Status

_SET_BACK = "the counters were set back"
DEMOTED = "a primary has become a replica"


@dataclass(frozen=True, slots=True)
class Moment:
    """One look."""

    #: of a clock that never goes backwards
    at_s: float
    vitals: tuple[Vitals, ...]
    app: Counters | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """What was counted between two looks; None where it is not told, or void."""

    seconds: float
    hits: int | None = None
    misses: int | None = None
    commands: int | None = None
    evicted: int | None = None
    expired: int | None = None
    app_hits: int | None = None
    app_misses: int | None = None
    #: why nothing is known of what happened meanwhile
    void: str = ""

    @property
    def hit_ratio(self) -> float | None:
        """The share of reads that hit; None without reads."""
        return _ratio(self.hits, self.misses)

    @property
    def app_hit_ratio(self) -> float | None:
        """The same by the application's counters."""
        return _ratio(self.app_hits, self.app_misses)

    def rate(self, count: int | None) -> float | None:
        """So many a second."""
        return None if count is None or self.seconds <= 0 else count / self.seconds


def between(before: Moment, after: Moment) -> Window:
    """What was counted between two looks; never less than nothing."""
    seconds = after.at_s - before.at_s
    app = _app(before.app, after.app)
    lives = [{(each.server, each.run_id) for each in moment.vitals} for moment in (before, after)]
    if lives[0] != lives[1]:
        return replace(app, seconds=seconds, void="a server was started anew, or another one has its place")
    if any(each.replica for each in after.vitals) and not all(each.replica for each in before.vitals):
        return replace(app, seconds=seconds, void=DEMOTED)
    # One that came after a reset and soon counts more than before would not be noticed by its figures.
    if [each.was_reset for each in before.vitals] != [each.was_reset for each in after.vitals]:
        return replace(app, seconds=seconds, void=_SET_BACK)
    ordered = [sorted(moment.vitals, key=lambda each: each.server) for moment in (before, after)]
    figures: dict[str, Callable[[Vitals], int | None]] = {
        "hits": lambda each: each.hits,
        "misses": lambda each: each.misses,
        "commands": lambda each: each.commands,
        "evicted": lambda each: each.evicted,
        "expired": lambda each: each.expired,
    }
    found: dict[str, int | None] = {}
    for name, figure in figures.items():
        steps = [_step(figure(old), figure(new)) for old, new in zip(*ordered, strict=True)]
        if any(step is not None and step < 0 for step in steps):
            return replace(app, seconds=seconds, void=_SET_BACK)
        known = [step for step in steps if step is not None]
        found[name] = sum(known) if len(known) == len(steps) else None
    return replace(
        app,
        seconds=seconds,
        hits=found["hits"],
        misses=found["misses"],
        commands=found["commands"],
        evicted=found["evicted"],
        expired=found["expired"],
    )


def added(one: Window, other: Window) -> Window:
    """Two windows as one; of a void one only the application's counters count."""
    if other.void:
        other = Window(0.0, 0, 0, 0, 0, 0, other.app_hits, other.app_misses)
    return Window(
        one.seconds + other.seconds,
        _plus(one.hits, other.hits),
        _plus(one.misses, other.misses),
        _plus(one.commands, other.commands),
        _plus(one.evicted, other.evicted),
        _plus(one.expired, other.expired),
        # A window without the application's answer leaves what the others told.
        _either(one.app_hits, other.app_hits),
        _either(one.app_misses, other.app_misses),
    )


#: nothing yet, to add windows to
NOTHING = Window(0.0, 0, 0, 0, 0, 0)


def sample(window: Window, after: Moment | None) -> dict[str, object]:
    """A window as it stands in an event and in ``data``."""
    parts = after.vitals if after is not None else ()
    return {
        "seconds": round(window.seconds, 3),
        "void": window.void or None,
        "hit_ratio": rounded(window.hit_ratio),
        "hits": window.hits,
        "misses": window.misses,
        "ops_per_s": _tenth(window.rate(window.commands)),
        "evicted_per_s": _tenth(window.rate(window.evicted)),
        "expired_per_s": _tenth(window.rate(window.expired)),
        "used_bytes": total(parts, lambda each: each.used_bytes) if parts else None,
        "keys": total(parts, lambda each: each.keys) if parts else None,
        "clients": total(parts, lambda each: each.clients) if parts else None,
        "app_hit_ratio": rounded(window.app_hit_ratio),
        "app_hits": window.app_hits,
        "app_misses": window.app_misses,
    }


def item(whole: Window, windows: int, voids: int, why_void: str, samples: Sequence[dict[str, object]]) -> Item:
    """All windows as one."""
    data = {
        **{key: value for key, value in sample(whole, None).items() if key not in ("used_bytes", "keys", "clients")},
        "windows": windows,
        "void": voids,
        "samples": list(samples),
    }
    if windows == voids:
        why = "nothing was watched" if not windows else f"all {windows:,} windows are void: {why_void}"
        return Item("cache", "window", Status.UNKNOWN, why, data={**data, "exit_code": 1})
    lines = [f"hit ratio {_said(whole.hit_ratio, whole.hits, whole.misses)} in {human_seconds(whole.seconds)}"]
    rates = {"commands": whole.commands, "evicted": whole.evicted, "expired": whole.expired}
    told = [f"{name} {whole.rate(count) or 0:,.1f}/s" for name, count in rates.items() if count is not None]
    lines += [", ".join(told)] if told else []
    if whole.app_hits is not None:
        lines.append(f"the application's {_said(whole.app_hit_ratio, whole.app_hits, whole.app_misses)}")
    if voids:
        lines.append(f"{voids:,} of {windows:,} windows are void: {why_void}")
    return Item("cache", "window", Status.OK, "\n".join(lines), data=data)


def _said(ratio: float | None, hits: int | None, misses: int | None) -> str:
    if hits is None or misses is None:
        return "not told"
    return "- (no reads)" if ratio is None else f"{ratio:.1%}: {hits:,} hits, {misses:,} misses"


def _app(before: Counters | None, after: Counters | None) -> Window:
    if before is None or after is None:
        return Window(0.0)
    hits, misses = _step(before.whole.hits, after.whole.hits), _step(before.whole.misses, after.whole.misses)
    if hits is None or misses is None or hits < 0 or misses < 0:
        # It was started anew, or its answer came from another of its processes.
        return Window(0.0)
    return Window(0.0, app_hits=hits, app_misses=misses)


def _step(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _either(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else one + other


def _ratio(hits: int | None, misses: int | None) -> float | None:
    return None if hits is None or misses is None or not hits + misses else hits / (hits + misses)


def _tenth(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
