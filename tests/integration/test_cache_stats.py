"""What ``perfctl cache stats`` says of real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from perfctl.cache import sampling
from perfctl.embedded import start_valkey
from perfctl.errors import ConnectionLost
from perfctl.servers.deployment import connect
from perfctl.servers.redis import read_address
from tests.fix_http import Endpoint, says
from tests.fix_perfctl import ROOT, Process, Ran, for_cache, run, until
from tests.fix_redis import installed_version, limited_user
from tests.fix_redis_cluster import CacheCluster
from tests.fix_redis_proxy import CacheProxy
from tests.fix_redis_sentinel import SentinelSet
from tests.fix_servers import Cache

LOOKS = ("+info", "+scan", "+dbsize", "+type", "+pttl", "+memory|usage", "+slowlog|get", "+slowlog|len")


def with_app(folder: Path, url: str, metrics: str, more: str = "") -> Path:
    """A configuration with the application's metrics too."""
    path = folder / "perfctl.yaml"
    target = f"{{cache: {{url: '{url}', prefix: 'cache:'}}, app: {{cache_metrics: '{metrics}'}}}}"
    path.write_text(f"version: 1\ntargets: {{test: {target}}}\n{more}")
    return path


def ask(config: Path, *arguments: str, form: str = "json") -> Ran:
    return run("cache", "stats", *arguments, "--config", str(config), "--format", form)


def start(config: Path, *arguments: str, form: str = "json") -> Process:
    argv = [sys.executable, "-m", "perfctl", "cache", "stats", *arguments, "--config", str(config), "--format", form]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.PIPE
    return Process(subprocess.Popen(argv, text=True, cwd=ROOT, stdout=out, stderr=out, env=env))


def of_kind(ran: Ran, kind: str) -> dict[str, Any]:
    return {item["name"]: item for item in ran.report["items"] if item["kind"] == kind}


def load(cache: Cache) -> None:
    with cache.connect() as client, client.pipeline(transaction=False) as pipe:
        for number in range(1, 301):
            pipe.set(f"cache:user_analyses:{number}:page", "x" * 64, ex=30)
        for number in range(100):
            pipe.set(f"cache:report:{number}", "x", ex=5000)
        pipe.sadd("session:1", *range(1000))
        pipe.execute()


def test_what_the_server_and_its_keys_are(tmp_path: Path, redis_server: Cache) -> None:
    load(redis_server)
    with redis_server.connect() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_resetstat()
        for number in range(1, 5):
            client.get(f"cache:report:{number * 30}")
    ran = ask(for_cache(tmp_path, redis_server.url))
    assert ran.code == 0
    facts = of_kind(ran, "cache")
    assert (facts["hit ratio"]["data"]["hits"], facts["hit ratio"]["data"]["misses"]) == (3, 1)
    assert facts["hit ratio"]["data"]["hit_ratio"] == 0.75
    memory = facts["memory"]["data"]
    assert memory["limit_bytes"] == 100 << 20
    assert memory["limit_share"] == pytest.approx(memory["used_bytes"] / (100 << 20), abs=0.001)
    assert not facts["fragmentation"]["data"]["meaningful"]
    assert facts["policy"]["data"]["policies"] == ["allkeys-lru"]
    assert {"evicted", "expired", "clients", "slow log", "keys"} <= facts.keys()
    keys = facts["keys"]["data"]
    assert (keys["keys"], keys["read"], keys["complete"]) == (401, 401, True)
    assert keys["ttl"] == pytest.approx(
        {"none": 1 / 401, "10s": 0, "1m": 300 / 401, "5m": 0, "1h": 0, "1d": 100 / 401, "longer": 0}, abs=0.001
    )
    families = of_kind(ran, "family")
    assert {name: item["data"]["keys"] for name, item in families.items()} == {
        "cache:user_analyses:*:page": 300, "cache:report:*": 100, "session:*": 1
    }  # fmt: skip
    share = families["cache:report:*"]["data"]["share"]
    assert share["low"] == share["value"] == share["high"]
    biggest = next(iter(of_kind(ran, "key").items()))
    assert (biggest[0], biggest[1]["data"]["type"], biggest[1]["data"]["ttl_ms"]) == ("session:1", "set", None)


