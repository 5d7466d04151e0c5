"""Caches of several servers: every key is found, and none is left when one of the servers fails or gives slots away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import redis

from perfctl.cache.probe import LAG_BYTES, Probe
from perfctl.embedded import ValkeyServer
from perfctl.servers.redis import open_node, read_address, slot_of
from tests.fix_perfctl import ROOT, Process, for_cache, run, until
from tests.fix_redis_cluster import CacheCluster
from tests.fix_redis_proxy import CacheProxy
from tests.fix_redis_sentinel import SentinelSet


def start(config: Path, *arguments: str) -> Process:
    argv = [sys.executable, "-m", "perfctl", "cache", "flush", "cache:*", "--confirm", "test", *arguments]
    argv += ["--config", str(config), "--format", "json", "--journal", str(config.parent / "journal.jsonl")]
    out = subprocess.PIPE
    return Process(subprocess.Popen(argv, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out))


def fill(client: redis.Redis | redis.RedisCluster, count: int) -> None:
    for start_at in range(0, count, 1000):
        pipe = client.pipeline(transaction=False)
        for number in range(start_at, start_at + 1000):
            pipe.set(f"cache:{number}", "x", ex=600)
            pipe.set(f"session:{number}", "x", ex=600)
        pipe.set("session:more", "x", ex=600)
        pipe.execute()


def fill_cluster(cluster: CacheCluster, count: int) -> None:
    with cluster.connect() as client:
        fill(client, count)
    for node in cluster.primaries():
        with redis.Redis.from_url(node.url) as client:
            # What a replica has not got yet would be lost with its primary, and be no fault of the flush.
            client.wait(1, 5000)


def keys_of(servers: Iterable[ValkeyServer]) -> set[bytes]:
    found: set[bytes] = set()
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            found |= set(client.keys())
    return found


def sessions(count: int) -> set[bytes]:
    return {f"session:{number}".encode() for number in range(count)} | {b"session:more"}


def test_every_primary_of_a_cluster_is_walked(tmp_path: Path, cluster: CacheCluster) -> None:
    fill_cluster(cluster, 3000)
    config = for_cache(tmp_path, cluster.url)
    looked = run("cache", "keys", "cache:*", "--config", str(config), "--format", "json").report["items"][0]["data"]
    assert (looked["matched"], looked["keys"], len(looked["servers"])) == (3000, 6001, 3)
    ran = start(config).wait()
    assert ran.code == 0, ran.stderr
    assert ran.items["cache:*"]["data"]["deleted"] == 3000
    assert keys_of(cluster.primaries()) == sessions(3000)


def test_any_node_leads_to_the_cluster(tmp_path: Path, cluster91: CacheCluster) -> None:
    fill_cluster(cluster91, 1000)
    for url in cluster91.urls:
        config = for_cache(tmp_path, url)
        looked = run("cache", "keys", "cache:*", "--config", str(config), "--format", "json").report["items"][0]["data"]
        assert looked["matched"] == 1000


def test_a_primary_that_is_killed_in_mid_flush_leaves_no_key_behind(tmp_path: Path, cluster91: CacheCluster) -> None:
    fill_cluster(cluster91, 6000)
    config = for_cache(tmp_path, next(node.url for node in cluster91.primaries()[1:]))
    process = start(config, "--rate", "1500", "--count", "50")
    until(lambda: len(keys_of(cluster91.primaries())) < 11_000)
    cluster91.kill_primary(0)
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    assert ran.items["cache:*"]["data"]["restarts"] >= 1
    cluster91.wait_ok()
    assert keys_of(cluster91.primaries()) == sessions(6000)


def test_a_slot_that_moves_in_mid_flush_leaves_no_key_behind(tmp_path: Path, cluster91: CacheCluster) -> None:
    fill_cluster(cluster91, 3000)
    # From a node that is walked beside the one that it goes to.
    slot = next(slot for number in range(3000) if (slot := slot_of(f"cache:{number}".encode())) > 11_000)
    with cluster91.connect() as client:
        for number in range(200):
            client.set(f"cache:{{{_tag(slot)}}}:{number}", "x", ex=600)
    primaries = cluster91.primaries()
    process = start(for_cache(tmp_path, cluster91.url), "--rate", "1000", "--count", "50")
    until(lambda: len(keys_of(primaries)) < 6100)
    move = cluster91.migrate_slot(slot, 0)
    move.begin()
    move.move_keys(100)
    until(lambda: len(keys_of(primaries)) < 4500)
    move.move_keys()
    move.finish()
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    assert keys_of(primaries) == sessions(3000)


def _tag(slot: int) -> str:
    return next(str(number) for number in range(10**6) if slot_of(str(number).encode()) == slot)


def test_sentinels_lead_to_the_primary_and_to_the_next_one(tmp_path: Path, sentinel: SentinelSet) -> None:
    with redis.Redis.from_url(sentinel.primary().url) as client:
        fill(client, 4000)
        client.wait(2, 5000)
        process = start(for_cache(tmp_path, sentinel.url), "--rate", "1500", "--count", "50")
        until(lambda: client.dbsize() < 7500)
    sentinel.kill_primary()
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    assert ran.items["cache:*"]["data"]["restarts"] >= 1
    sentinel.wait_for_new_primary()
    assert keys_of([sentinel.primary()]) == sessions(4000)
    ended = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
    assert ended["event"] == "flush ended"
    # A Sentinel's own address leads there too, for it watches one primary.
    direct = for_cache(tmp_path, f"redis://127.0.0.1:{sentinel.sentinels[0].port}/0")
    ran = run("cache", "keys", "session:*", "--config", str(direct), "--format", "json")
    assert ran.report["items"][0]["data"]["matched"] == 4001


def test_a_server_that_knows_resp2_alone_is_served(tmp_path: Path, resp2_proxy: CacheProxy) -> None:
    with redis.Redis.from_url(resp2_proxy.url, protocol=2) as client:
        fill(client, 1000)
    ran = start(for_cache(tmp_path, resp2_proxy.url)).wait()
    assert ran.code == 0, ran.stderr
    assert ran.items["cache:*"]["data"]["deleted"] == 1000


def test_a_replica_that_falls_behind_is_seen(cluster91: CacheCluster) -> None:
    primary, replica = cluster91.primary(0), cluster91.replica(0)
    assert primary is not None
    assert replica is not None
    seeds = read_address(primary.url, None, "test", 5.0)
    probe = Probe(open_node(seeds.addresses[0], seeds.login))
    key = f"cache:{{{_tag(0)}}}"
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        # Not by a client of the cluster, which would ask the replica for its slots.
        with redis.Redis.from_url(primary.url) as client:
            # The kernel's buffers take some of it too.
            for _ in range(4):
                client.set(key, "x" * 8_000_000)
        until(lambda: probe.lag_bytes > LAG_BYTES)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    until(lambda: probe.lag_bytes < 1000)
    probe.close()
    cluster91.wait_ok()


def test_a_backup_follows_a_slot_that_moves(tmp_path: Path, cluster91: CacheCluster) -> None:
    slot = 16_000
    with cluster91.connect() as client:
        for number in range(200):
            client.set(f"cache:{{{_tag(slot)}}}:{number}", str(number), ex=600)
            client.set(f"session:{number}", "x", ex=600)
            client.set(f"session:more:{number}", "x", ex=600)
    move = cluster91.migrate_slot(slot, 0)
    move.begin()
    move.move_keys(100)
    backup = str(tmp_path / "backup.resp")
    process = start(for_cache(tmp_path, cluster91.url), "--backup", backup)
    until(lambda: not any(key.startswith(b"cache:") for key in keys_of(cluster91.primaries())))
    move.finish()
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    ran = run("cache", "restore", backup, "--yes", "--config", str(tmp_path / "perfctl.yaml"), "--format", "json")
    assert ran.items[backup]["data"]["restored"] == 200
    with cluster91.connect() as client:
        values = [client.get(f"cache:{{{_tag(slot)}}}:{number}") for number in range(200)]
    assert values == [b"%d" % number for number in range(200)]
