"""What a sample of keys says of all keys.

A key that was looked at stands for ``held / read`` keys of its group; where groups were chosen at random, those that
were not looked at are taken to be as the chosen ones (a ratio estimate: keys with the feature over keys, both summed
over the chosen slots). Its variance is that between slots, because the keys of one slot may be alike: a hash tag puts
them there together, and ten keys of a slot then tell hardly more than one.

Sources: W. G. Cochran, "Sampling Techniques", 3rd edition, chapters 5 (stratified), 6 (ratio) and 11 (two stages: the
variance between first-stage units holds that within them). The interval is Wilson's with the effective size of the
sample, that of a simple random sample with the same variance (E. L. Korn and B. I. Graubard, Survey Methodology 24,
1998).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from perfctl.cache.records import TTL_BUCKETS, FamilyTally, Group, Sample, Stratum
from perfctl.cache.share import interval

#: how many keys of a group have a feature
Count = Callable[[Group], int]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of keys, and between what the truth lies in 95 of 100 samples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.1%}"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"

    @property
    def data(self) -> dict[str, float]:
        """As it stands in a report."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True, slots=True)
class Kind:
    """Keys of one kind: a family, or all."""

    keys: float
    #: None where sizes are not known
    size_bytes: float | None
    #: shares of the keys of this kind, by TTL_BUCKETS; empty where they are not known
    ttls: Mapping[str, float]
    types: Mapping[str, float]
    #: the share of these keys of which the size is known
    sized: float = 1.0


def renamed(sample: Sample, names: Mapping[bytes, bytes]) -> Sample:
    """The sample with its families under other names; those of one name together."""
    return replace(
        sample,
        strata=tuple(
            replace(stratum, groups=tuple(replace(group, families=_merged(group, names)) for group in stratum.groups))
            for stratum in sample.strata
        ),
    )


def _merged(group: Group, names: Mapping[bytes, bytes]) -> Mapping[bytes, FamilyTally]:
    found: defaultdict[bytes, list[FamilyTally]] = defaultdict(list)
    for family, tally in group.families.items():
        found[names[family]].append(tally)
    return {name: each[0] if len(each) == 1 else merged(each) for name, each in found.items()}


def merged(tallies: Iterable[FamilyTally]) -> FamilyTally:
    """Several counted as one."""
    every = list(tallies)
    types: Counter[str] = Counter()
    for each in every:
        types.update(each.types)
    return FamilyTally(
        sum(each.keys for each in every),
        sum(each.sized for each in every),
        sum(each.size_bytes for each in every),
        tuple(map(sum, zip(*(each.ttls for each in every), strict=True))) or (0,) * len(TTL_BUCKETS),
        types,
    )


def weight(stratum: Stratum, group: Group) -> float:
    """How many keys each key that was looked at in a group stands for."""
    return group.held / group.read * stratum.held / sum(each.held for each in stratum.groups)


def amounts(sample: Sample) -> dict[bytes, float]:
    """How many keys each family has, the largest first."""
    sums: defaultdict[bytes, float] = defaultdict(float)
    for stratum in sample.strata:
        for group in stratum.groups:
            each = weight(stratum, group)
            for family, tally in group.families.items():
                sums[family] += each * tally.keys
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def kinds(sample: Sample, wanted: Iterable[bytes]) -> dict[bytes, Kind]:
    """What is known of some families; all of them may be more than is good to keep."""
    sums = {family: _Weighted() for family in wanted}
    for stratum in sample.strata:
        for group in stratum.groups:
            each = weight(stratum, group)
            for family in sums.keys() & group.families.keys():
                sums[family].add(group.families[family], each)
    return {family: summed.kind() for family, summed in sums.items()}


def family_share(sample: Sample, family: bytes) -> Share:
    """The share of all keys that are of a family."""
    return share(sample, _keys_of(family))


def whole(sample: Sample) -> Kind:
    """All keys."""
    summed = _Weighted()
    for stratum in sample.strata:
        for group in stratum.groups:
            summed.add(merged(group.families.values()), weight(stratum, group))
    return summed.kind()


def share(sample: Sample, count: Count) -> Share:
    """The share of all keys that have a feature, of which ``count`` tells how many keys of a group have it."""
    if not sample.keys:
        return Share(0.0, 0.0, 0.0)
    total, variance = 0.0, 0.0
    for stratum in sample.strata:
        seen, spread = _stratum(stratum, count)
        total += seen
        variance += spread
    value = total / sample.keys
    if sample.complete:
        return Share(value, value, value)
    low, high = interval(value * (size := _effective(sample, value, variance)), size)
    return Share(value, min(low, value), max(high, value))


def _stratum(stratum: Stratum, count: Count) -> tuple[float, float]:
    """Keys with the feature, and the variance of that figure."""
    groups = stratum.groups
    held = sum(each.held for each in groups)
    if not held:
        return 0.0, 0.0
    parts = [(each, count(each) / each.read) for each in groups if each.read]
    ratio = sum(group.held * part for group, part in parts) / held
    if stratum.certain:
        inside = (
            group.held**2 * (1 - min(1.0, group.read / group.held)) * part * (1 - part) / (group.read - 1)
            for group, part in parts
            if group.read > 1
        )
        return stratum.held * ratio, sum(inside)
    if len(parts) < 2:
        # One slot says nothing of how slots differ: the worst is assumed.
        return stratum.held * ratio, stratum.held**2 / 4
    spread = sum((group.held * (part - ratio)) ** 2 for group, part in parts) / (len(parts) - 1)
    return stratum.held * ratio, (stratum.held / held) ** 2 * len(parts) * spread


def _effective(sample: Sample, value: float, variance: float) -> float:
    """The size of the simple random sample that would be as good; never taken for larger than the sample was."""
    if variance > 0 and 0 < value < 1:
        return max(1.0, min(float(sample.read), value * (1 - value) * sample.keys**2 / variance))
    # Nothing varied. Slots that are all alike tell as much as there are slots.
    random = [each for each in sample.strata if not each.certain]
    return float(sum(len(each.groups) for each in random)) if random else float(sample.read)


def _keys_of(family: bytes) -> Count:
    def count(group: Group) -> int:
        tally = group.families.get(family)
        return tally.keys if tally is not None else 0

    return count


class _Weighted:
    """Tallies summed with their weights."""

    def __init__(self) -> None:
        self.keys = 0.0
        self._sized = 0.0
        self._size = 0.0
        self._ttls = [0.0] * len(TTL_BUCKETS)
        self._types: defaultdict[str, float] = defaultdict(float)

    def add(self, tally: FamilyTally, each: float) -> None:
        """Keys of which each stands for ``each`` keys."""
        self.keys += each * tally.keys
        self._sized += each * tally.sized
        self._size += each * tally.size_bytes
        for place, keys in enumerate(tally.ttls):
            self._ttls[place] += each * keys
        for name, keys in tally.types.items():
            self._types[name] += each * keys

    def kind(self) -> Kind:
        """What they come to."""
        timed, typed = sum(self._ttls), sum(self._types.values())
        return Kind(
            self.keys,
            self._size / self._sized * self.keys if self._sized else None,
            {name: keys / timed for name, keys in zip(TTL_BUCKETS, self._ttls, strict=True)} if timed else {},
            {name: keys / typed for name, keys in sorted(self._types.items(), key=lambda each: -each[1])},
            min(1.0, self._sized / self.keys) if self.keys else 1.0,
        )