def test_the_counters_were_set_back(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.config_resetstat()
    item = of_kind(ask(for_cache(tmp_path, redis70.url)), "cache")["hit ratio"]
    assert item["detail"].startswith("no reads since CONFIG RESETSTAT")
    assert item["data"]["hit_ratio"] is None


def test_the_look_tells_what_it_adds_to_the_counters(tmp_path: Path, redis_server: Cache) -> None:
    load(redis_server)
    with redis_server.connect() as client:
        client.config_resetstat()
        counted = of_kind(ask(for_cache(tmp_path, redis_server.url)), "cache")["keys"]["data"]["counted_reads"]
        assert client.info("stats")["keyspace_hits"] == counted == 802


def test_a_sample_says_how_far_it_may_be_off(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client, client.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.set(f"cache:{'ab'[number % 4 == 0]}:{number}", "x", ex=None if number % 4 else 600)
        pipe.execute()
    ran = ask(for_cache(tmp_path, redis70.url), "--sample", "3000")
    keys = of_kind(ran, "cache")["keys"]["data"]
    assert (keys["keys"], keys["read"], keys["complete"]) == (20_000, 3000, False)
    share = of_kind(ran, "family")["cache:b:*"]["data"]["share"]
    assert 0.2 < share["low"] < share["value"] < share["high"] < 0.3
    assert keys["ttl"]["1h"] == pytest.approx(0.25, abs=0.05)
    whole = ask(for_cache(tmp_path, redis70.url), "--exact")
    assert of_kind(whole, "family")["cache:b:*"]["data"]["keys"] == 5000
    assert of_kind(whole, "cache")["keys"]["data"]["complete"]


def test_depth_delimiter_and_top(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.mset({f"app/{kind}/{number}/x": "1" for kind in ("a", "b", "c") for number in range(9)})
        client.mset({b"odd \xff\n key": "1"})
    config = for_cache(tmp_path, redis70.url)
    families = of_kind(ask(config, "--delimiter", "/", "--depth", "2", "--top", "2"), "family")
    assert list(families) == ["app/a/…", "app/b/…", "…"]
    assert families["…"]["data"]["keys"] == 10
    assert "odd \\xff\\n key" in of_kind(ask(config, "--delimiter", "/"), "family")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--watch", "0s"), "--watch 0s is no interval"),
        (("--watch", "2"), "is no duration"),
        (("--delimiter", ""), "--delimiter is empty"),
        (("--times", "2"), "--times goes with --watch"),
        (("--exact", "--watch", "1s"), "exclude each other"),
        (("--exact", "--sample", "5"), "--exact and --sample exclude each other"),
        (("--watch", "1s", "--sample", "5"), "--sample and --watch exclude each other"),
        (("--watch", "1s", "--depth", "2"), "--depth and --watch exclude each other"),
    ],
)
def test_a_command_line_that_makes_no_sense(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = ask(for_cache(tmp_path, "redis://127.0.0.1:1/0"), *arguments)
    assert ran.code == 2
    assert said in ran.report["error"]["message"]


def test_no_keys_looked_at_is_no_sample(tmp_path: Path) -> None:
    assert ask(for_cache(tmp_path, "redis://127.0.0.1:1/0"), "--sample", "0").code == 2


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        (("+slowlog|get",), "slow log"),
        (("+memory|usage",), "sizes"),
        (("+pttl",), "TTLs"),
        (("+type",), "types"),
        (("+scan",), "keys"),
        (("+dbsize",), "keys"),
    ],
)
def test_what_a_user_may_not_ask_is_unknown_and_the_rest_comes(
    tmp_path: Path, valkey91: Cache, missing: tuple[str, ...], what: str
) -> None:
    load(valkey91)
    rights = [each for each in LOOKS if each not in missing]
    ran = ask(for_cache(tmp_path, limited_user(valkey91, "~*", *rights)))
    assert ran.code == 7
    facts = of_kind(ran, "cache")
    unknown = [name for name, item in facts.items() if item["status"] == "unknown"]
    assert unknown == [what]
    assert facts[what]["remedy"].startswith(f"ACL SETUSER <user> {missing[0]}")
    assert (facts[what]["data"]["class"], facts[what]["data"]["exit_code"]) == ("Denied", 7)
    assert "hits" in facts["hit ratio"]["data"]
    if what == "sizes":
        assert facts["keys"]["data"]["size_bytes"] is None
        assert of_kind(ran, "family")["cache:report:*"]["data"]["keys"] == 100


