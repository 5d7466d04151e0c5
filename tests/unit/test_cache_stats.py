"""What a cache's figures say, from plain values: items, windows, and what a sample tells of the whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from perfctl.cache import breakdown, criterion, stats, windows
from perfctl.cache.counters import Counters, Reads, read
from perfctl.cache.estimate import amounts, family_share, kinds, renamed, share, whole
from perfctl.cache.gather import Biggest, Gatherer
from perfctl.cache.records import (
    TTL_BUCKETS,
    BigKey,
    FamilyTally,
    Group,
    Sample,
    Seen,
    SlowCommand,
    SlowLog,
    Stratum,
    Unread,
    Vitals,
)
from perfctl.cache.sampling import walks_by_slot
from perfctl.cache.slots import choose
from perfctl.cache.vitals import vitals_of
from perfctl.cache.windows import Moment, between
from perfctl.errors import Denied
from perfctl.report import Item, Status

FACTS = {
    "run_id": "one", "uptime_in_seconds": "267840", "keyspace_hits": "300", "keyspace_misses": "100",
    "total_commands_processed": "1000", "used_memory": str(50 << 20), "used_memory_peak": str(60 << 20),
    "maxmemory": str(100 << 20), "used_memory_overhead": str(10 << 20), "used_memory_dataset": str(40 << 20),
    "mem_fragmentation_ratio": "1.20", "mem_fragmentation_bytes": str(10 << 20), "allocator_frag_ratio": "1.05",
    "maxmemory_policy": "allkeys-lru", "evicted_keys": "7", "expired_keys": "9", "expired_stale_perc": "2.50",
    "connected_clients": "3", "blocked_clients": "1", "maxclients": "10000", "rejected_connections": "0",
    "db0": "keys=42,expires=1,avg_ttl=0",
}  # fmt: skip


def vitals(server: str = "a:1", **facts: str) -> Vitals:
    return vitals_of(server, {**FACTS, **facts}, 0)


def items(*parts: Vitals, slow: tuple[SlowLog, ...] = ()) -> dict[str, Item]:
    return {item.name: item for item in stats.server(Seen(parts, slow))}


def test_one_server_in_words() -> None:
    found = {name: item.detail for name, item in items(vitals()).items()}
    assert found == {
        "hit ratio": "75.0%: 300 hits, 100 misses, since the server's start 3.1 days ago",
        "memory": "50 MB, at most 60 MB, 50.0% of the limit of 100 MB\n40 MB keys and values, 10 MB overhead",
        "fragmentation": "ratio 1.2, 10 MB; within the allocator 1.05",
        "policy": "allkeys-lru",
        "evicted": "7 keys, since the server's start 3.1 days ago",
        "expired": "9 keys, since the server's start 3.1 days ago\n"
        "2.5% of the keys with TTL have expired and still take memory",
        "clients": "3 connected of at most 10,000, 1 blocked, 0 turned away",
    }


def test_no_reads_are_no_ratio() -> None:
    item = items(vitals(keyspace_hits="0", keyspace_misses="0"))["hit ratio"]
    assert (item.data["hit_ratio"], item.detail) == (None, "no reads since the server's start 3.1 days ago")


def test_a_ratio_of_several_servers_is_that_of_the_sums() -> None:
    item = items(vitals(), vitals("b:2", keyspace_hits="0", keyspace_misses="1600", uptime_in_seconds="60"))[
        "hit ratio"
    ]
    assert item.data["hit_ratio"] == 0.15
    assert "2 primaries: 0.0% (b:2) to 75.0% (a:1)" in item.detail
    assert "since the servers' start 1 min to 3.1 days ago" in item.detail
    assert item.data["nodes"]["b:2"] == {"hits": 0, "misses": 1600, "uptime_s": 60}


@pytest.mark.parametrize("hidden", ["keyspace_hits", "used_memory", "evicted_keys", "connected_clients"])
def test_what_a_server_does_not_tell_is_unknown(hidden: str) -> None:
    facts = {name: value for name, value in FACTS.items() if name != hidden}
    found = stats.server(Seen((vitals_of("a:1", facts, 0), vitals("b:2"))))
    assert [item.status for item in found].count(Status.UNKNOWN) == 1


@pytest.mark.parametrize(
    ("used", "ratio", "wasted", "said"),
    [
        (1 << 20, "13.7", 11 << 20, "says nothing with less than 5.0 MB in use (ratio 13.7)"),
        (50 << 20, "1.8", 40 << 20, "high"),
        (50 << 20, "1.8", 9 << 20, "ratio 1.8"),
        (50 << 20, "0.6", -20 << 20, "swapped out"),
    ],
)
def test_fragmentation_alarms_only_where_it_means_something(used: int, ratio: str, wasted: int, said: str) -> None:
    part = vitals(used_memory=str(used), mem_fragmentation_ratio=ratio, mem_fragmentation_bytes=str(wasted))
    item = items(part)["fragmentation"]
    assert said in item.detail
    assert item.data["high"] == (said == "high")


def test_the_slowest_of_all_servers() -> None:
    logs = tuple(SlowLog(f"{n}:1", 1, (SlowCommand("SORT", 1.0 + n, 1_700_000_000),)) for n in range(3))
    item = items(vitals(), slow=logs)["slow log"]
    assert item.detail.splitlines()[1] == "3.0 ms SORT at 2023-11-14 22:13:20Z on 2:1"
    assert item.data["length"] == 3


def test_a_denial_is_an_item_with_its_cure() -> None:
    item = stats.unread(Unread.of("slow log", Denied("NOPERM", hint="ACL SETUSER …")))
    assert (item.status, item.exit_code, item.remedy) == (Status.UNKNOWN, 7, "ACL SETUSER …")


# --- windows


def moment(at_s: float, *parts: Vitals, app: Reads | None = None) -> Moment:
    return Moment(at_s, parts, None if app is None else Counters(app))


def test_a_window_counts_what_was_added() -> None:
    later = vitals(keyspace_hits="309", keyspace_misses="101", total_commands_processed="1030", evicted_keys="9")
    found = between(moment(0, vitals(), app=Reads(5, 5)), moment(2, later, app=Reads(8, 6)))
    assert (found.hit_ratio, found.app_hit_ratio, found.rate(found.commands), found.rate(found.evicted)) == (
        0.9, 0.75, 15, 1
    )  # fmt: skip
    assert not found.void


def test_a_window_without_reads_has_no_ratio() -> None:
    assert between(moment(0, vitals()), moment(1, vitals())).hit_ratio is None


@pytest.mark.parametrize(
    "later",
    [
        vitals(keyspace_hits="5"),
        vitals(total_commands_processed="5"),
        vitals(run_id="two", keyspace_hits="400"),
        vitals("b:2", keyspace_hits="400"),
        vitals(keyspace_hits="400", **{"cmdstat_config|resetstat": "calls=1"}),
        vitals(keyspace_hits="400", role="slave"),
    ],
)
def test_counters_of_another_life_make_a_window_void(later: Vitals) -> None:
    found = between(moment(0, vitals()), moment(1, later))
    assert found.void
    assert (found.hits, found.misses, found.hit_ratio) == (None, None, None)


@pytest.mark.parametrize(
    ("told", "reset"),
    [
        ("calls=1,usec=9,usec_per_call=9.00,rejected_calls=0,failed_calls=0", True),
        ("calls=2,usec=9,usec_per_call=4.50,rejected_calls=3,failed_calls=1", True),
        ("calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0", False),
        ("calls=1,usec=9,usec_per_call=9.00,rejected_calls=0,failed_calls=1", False),
        ("calls=x", False),
    ],
)
def test_a_reset_that_was_denied_is_none(told: str, reset: bool) -> None:
    assert vitals(**{"cmdstat_config|resetstat": told}).was_reset is reset


def test_a_replica_that_was_one_before_is_watched() -> None:
    one = vitals(role="slave")
    assert not between(moment(0, one), moment(1, one)).void


def test_a_slow_log_that_was_read_in_part_says_so() -> None:
    log = SlowLog("a:1", 3000, (SlowCommand("SORT", 1.0, 1_700_000_000),), 2000)
    assert items(vitals(), slow=(log,))["slow log"].detail.startswith("3,000 entries, the slowest of the newest 2,000:")


def test_an_application_that_was_started_anew_has_no_window() -> None:
    found = between(moment(0, vitals(), app=Reads(5, 5)), moment(1, vitals(), app=Reads(1, 0)))
    assert (found.void, found.app_hits, found.app_hit_ratio) == ("", None, None)


def test_the_whole_leaves_void_windows_out() -> None:
    steps = [
        moment(0, vitals()),
        moment(1, vitals(keyspace_hits="303", keyspace_misses="101")),
        moment(2, vitals(keyspace_hits="1", keyspace_misses="0")),
        moment(3, vitals(keyspace_hits="4", keyspace_misses="1")),
    ]
    found = [between(one, other) for one, other in pairwise(steps)]
    total = windows.NOTHING
    for each in found:
        total = windows.added(total, each)
    assert (total.hits, total.misses, total.seconds, total.hit_ratio) == (6, 2, 2, 0.75)
    item = windows.item(total, 3, 1, "set back", [])
    assert (item.status, item.detail.splitlines()[0]) == (Status.OK, "hit ratio 75.0%: 6 hits, 2 misses in 2.0 s")
    assert item.detail.splitlines()[-1] == "1 of 3 windows are void: set back"


def test_nothing_but_void_windows_is_unknown() -> None:
    assert windows.item(windows.NOTHING, 2, 2, "gone", []).status is Status.UNKNOWN


# --- the criterion


@pytest.mark.parametrize(("least", "status"), [(0.75, Status.OK), (0.76, Status.FINDING)])
def test_the_servers_hit_ratio_against_the_criterion(least: float, status: Status) -> None:
    item = criterion.by_servers(least, [vitals()])
    assert item.status is status
    assert "by the server's own counters since the server's start 3.1 days ago" in item.detail


def test_a_criterion_without_reads_is_unknown() -> None:
    assert criterion.by_application(0.7, Counters(Reads(0, 0))).status is Status.UNKNOWN
    assert criterion.by_servers(0.7, [vitals(keyspace_hits="0", keyspace_misses="0")]).status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("hits", "misses", "said"),
    [
        (69_999, 30_001, "69.999%: 69,999 hits, 30,001 misses; at least 70.000% is"),
        (70_000, 30_000, "70.0%: 70,000 hits, 30,000 misses; at least 70.0% is"),
        (6, 4, "60.0%: 6 hits, 4 misses; at least 70.0% is"),
    ],
)
def test_a_ratio_just_below_the_criterion_reads_as_below_it(hits: int, misses: int, said: str) -> None:
    for item in (
        criterion.by_application(0.7, Counters(Reads(hits, misses))),
        criterion.by_servers(0.7, [vitals(keyspace_hits=str(hits), keyspace_misses=str(misses))]),
    ):
        assert item.detail.startswith(said)


# --- samples


def tally(keys: int, size: int = 100, kind: str = "string") -> FamilyTally:
    ttls = [0] * len(TTL_BUCKETS)
    ttls[0] = keys
    return FamilyTally(keys, keys, keys * size, tuple(ttls), {kind: keys})


def group(held: int, read: int, **families: int) -> Group:
    return Group("slot 1", held, read, {name.encode(): tally(keys) for name, keys in families.items()})


def sample(*strata: Stratum, complete: bool = False) -> Sample:
    return Sample(strata, complete, (), 0.1)


def test_all_keys_leave_no_interval() -> None:
    seen = sample(Stratum((group(4, 4, a=1, b=3),), 1, 4), complete=True)
    found = family_share(seen, b"b")
    assert (amounts(seen)[b"b"], found.low, found.value, found.high) == (3, 0.75, 0.75, 0.75)
    assert str(found) == "75.0%"


def test_a_key_stands_for_as_many_as_its_server_has_more() -> None:
    seen = sample(Stratum((group(9000, 90, a=90),), 1, 9000), Stratum((group(1000, 100, a=50, b=50),), 1, 1000))
    found = amounts(seen)
    assert (round(found[b"a"]), round(found[b"b"])) == (9500, 500)
    share_of_b = family_share(seen, b"b")
    assert share_of_b.low < 0.05 < share_of_b.high


def test_slots_that_were_not_chosen_are_as_the_chosen_ones() -> None:
    seen = sample(Stratum((group(10, 5, a=5), group(30, 5, b=5)), 100, 2000))
    assert round(amounts(seen)[b"a"]) == 500


def test_slots_of_one_family_each_tell_as_much_as_there_are_slots() -> None:
    alike = [group(50, 10, **{"ab"[number % 2]: 10}) for number in range(100)]
    mixed = [group(50, 10, a=5, b=5) for _ in range(100)]
    wide, narrow = (family_share(sample(Stratum(tuple(groups), 1000, 50_000)), b"a") for groups in (alike, mixed))
    assert wide.high - wide.low == pytest.approx(0.19, abs=0.02)
    assert narrow.high - narrow.low < wide.high - wide.low


@pytest.mark.parametrize("tagged", [False, True])
def test_in_95_of_100_samples_the_truth_lies_in_the_interval(tagged: bool) -> None:
    """Slots of about 40 keys, a third of one family, by key or by whole slots; ten keys of 200 slots are read."""
    random = Random(7)
    slots = []
    for _ in range(4000):
        of_one = random.random() < 1 / 3
        slots.append([of_one if tagged else random.random() < 1 / 3 for _ in range(random.randrange(20, 60))])
    truth = sum(map(sum, slots)) / sum(map(len, slots))
    held = 0
    for _ in range(300):
        groups = []
        for slot in random.sample(slots, 200):
            read = random.sample(slot, 10)
            groups.append(Group("slot 1", len(slot), 10, {b"a": tally(sum(read))} if any(read) else {}))
        seen = sample(Stratum(tuple(groups), len(slots), sum(map(len, slots))))
        found = share(seen, lambda each: each.families[b"a"].keys if each.families else 0)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 300 <= 0.99


def test_families_of_one_name_count_together() -> None:
    seen = sample(Stratum((group(4, 4, a=1, b=3),), 1, 4), complete=True)
    assert kinds(renamed(seen, {b"a": b"x", b"b": b"x"}), [b"x"])[b"x"].keys == 4


def test_sizes_that_are_partly_unknown_are_those_of_the_known() -> None:
    known = FamilyTally(2, 1, 100, (2, 0, 0, 0, 0, 0, 0), {"string": 2})
    seen = sample(Stratum((Group("a:1", 20, 2, {b"a": known}),), 1, 20))
    assert whole(seen).size_bytes == 2000
    unsized = replace(known, sized=0, size_bytes=0)
    assert whole(sample(Stratum((Group("a:1", 20, 2, {b"a": unsized}),), 1, 20))).size_bytes is None


def test_no_keys_at_all() -> None:
    view = breakdown.View(b":", b"cache:", None, 10)
    (keys, family) = breakdown.items(sample(complete=True), view, Counters(Reads(1, 1), {"user": Reads(1, 1)}))
    assert (keys.detail, family.detail) == ("no keys", "no keys seen\nhit ratio 50.0%: 1 hits, 1 misses")


def test_an_application_that_told_of_many_families() -> None:
    seen = sample(
        Stratum((Group("a:1", 4, 4, {b"cache:user:*": tally(3), b"cache:x": tally(1)}),), 1, 4), complete=True
    )
    app = Counters(Reads(1, 1), {"user": Reads(3, 1), "x": Reads(0, 0)})
    first, second, third = breakdown.items(seen, breakdown.View(b":", b"cache:", None, 10), app)
    assert (first.name, second.name, third.name) == ("keys", "cache:user:*", "cache:x")
    assert second.detail.splitlines()[1] == "hit ratio 75.0%: 3 hits, 1 misses"
    assert third.detail.splitlines()[1] == "no reads yet"


def test_only_the_largest_keys_are_kept_each_once() -> None:
    biggest = Biggest(3)
    for size in (5, 1, 9, 9, 7, 3):
        biggest.add(BigKey(b"%d" % size, size, "string", -1))
    assert [each.size_bytes for each in biggest.largest()] == [9, 7, 5]
    assert biggest.least == 5


@pytest.mark.parametrize(
    ("ttl_ms", "bucket"),
    [(-1, "none"), (0, "10s"), (10_000, "10s"), (10_001, "1m"), (300_000, "5m"), (86_400_001, "longer")],
)
def test_ttls_go_into_their_buckets(ttl_ms: int, bucket: str) -> None:
    gatherer = Gatherer(lambda key: key, Biggest(1))
    gatherer.add(b"a", "string", ttl_ms, None)
    assert dict(zip(TTL_BUCKETS, gatherer.families()[b"a"].ttls, strict=True))[bucket] == 1


def test_the_fullest_slots_are_always_chosen() -> None:
    sizes = {slot: 10_000 if slot < 20 else 30 for slot in range(16384)}
    found = choose(sizes, 10_000, Random(1))
    assert set(range(20)) <= found.fullest.keys()
    assert (len(found.fullest), len(found.random), found.complete) == (100, 1000, False)
    assert len(found.fullest) + len(found.random) + found.left_out == 16384
    assert sum(found.fullest.values()) + sum(found.random.values()) <= 10_000
    assert choose(sizes, 10_000, Random(1)) == found


def test_few_keys_are_all_looked_at() -> None:
    found = choose({1: 3, 2: 0, 3: 4}, 7, Random(1))
    assert (found.fullest, found.random, found.complete) == ({3: 4, 1: 3}, {}, True)


@pytest.mark.parametrize(
    ("redis", "valkey", "by_slot"),
    [
        ("6.2.14", None, False),
        ("7.0.15", None, False),
        ("7.4.0", None, True),
        ("8.0.1", None, True),
        ("10.0", None, True),
        ("7.2.4", "7.2.6", False),
        ("7.2.4", "8.0.0-rc1", True),
        ("7.2.4", "9.1.2", True),
        ("", None, False),
    ],
)
def test_slots_are_chosen_only_where_a_node_walks_by_slot(redis: str, valkey: str | None, by_slot: bool) -> None:
    facts = {"redis_version": redis, **({"valkey_version": valkey} if valkey else {})}
    assert walks_by_slot(facts) is by_slot


def lines_of(sample: Sample, dataset_bytes: int | None = None) -> str:
    return breakdown.items(sample, breakdown.View(b":", b"", None, 10), dataset_bytes=dataset_bytes)[0].detail


def test_sizes_known_of_some_keys_are_told_as_that() -> None:
    known = FamilyTally(4, 1, 100, (4, 0, 0, 0, 0, 0, 0), {"string": 4})
    seen = sample(Stratum((Group("a:1", 4, 4, {b"a": known}),), 1, 4), complete=True)
    keys, family = breakdown.items(seen, breakdown.View(b":", b"", None, 10))
    assert keys.detail.splitlines()[0] == "4 keys, 400 B if all are as the 25.0% whose size is known"
    assert "if all are as the 25.0%" in family.detail
    assert keys.data["sized"] == 0.25


@pytest.mark.parametrize(
    ("dataset", "said"), [(None, False), (300 << 20, False), (900 << 20, True), (50 << 20, True), (0, False)]
)
def test_an_estimate_far_from_what_the_server_counts_says_so(dataset: int | None, said: bool) -> None:
    big = FamilyTally(100, 100, 200 << 20, (100, 0, 0, 0, 0, 0, 0), {"string": 100})
    seen = sample(Stratum((Group("a:1", 100, 100, {b"a": big}),), 1, 100), complete=True)
    assert ("the servers count" in lines_of(seen, dataset)) is said


def test_very_long_names_are_cut() -> None:
    name = b"x" * 1_000_000
    seen = replace(
        sample(Stratum((Group("a:1", 1, 1, {name: tally(1)}),), 1, 1), complete=True),
        biggest=(BigKey(name, 5, "string", -1),),
    )
    _, family, key = breakdown.items(seen, breakdown.View(b":", b"", None, 10))
    assert family.name == key.name == "x" * 200 + "… (1,000,000 bytes)"


def test_a_family_of_the_application_with_half_of_a_surrogate_pair() -> None:
    app = read('{"families": {"a\\ud800": {"hits": 1, "misses": 1}}}')
    view = breakdown.View(b":", b"cache:", 1, 10)
    assert breakdown.depth_needed(view, app) == 2
    assert breakdown.items(sample(complete=True), view, app)[1].name == "a\\ud800"
