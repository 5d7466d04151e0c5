"""Caches of several servers: every key is found, and none is left when one of the servers fails or gives slots away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import redis

from perfctl.servers.redis import slot_of
from tests.fix_perfctl import ROOT, Process, run, until
from tests.fix_redis import ValkeyCluster, Watched


def configured(folder: Path, url: str) -> Path:
    path = folder / "perfctl.yaml"
    path.write_text(f"version: 1\ntargets: {{test: {{cache: {{url: '{url}'}}}}}}\n")
    return path


def start(config: Path, *arguments: str) -> Process:
    argv = [sys.executable, "-m", "perfctl", "cache", "flush", "cache:*", "--confirm", "test", *arguments]
    argv += ["--config", str(config), "--format", "json", "--journal", str(config.parent / "journal.jsonl")]
    out = subprocess.PIPE
    return Process(subprocess.Popen(argv, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out))


def fill(cluster: ValkeyCluster, count: int) -> None:
    with cluster.connect() as client:
        for start_at in range(0, count, 1000):
            pipe = client.pipeline(transaction=False)
            for number in range(start_at, start_at + 1000):
                pipe.set(f"cache:{number}", "x", ex=600)
                pipe.set(f"session:{number}", "x", ex=600)
            pipe.set("session:more", "x", ex=600)
            pipe.execute()
        for server in cluster.primaries:
            # What a replica has not got yet would be lost with its primary, and be no fault of the flush.
            cluster.send(server, "WAIT", 1, 5000)


def sessions(count: int) -> set[bytes]:
    return {f"session:{number}".encode() for number in range(count)} | {b"session:more"}


def test_every_primary_of_a_cluster_is_walked(tmp_path: Path, valkey_cluster: ValkeyCluster) -> None:
    fill(valkey_cluster, 3000)
    config = configured(tmp_path, valkey_cluster.url)
    looked = run("cache", "keys", "cache:*", "--config", str(config), "--format", "json").report["items"][0]["data"]
    assert (looked["matched"], looked["keys"], len(looked["servers"])) == (3000, 6001, 3)
    ran = start(config).wait()
    assert ran.code == 0, ran.stderr
    assert (ran.code, ran.items["cache:*"]["data"]["deleted"]) == (0, 3000)
    assert valkey_cluster.keys() == sessions(3000)


def test_a_primary_that_is_killed_in_mid_flush_leaves_no_key_behind(
    tmp_path: Path, valkey_cluster: ValkeyCluster
) -> None:
    fill(valkey_cluster, 6000)
    process = start(configured(tmp_path, valkey_cluster.url), "--rate", "1500", "--count", "50")
    until(lambda: len(valkey_cluster.keys()) < 11_000)
    valkey_cluster.primaries[0].kill()
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    assert ran.items["cache:*"]["data"]["restarts"] >= 1
    assert valkey_cluster.keys() == sessions(6000)


def test_a_slot_that_moves_in_mid_flush_leaves_no_key_behind(tmp_path: Path, valkey_cluster: ValkeyCluster) -> None:
    fill(valkey_cluster, 3000)
    source, target = valkey_cluster.primaries[2], valkey_cluster.primaries[0]
    slot = next(slot for number in range(3000) if (slot := slot_of(f"cache:{number}".encode())) > 11_000)
    with valkey_cluster.connect() as client:
        for number in range(200):
            client.set(f"cache:{{{_tag(slot)}}}:{number}", "x", ex=600)
    process = start(configured(tmp_path, valkey_cluster.url), "--rate", "1000", "--count", "50")
    until(lambda: len(valkey_cluster.keys()) < 6100)
    valkey_cluster.open_slot(slot, source, target)
    valkey_cluster.move_keys(slot, source, target, 100)
    until(lambda: len(valkey_cluster.keys()) < 4500)
    valkey_cluster.move_keys(slot, source, target, 1000)
    valkey_cluster.close_slot(slot, target)
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    assert valkey_cluster.keys() == sessions(3000)


def _tag(slot: int) -> str:
    return next(str(number) for number in range(10**6) if slot_of(str(number).encode()) == slot)


def test_sentinels_lead_to_the_primary_and_to_the_next_one(tmp_path: Path, watched_valkey: Watched) -> None:
    with redis.Redis.from_url(watched_valkey.primary.url) as client, client.pipeline(transaction=False) as pipe:
        for number in range(4000):
            pipe.set(f"cache:{number}", "x", ex=600)
            pipe.set(f"session:{number}", "x", ex=600)
        pipe.set("session:more", "x", ex=600)
        pipe.execute()
        client.wait(1, 5000)
    config = configured(tmp_path, watched_valkey.url)
    process = start(config, "--rate", "1500", "--count", "50")
    with redis.Redis.from_url(watched_valkey.primary.url) as client:
        until(lambda: client.dbsize() < 7500)
    watched_valkey.primary.kill()
    ran = process.wait()
    assert ran.code == 0, ran.stderr
    assert ran.items["cache:*"]["data"]["restarts"] >= 1
    with redis.Redis.from_url(watched_valkey.replica.url) as client:
        assert set(client.keys()) == sessions(4000)
    ended = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
    assert ended["event"] == "flush ended"
    # A Sentinel's own address leads there too, for it watches one primary.
    direct = configured(tmp_path, f"redis://127.0.0.1:{watched_valkey.sentinels[0].port}/0")
    ran = run("cache", "keys", "session:*", "--config", str(direct), "--format", "json")
    assert ran.report["items"][0]["data"]["matched"] == 4001