def test_with_just_the_rights_that_the_page_names(tmp_path: Path, redis_server: Cache) -> None:
    load(redis_server)
    rights: tuple[str, ...] = LOOKS
    if redis_server.server.program.name == "redis-server" and "6.2" in ask_version(redis_server):
        # It has rights for whole commands, and for their first arguments only when it is told which.
        rights = tuple(each.partition("|")[0] for each in LOOKS)
    assert ask(for_cache(tmp_path, limited_user(redis_server, "~*", *rights))).code == 0


def ask_version(cache: Cache) -> str:
    with cache.connect() as client:
        return str(client.info("server")["redis_version"])


def test_keys_that_a_user_may_not_see_into(tmp_path: Path, valkey91: Cache) -> None:
    load(valkey91)
    ran = ask(for_cache(tmp_path, limited_user(valkey91, "~cache:*", *LOOKS)))
    assert ran.code == 7
    assert of_kind(ran, "family")["session:*"]["data"] == {
        "keys": 1, "share": {"value": 0.0025, "low": 0.0025, "high": 0.0025},
        "size_bytes": None, "sized": 0.0, "ttl": {}, "types": {},
    }  # fmt: skip
    keys = of_kind(ran, "cache")["keys"]
    assert "if all are as the 99.8% whose size is known" in keys["detail"]
    assert keys["data"]["counted_reads"] == 800


def test_arguments_of_slow_commands_are_not_told(tmp_path: Path, redis_server: Cache) -> None:
    with redis_server.connect() as client:
        client.config_set("slowlog-log-slower-than", 0)
        client.set("cache:user:4711", "canary")
        client.echo("canary")
        client.eval("return 'canary'", 0)
        client.get("canary" * 100)
        client.config_set("slowlog-log-slower-than", 10_000_000)
    ran = ask(for_cache(tmp_path, redis_server.url), "--sample", "1")
    slow = of_kind(ran, "cache")["slow log"]
    told = {each["command"]: each["family"] for each in slow["data"]["slowest"]}
    assert told.items() <= {
        "SET": "cache:user:*", "ECHO": None, "EVAL": None, "GET": None,
        # What the tests' own client sends.
        "SLOWLOG": None, "CONFIG": None, "CLIENT": None,
    }.items()  # fmt: skip
    assert len(told) > 2
    assert "canary" not in json.dumps(slow)
    assert "4711" not in json.dumps(slow)


def test_a_large_set_stalls_nobody(tmp_path: Path, valkey91: Cache) -> None:
    with valkey91.connect() as client:
        for begin in range(0, 300_000, 10_000):
            client.sadd("cache:big", *range(begin, begin + 10_000))
        client.config_set("slowlog-log-slower-than", 5000)
        client.slowlog_reset()
        for arguments in ((), ("--exact",)):
            assert (
                of_kind(ask(for_cache(tmp_path, valkey91.url), *arguments), "key")["cache:big"]["data"]["type"] == "set"
            )
        slow = [entry["command"] for entry in client.slowlog_get(100)]
        assert not [line for line in slow if line.startswith((b"MEMORY", b"SCAN", b"TYPE", b"PTTL", b"SLOWLOG"))]


def test_commands_that_a_cache_must_not_be_asked_are_never_sent(tmp_path: Path, redis_server: Cache) -> None:
    load(redis_server)
    with redis_server.connect() as client:
        client.config_resetstat()
        assert ask(for_cache(tmp_path, redis_server.url), "--exact").code == 0
        sent = {name.removeprefix("cmdstat_").partition("|")[0] for name in client.info("commandstats")}
    assert sent <= {"config", "info", "client", "slowlog", "scan", "type", "pttl", "memory", "dbsize", "auth", "select"}


