"""What a flush came to, and the item that tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from perfctl.cache.items import title
from perfctl.cache.model import Manner, Question
from perfctl.figures import human_bytes, human_seconds
from perfctl.report import Item, Status


@dataclass(slots=True)
class Tally:
    """What one pass over all servers came to."""

    matched: int = 0
    #: or given a short life
    deleted: int = 0
    #: keys that matched and were left for their size, or because they never expire
    too_large: int = 0
    lasting: int = 0
    #: walks that began anew, for another server has the keys now
    restarts: int = 0

    @property
    def gone(self) -> int:
        """Keys that were gone already: expired, deleted by others, or given twice by SCAN."""
        return self.matched - self.deleted


@dataclass(slots=True)
class Flushed:
    """What a flush came to."""

    passes: list[Tally] = field(default_factory=list)
    #: the signal that ended it early
    stopped: int | None = None
    seconds: float = 0.0
    #: how to go on from there
    goes_on: str = ""
    #: slots that were still on their way at the end
    moving: frozenset[int] = frozenset()

    @property
    def deleted(self) -> int:
        """Keys deleted in all passes."""
        return sum(each.deleted for each in self.passes)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was written to a backup."""

    keys: int
    size_bytes: int
    path: str


def of_flush(asked: Question, manner: Manner, done: Flushed, kept: Kept | None, look_s: float) -> Item:
    """Its three numbers, and what else there is to know."""
    first, *more = done.passes
    again = sum(each.matched for each in more)
    data: dict[str, object] = {
        "matched": first.matched,
        "deleted": first.deleted,
        "gone": first.gone,
        "recreated": again,
        "passes": len(done.passes),
        "restarts": sum(each.restarts for each in done.passes),
        "look_s": round(look_s, 3),
        "flush_s": round(done.seconds, 3),
    }
    lines = [f"{first.matched:,} matched, {first.deleted:,} deleted, {first.gone:,} already gone"]
    if manner.soft_s is not None:
        within = human_seconds(manner.soft_s)
        lines = [f"{first.matched:,} matched, {first.deleted:,} expire within {within}, {first.gone:,} sooner or gone"]
        data |= {"deleted": 0, "expiring": first.deleted}
    if again:
        lines.append(f"re-created meanwhile: {again:,}, of which {sum(each.deleted for each in more):,} deleted")
    if more and more[-1].matched:
        lines.append("the last pass still found keys: somebody goes on writing them")
    if asked.smaller_bytes is not None:
        # What is left in the last pass is left.
        data["too_large"] = left = done.passes[-1].too_large
        if left:
            lines.append(f"{left:,} left, each of which takes more than {human_bytes(asked.smaller_bytes)}")
    if lasting := done.passes[-1].lasting:
        data["lasting"] = lasting
        lines.append(f"{lasting:,} left, which never expire: --include-persistent takes them too")
    if data["restarts"]:
        lines.append(f"walks that began anew for another server had the keys: {data['restarts']}")
    if done.moving:
        lines.append(f"slots still on their way, whose keys may be left: {', '.join(map(str, sorted(done.moving)))}")
    remedy = None
    if kept is not None:
        lines.append(f"backup: {kept.keys:,} keys, {human_bytes(kept.size_bytes)}")
        data |= {"backup": kept.path, "backup_keys": kept.keys, "backup_bytes": kept.size_bytes}
        remedy = f"perfctl cache restore {kept.path} brings them back"
    status = Status.FAILED if done.moving else Status.CHANGED
    return Item("cache", title(asked), status, "\n".join(lines), remedy, data)