def test_a_replica_is_read_and_named(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        # Of nobody that listens: it answers reads as a replica all the same.
        client.replicaof("127.0.0.1", "1")
        try:
            ran = ask(for_cache(tmp_path, redis70.url))
        finally:
            client.replicaof("NO", "ONE")
    assert ran.code == 0
    assert "its primary is 127.0.0.1:1" in ran.report["notes"][1]


# --- clusters


def fill(cluster: CacheCluster, keys: int = 30_000) -> None:
    """Half of the keys tagged, over 20 tenants."""
    with cluster.connect() as client:
        for begin in range(0, keys, 5000):
            with client.pipeline() as pipe:
                for number in range(begin, begin + 5000):
                    tagged = number % 2 == 0
                    pipe.set(
                        f"t:{{tenant-{'abcdefghijklmnopqrst'[number // 2 % 20]}}}:{number}"
                        if tagged
                        else f"u:{number}",
                        "x",
                    )
                pipe.execute()


def test_a_cluster_with_hash_tags(tmp_path: Path, cluster: CacheCluster) -> None:
    fill(cluster)
    ran = ask(for_cache(tmp_path, cluster.url), "--sample", "5000", "--top", "30")
    keys = of_kind(ran, "cache")["keys"]["data"]
    assert (keys["keys"], keys["complete"], len(keys["servers"])) == (30_000, False, 3)
    # Slots differ in how many keys they have, so it is about as many as were asked for.
    assert 2000 < keys["read"] <= 5500, keys
    families = of_kind(ran, "family")
    tenants = {name: item["data"]["share"] for name, item in families.items() if name.startswith("t:")}
    assert len(tenants) == 20
    assert sum(each["value"] for each in tenants.values()) == pytest.approx(0.5, abs=0.03)
    other = families["u:*"]["data"]["share"]
    # One of twenty intervals misses the truth, which is what 95 % says; one twice as wide next to none.
    assert abs(other["value"] - 0.5) < other["high"] - other["low"]
    assert other["high"] - other["low"] < 0.2


def test_keys_of_one_hash_tag_written_one_family_after_the_other(tmp_path: Path, cluster: CacheCluster) -> None:
    with cluster.connect() as client:
        for family in "ab":
            for begin in range(0, 20_000, 5000):
                client.mset({f"{family}:{{t}}:{number}": "x" for number in range(begin, begin + 5000)})
    ran = ask(for_cache(tmp_path, cluster.url), "--sample", "2000")
    keys = of_kind(ran, "cache")["keys"]["data"]
    assert (keys["keys"], keys["complete"]) == (40_000, False)
    share = of_kind(ran, "family")["a:{t}:*"]["data"]["share"]
    assert 0.4 < share["value"] < 0.6
    assert share["high"] - share["low"] < 0.3


@pytest.mark.parametrize("limit", [2000, 50_000])
def test_a_cluster_of_nodes_of_two_versions(
    cluster91: CacheCluster, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    fill(cluster91, 10_000)
    told = iter([True, False, True])
    monkeypatch.setattr(sampling, "walks_by_slot", lambda _: next(told))
    deployment = connect(read_address(cluster91.url, None, "perfctl", 5.0))
    try:
        seen = sampling.look(deployment, sampling.Manner(limit, 10))
    finally:
        deployment.close()
    assert (seen.keys, seen.complete, len(seen.servers)) == (10_000, limit > 10_000, 3)
    assert seen.complete or 1000 < seen.read <= 2200


def test_all_keys_of_a_cluster(tmp_path: Path, cluster91: CacheCluster) -> None:
    fill(cluster91, 10_000)
    ran = ask(for_cache(tmp_path, cluster91.url), "--depth", "1")
    assert of_kind(ran, "cache")["keys"]["data"]["complete"]
    exact = ask(for_cache(tmp_path, cluster91.url), "--depth", "1", "--exact")
    for each in (ran, exact):
        assert {name: item["data"]["keys"] for name, item in of_kind(each, "family").items()} == {
            "t:…": 5000, "u:…": 5000
        }  # fmt: skip


def test_what_the_primaries_tell_is_summed(tmp_path: Path, cluster91: CacheCluster) -> None:
    with cluster91.connect() as client:
        client.set("there", "1")
    for number, node in enumerate(cluster91.primaries()):
        with redis.Redis.from_url(node.url) as client:
            client.config_resetstat()
            client.config_set("maxmemory", f"{100 * (number + 1)}mb")
    with cluster91.connect() as client:
        assert [client.get(key) for key in ("there", "there", "there", "nowhere")][-1] is None
    facts = of_kind(ask(for_cache(tmp_path, cluster91.url)), "cache")
    ratio = facts["hit ratio"]["data"]
    assert (ratio["hits"], ratio["misses"], ratio["hit_ratio"], len(ratio["nodes"])) == (3, 1, 0.75, 3)
    assert facts["memory"]["data"]["limit_bytes"] == 600 << 20
    assert sum(node["hits"] for node in ratio["nodes"].values()) == 3


def test_a_user_who_may_not_ask_for_slots(tmp_path: Path, cluster91: CacheCluster) -> None:
    with cluster91.connect() as client:
        client.set("there", "1")
    url = cluster91.limited_user("~*", "+cluster|nodes", *LOOKS)
    ran = ask(for_cache(tmp_path, url))
    keys = of_kind(ran, "cache")["keys"]
    assert (ran.code, keys["status"]) == (7, "unknown")
    assert keys["remedy"].startswith("ACL SETUSER <user> +cluster|countkeysinslot")


def test_a_cluster_is_watched(tmp_path: Path, cluster91: CacheCluster) -> None:
    with cluster91.connect() as client:
        client.mset_nonatomic({f"k{number}": "1" for number in range(30)})
    ran = ask(for_cache(tmp_path, cluster91.url), "--watch", "20ms", "--times", "2")
    first, _ = of_kind(ran, "cache")["window"]["data"]["samples"]
    assert (first["keys"], first["void"], first["hits"]) == (30, None, 0)


def test_through_sentinels(tmp_path: Path, sentinel91: SentinelSet) -> None:
    with redis.Redis.from_url(sentinel91.primary().url) as client:
        client.set("cache:1", "x")
    ran = ask(for_cache(tmp_path, sentinel91.url))
    assert ran.code == 0
    assert ran.report["notes"][0].endswith(", sentinel")
    assert of_kind(ran, "cache")["keys"]["data"]["keys"] == 1


def test_a_server_that_does_not_know_a_command(tmp_path: Path) -> None:
    program = installed_version("redis70")
    with start_valkey(binary=program, settings={"rename-command": 'MEMORY ""'}) as server:
        load(Cache(server))
        ran = ask(for_cache(tmp_path, server.url))
        facts = of_kind(ran, "cache")
        assert (ran.code, facts["sizes"]["status"], facts["keys"]["data"]["size_bytes"]) == (4, "unknown", None)
        assert of_kind(ran, "family")["cache:report:*"]["data"]["keys"] == 100


# --- the application's counters


def test_the_applications_counters_stand_at_their_families(
    tmp_path: Path,
    redis70: Cache,
    endpoint: Endpoint,
) -> None:
    load(redis70)
    counted = {"user_analyses": {"hits": 80, "misses": 20, "stale": 1}, "orders": {"hits": 0, "misses": 5}}
    endpoint.answers["/m"] = says(json.dumps({"hits": 90, "misses": 30, "families": counted}))
    ran = ask(with_app(tmp_path, redis70.url, endpoint.url + "/m"))
    assert of_kind(ran, "cache")["application's hit ratio"]["data"]["hit_ratio"] == 0.75
    families = of_kind(ran, "family")
    joined = families["cache:user_analyses:*:page"]
    assert joined["data"]["application"] == {
        "family": "user_analyses", "hit_ratio": 0.8, "hits": 80, "misses": 20, "stale": 1
    }  # fmt: skip
    assert "hit ratio 80.0%: 80 hits, 20 misses, 1 stale" in joined["detail"]
    assert families["orders"]["detail"].startswith("no keys seen\nhit ratio 0.0%")
    assert "application" not in families["cache:report:*"]["data"]
    shallow = of_kind(ask(with_app(tmp_path, redis70.url, endpoint.url + "/m"), "--depth", "1"), "family")
    assert shallow["user_analyses"]["data"]["keys"] == 300
    assert shallow["cache:…"]["data"]["keys"] == 400


@pytest.mark.parametrize(
    ("answer", "code", "error"),
    [(says("<html>"), 2, "ConfigError"), (says("", 401), 7, "Denied"), (says("", 503), 3, "Unreachable")],
)
def test_counters_that_cannot_be_read_are_unknown(
    tmp_path: Path,
    redis70: Cache,
    endpoint: Endpoint,
    answer: Any,
    code: int,
    error: str,
) -> None:
    endpoint.answers["/m"] = answer
    ran = ask(with_app(tmp_path, redis70.url, endpoint.url.replace("//", "//u:canary@") + "/m"))
    item = of_kind(ran, "cache")["application's hit ratio"]
    assert (ran.code, item["status"], item["data"]["class"]) == (code, "unknown", error)
    assert "canary" not in ran.stdout + ran.stderr


# --- signals and servers that go away


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("arguments", [("--sample", "400000"), ("--exact",)])
def test_a_signal_is_heard_while_a_server_does_not_answer(
    tmp_path: Path, cache_proxy: CacheProxy, arguments: tuple[str, ...], signum: int, code: int
) -> None:
    with redis.Redis.from_url(cache_proxy.url) as client:
        for begin in range(0, 400_000, 100_000):
            client.mset({f"cache:{number}": "x" for number in range(begin, begin + 100_000)})
    until(lambda: cache_proxy.connections == 0)
    process = start(for_cache(tmp_path, cache_proxy.url), *arguments, "--timeout", "1h")
    # The first connection asks what the server is, the second one for the keys.
    until(lambda: cache_proxy.connections == 2)
    cache_proxy.deafen()
    process.popen.send_signal(signum)
    assert process.wait().code == code


def test_a_connection_that_breaks_leaves_what_was_read(tmp_path: Path, cache_proxy: CacheProxy) -> None:
    with redis.Redis.from_url(cache_proxy.url) as client:
        for begin in range(0, 400_000, 100_000):
            client.mset({f"cache:{number}": "x" for number in range(begin, begin + 100_000)})
    until(lambda: cache_proxy.connections == 0)
    process = start(for_cache(tmp_path, cache_proxy.url), "--exact")
    until(lambda: cache_proxy.connections == 2)
    cache_proxy.drop()
    ran = process.wait()
    facts = of_kind(ran, "cache")
    assert (ran.code, facts["keys"]["status"], facts["keys"]["data"]["class"]) == (
        3,
        "unknown",
        ConnectionLost.__name__,
    )
    assert facts["memory"]["status"] == "ok"


def test_a_stream_of_events_ends_with_the_report(tmp_path: Path, redis70: Cache) -> None:
    load(redis70)
    first, *_, last = ask(for_cache(tmp_path, redis70.url), "--exact", form="ndjson").events
    assert (first["event"], first["keys"], last["event"]) == ("looking", 401, "report")


def test_a_server_that_speaks_an_older_protocol_only(tmp_path: Path, resp2_proxy: CacheProxy) -> None:
    assert ask(for_cache(tmp_path, resp2_proxy.url)).code == 0


# --- perfctl verify

LEAST = "criteria: {cache: {hit_ratio_min: 0.7}}\n"


def verified(config: Path) -> Ran:
    return run("verify", "--config", str(config), "--format", "json")


def criterion(ran: Ran) -> dict[str, Any]:
    (item,) = [each for each in ran.report["items"] if each["kind"] == "criterion"]
    return dict(item)


def test_looks_at_keys_are_no_reads_of_the_cache(tmp_path: Path, redis_server: Cache) -> None:
    config = for_cache(tmp_path, redis_server.url)
    config.write_text(config.read_text() + LEAST)
    load(redis_server)
    with redis_server.connect() as client:
        client.config_resetstat()
        assert ask(config).code == 0
        assert client.info("stats")["keyspace_hits"] > 0
        # What perfctl looked at would be a hit ratio of 100 %.
        assert criterion(verified(config))["status"] == "unknown"
        for name in ["session:1", "nowhere", "nowhere", "nowhere"]:
            client.exists(name)
    item = criterion(verified(config))
    assert (item["status"], item["detail"].splitlines()[0].split(";")[0]) == ("finding", "25.0%: 1 hits, 3 misses")


@pytest.mark.parametrize(("hits", "code", "status"), [(3, 0, "ok"), (1, 1, "finding")])
def test_verify_holds_the_servers_hit_ratio_to_the_criterion(
    tmp_path: Path, redis70: Cache, hits: int, code: int, status: str
) -> None:
    config = for_cache(tmp_path, redis70.url)
    config.write_text(config.read_text() + LEAST)
    with redis70.connect() as client:
        client.set("there", "1")
        client.config_resetstat()
        assert criterion(verified(config))["status"] == "unknown"
        for name in ["there"] * hits + ["nowhere"]:
            client.get(name)
    ran = verified(config)
    item = criterion(ran)
    assert (ran.code, item["name"], item["status"]) == (code, "cache.hit_ratio_min", status)
    assert item["data"]["hit_ratio"] == hits / (hits + 1)
    assert "the server's own counters since CONFIG RESETSTAT" in item["detail"]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (says('{"hits": 9, "misses": 1}'), "ok", 0),
        (says('{"hit_rate": 65.5}'), "finding", 1),
        (says('{"hits": 0, "misses": 0}'), "unknown", 1),
        (says("hello"), "unknown", 2),
        (says("", 500), "unknown", 3),
    ],
)
def test_verify_prefers_the_applications_own_counters(
    tmp_path: Path, endpoint: Endpoint, answer: Any, status: str, code: int
) -> None:
    endpoint.answers["/m"] = answer
    # Nobody listens there: the cache itself is not asked.
    ran = verified(with_app(tmp_path, "redis://127.0.0.1:1/0", endpoint.url + "/m", LEAST))
    assert (criterion(ran)["status"], ran.code) == (status, code)


def test_verify_with_nothing_to_look_at(tmp_path: Path) -> None:
    config = tmp_path / "perfctl.yaml"
    target = "{database: {dsn: 'postgresql://h/d'}}"
    config.write_text(f"version: 1\ntargets: {{test: {target}}}\n{LEAST}queries: {{dir: none}}\n")
    (tmp_path / "none").mkdir()
    item = criterion(verified(config))
    assert (item["status"], item["data"]["exit_code"]) == ("unknown", 2)
    assert "cache_metrics" in item["remedy"]


def test_verify_without_the_criterion_does_not_open_the_cache(tmp_path: Path) -> None:
    ran = verified(for_cache(tmp_path, "redis://127.0.0.1:1/0"))
    assert (ran.code, ran.report["items"]) == (0, [])


def test_verify_of_a_cache_that_does_not_answer(tmp_path: Path) -> None:
    config = for_cache(tmp_path, "redis://127.0.0.1:1/0")
    config.write_text(config.read_text() + LEAST)
    ran = verified(config)
    assert (ran.code, criterion(ran)["status"]) == (3, "unknown")


# --- --watch


def reader(cache: Cache, process: Process, *, hits: int) -> None:
    """Read as long as perfctl runs: so many reads that hit for each that does not."""
    with cache.connect() as client:
        client.set("there", "1")
        while process.popen.poll() is None:
            for name in ["there"] * hits + ["nowhere"]:
                client.get(name)


def test_a_watch_tells_the_ratio_of_each_window(tmp_path: Path, redis_server: Cache) -> None:
    config = for_cache(tmp_path, redis_server.url)
    process = start(config, "--watch", "100ms", "--times", "5", form="ndjson")
    reader(redis_server, process, hits=3)
    ran = process.wait()
    assert ran.code == 0
    *samples, report = [each for each in ran.events if each["event"] in ("sample", "report")]
    assert len(samples) == 5
    last = samples[-1]
    assert last["hit_ratio"] == pytest.approx(0.75, abs=0.05)
    assert last["ops_per_s"] > 0
    assert (last["void"], last["keys"], last["clients"] >= 2) == (None, 1, True)
    window = next(item for item in report["items"] if item["name"] == "window")
    assert window["data"]["hit_ratio"] == pytest.approx(0.75, abs=0.05)
    assert window["data"]["windows"] == 5


def test_a_watch_in_words_and_as_one_object(tmp_path: Path, redis70: Cache) -> None:
    config = for_cache(tmp_path, redis70.url)
    lines = ask(config, "--watch", "10ms", "--times", "2", form="text").stdout.splitlines()
    assert lines[0].split()[:3] == ["time", "hit", "ratio"]
    assert [line.split()[1] for line in lines[1:3]] == ["-", "-"]
    ran = ask(config, "--watch", "10ms", "--times", "3")
    assert len(of_kind(ran, "cache")["window"]["data"]["samples"]) == 3


def test_counters_that_are_set_back_make_the_window_void(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.set("there", "1")
        for _ in range(1000):
            client.get("there")
        process = start(for_cache(tmp_path, redis70.url), "--watch", "100ms", "--times", "10", form="ndjson")
        assert process.popen.stdout is not None
        process.popen.stdout.readline()
        client.config_resetstat()
        ran = process.wait()
    samples = [each for each in ran.events if each["event"] == "sample"]
    assert [each["void"] for each in samples if each["void"]] == ["the counters were set back"]
    assert all(each["hits"] is None or each["hits"] >= 0 for each in samples)
    assert ran.code == 0


def test_a_server_that_is_started_anew_makes_windows_void(tmp_path: Path, redis70: Cache) -> None:
    process = start(for_cache(tmp_path, redis70.url), "--watch", "100ms", form="ndjson")
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    redis70.server.kill()
    redis70.server.start()
    while (
        json.loads(process.popen.stdout.readline())["void"] != "a server was started anew, or another one has its place"
    ):
        pass
    assert json.loads(process.popen.stdout.readline())["void"] is None
    process.popen.send_signal(signal.SIGINT)
    ran = process.wait()
    assert ran.code == 130


def streamed_window(ran: Ran) -> dict[str, Any]:
    return next(item for item in ran.events[-1]["items"] if item["name"] == "window")


def test_the_interval_that_a_signal_ends_counts_too(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        process = start(for_cache(tmp_path, redis70.url), "--watch", "1h", form="ndjson")
        until(lambda: client.info("commandstats").get("cmdstat_slowlog|len") is not None)
        # Past the first look of the watch, which is the second INFO of its connection.
        time.sleep(1)
        for _ in range(5):
            client.get("nowhere")
    process.popen.send_signal(signal.SIGINT)
    ran = process.wait()
    window = streamed_window(ran)["data"]
    assert (ran.code, window["windows"], window["misses"]) == (130, 1, 5)


def test_a_server_that_closes_idle_connections_is_watched(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        process = start(for_cache(tmp_path, redis70.url), "--watch", "200ms", "--times", "5", form="ndjson")
        assert process.popen.stdout is not None
        process.popen.stdout.readline()
        client.get("nowhere")
        client.client_kill_filter(_type="normal", skipme=True)
        ran = process.wait()
    window = streamed_window(ran)["data"]
    assert (ran.code, window["void"]) == (0, 0)
    assert window["misses"] == 1


def test_a_script_that_keeps_the_server_busy_voids_windows_only(tmp_path: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.config_set("lua-time-limit", 50)
        process = start(for_cache(tmp_path, redis70.url), "--watch", "100ms", form="ndjson")
        assert process.popen.stdout is not None
        process.popen.stdout.readline()
        with pytest.raises(redis.RedisError), redis.Redis.from_url(redis70.url, socket_timeout=0.3, retry=None) as busy:
            busy.eval("while true do end", 0)
        while "busy running a script" not in str(json.loads(process.popen.stdout.readline())["void"]):
            pass
        client.script_kill()
        while json.loads(process.popen.stdout.readline())["void"] is not None:
            pass
    process.popen.send_signal(signal.SIGINT)
    ran = process.wait()
    assert ran.code == 130
    assert streamed_window(ran)["status"] == "ok"


def test_a_right_that_is_taken_away_ends_a_watch_with_its_report(tmp_path: Path, redis70: Cache) -> None:
    url = limited_user(redis70, "~*", "+info", "+cluster|nodes")
    process = start(for_cache(tmp_path, url), "--watch", "100ms", form="ndjson")
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    limited_user(redis70, "~*", "+ping")
    ran = process.wait()
    assert ran.code == 7
    assert streamed_window(ran)["data"]["windows"] >= 1


def test_a_planned_failover_is_noticed(tmp_path: Path, cluster91: CacheCluster) -> None:
    process = start(for_cache(tmp_path, cluster91.url), "--watch", "100ms", form="ndjson")
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    replica = cluster91.replica(0)
    assert replica is not None
    with redis.Redis.from_url(replica.url) as client:
        client.execute_command("CLUSTER", "FAILOVER")
    seen: list[str | None] = [""]
    while "a primary has become a replica" not in seen or seen[-1] is not None:
        seen.append(json.loads(process.popen.stdout.readline())["void"])
    process.popen.send_signal(signal.SIGINT)
    assert process.wait().code == 130


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_watch_that_is_ended_still_tells_the_whole_window(
    tmp_path: Path, redis70: Cache, signum: int, code: int
) -> None:
    process = start(for_cache(tmp_path, redis70.url), "--watch", "50ms", form="text")
    assert process.popen.stdout is not None
    assert process.popen.stdout.readline().startswith("time")
    process.popen.stdout.readline()
    process.popen.send_signal(signum)
    ran = process.wait()
    assert ran.code == code
    assert "window" in ran.stdout
    assert "stopped by a signal after" in ran.stderr


def test_a_signal_is_heard_while_a_watched_server_does_not_answer(tmp_path: Path, cache_proxy: CacheProxy) -> None:
    config = for_cache(tmp_path, cache_proxy.url)
    process = start(config, "--watch", "50ms", "--timeout", "1h", form="ndjson")
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    cache_proxy.deafen()
    process.popen.send_signal(signal.SIGINT)
    assert process.wait().code == 130


def test_the_applications_window(tmp_path: Path, redis70: Cache, endpoint: Endpoint) -> None:
    counted = iter(range(1, 100))

    def answer(handler: Any) -> None:
        number = next(counted)
        says(json.dumps({"hits": 9 * number, "misses": number}))(handler)

    endpoint.answers["/m"] = answer
    ran = ask(with_app(tmp_path, redis70.url, endpoint.url + "/m"), "--watch", "20ms", "--times", "3")
    window = of_kind(ran, "cache")["window"]["data"]
    assert (window["app_hit_ratio"], window["app_hits"], window["app_misses"]) == (0.9, 27, 3)
