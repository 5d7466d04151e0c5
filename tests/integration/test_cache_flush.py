"""``perfctl cache flush`` on real servers: what goes, what stays, and what is asked before."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from perfctl.cache.lock import KEY as LOCK
from tests.fix_perfctl import ROOT, Process, Ran, for_cache, run, until
from tests.fix_servers import Cache

ODD = [b"a b", b"quote\"'", b"line\r\nend", b"\xff\xfe", b"g*[l]?b\\", b" ", b"\xf0\x9f\x98\x80"]


@pytest.fixture
def valkey(redis_server: Cache) -> Cache:
    """Each server in turn."""
    return redis_server


@pytest.fixture
def config(tmp_path: Path, valkey: Cache) -> Path:
    return for_cache(tmp_path, valkey.url)


def flush(config: Path, *arguments: str) -> Ran:
    where = ("--config", str(config), "--journal", str(config.parent / "journal.jsonl"))
    return run("cache", "flush", *arguments, *where, "--format", "json")


def fill(valkey: Cache, **families: int) -> None:
    with valkey.connect() as client, client.pipeline(transaction=False) as pipe:
        for family, count in families.items():
            for number in range(count):
                pipe.set(f"{family}:{number}", "x" * 64, ex=600)
        pipe.execute()


def left(valkey: Cache) -> set[bytes]:
    with valkey.connect() as client:
        return set(client.keys())


def journal(config: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (config.parent / "journal.jsonl").read_text().splitlines()]


def test_what_matches_goes_and_the_rest_stays(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=3000, session=3500)
    item = flush(config, "cache:*", "--yes").items["cache:*"]
    assert item["status"] == "changed"
    numbers = {key: item["data"][key] for key in ("matched", "deleted", "gone", "recreated", "passes")}
    assert numbers == {"matched": 3000, "deleted": 3000, "gone": 0, "recreated": 0, "passes": 2}
    assert left(valkey) == {f"session:{number}".encode() for number in range(3500)}
    begun, ended = journal(config)
    assert (begun["event"], begun["matched"], ended["event"], ended["deleted"]) == ("flush", 3000, "flush ended", 3000)


@pytest.mark.parametrize("key", ODD)
def test_odd_keys_go_and_their_neighbours_stay(config: Path, valkey: Cache, key: bytes) -> None:
    neighbours = {b"b" + part for part in key.split()} | {b"b:" + key, b"line", b"end", b"a"}
    with valkey.connect() as client:
        client.set(b"cache:" + key, "1", ex=60)
        for neighbour in neighbours:
            client.set(neighbour, "1")
    assert flush(config, "cache:*", "--yes").items["cache:*"]["data"]["deleted"] == 1
    assert left(valkey) == neighbours


def test_a_dry_run_deletes_nothing_and_counts_the_same(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=30, session=100)
    item = flush(config, "cache:*", "--dry-run").report["items"][0]
    assert (item["status"], item["data"]["matched"]) == ("planned", 30)
    assert len(left(valkey)) == 130


def test_nobody_to_ask_is_a_refusal(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=30, session=100)
    ran = flush(config, "cache:*")
    assert (ran.code, ran.report["error"]["class"], len(left(valkey))) == (4, "NotConfirmed", 130)


@pytest.mark.parametrize("pattern", ["*", "**", "?*", "*:*", "[^~]*"])
def test_most_of_a_database_wants_its_name(config: Path, valkey: Cache, pattern: str) -> None:
    fill(valkey, cache=60, session=40)
    ran = flush(config, pattern, "--yes")
    assert (ran.code, len(left(valkey))) == (4, 100)
    assert ran.report["error"]["hint"] == "say --confirm test to do it"
    assert flush(config, pattern, "--yes", "--confirm", "wrong").code == 4
    assert flush(config, pattern, "--yes", "--confirm", "test").code == 0
    assert left(valkey) == set()


@pytest.mark.parametrize("kind", ["no TTL", "list", "stream", "zset"])
def test_what_is_no_cache_is_left_unless_it_is_said(config: Path, valkey: Cache, kind: str) -> None:
    fill(valkey, cache=10, session=40)
    with valkey.connect() as client:
        match kind:
            case "list":
                client.rpush("cache:x", "a")
            case "stream":
                client.xadd("cache:x", {"a": "b"})
            case "zset":
                client.zadd("cache:x", {"a": 1})
            case _:
                client.set("cache:x", "a")
        if kind != "no TTL":
            client.expire("cache:x", 60)
    for arguments in (["--yes"], ["--yes", "--confirm", "test"]):
        ran = flush(config, "cache:*", *arguments)
        assert (ran.code, len(left(valkey))) == (4, 51)
        assert "--include-persistent" in ran.report["error"]["hint"]
    assert flush(config, "cache:*", "--yes", "--include-persistent").code == 0
    assert len(left(valkey)) == 40


def test_a_protected_target_wants_its_name(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=10, session=40)
    config.write_text(config.read_text().replace("test: {", "test: {protected: true, "))
    assert flush(config, "cache:*", "--yes").code == 4
    assert flush(config, "cache:*", "--confirm", "test").code == 0
    assert len(left(valkey)) == 40


def test_more_keys_than_expected_are_refused(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=10, session=40)
    assert flush(config, "cache:*", "--yes", "--max-keys", "9").code == 4
    assert flush(config, "cache:*", "--yes", "--max-keys", "10").code == 0


def test_an_empty_pattern_is_refused(config: Path) -> None:
    assert flush(config, "", "--yes").code == 4


def test_one_flush_at_a_time(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=10, session=40)
    with valkey.connect() as client:
        client.set(LOCK, json.dumps({"owner": "ann@host", "pid": 7}), px=60_000)
    ran = flush(config, "cache:*", "--yes")
    assert (ran.code, ran.report["error"]["message"].split(";")[0]) == (
        6,
        "another flush is under way, by ann@host, process 7",
    )
    assert flush(config, "cache:*", "--yes", "--force").code == 0
    assert LOCK not in left(valkey)


def test_the_lock_of_the_flush_is_no_key_of_the_cache(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=10)
    item = flush(config, "*", "--yes", "--confirm", "test").items["*"]
    assert (item["data"]["matched"], item["data"]["recreated"], left(valkey)) == (10, 0, set())


def test_a_missing_right_is_found_before_the_first_delete(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=10, session=40)
    with valkey.connect() as client:
        client.execute_command("ACL", "SETUSER", "half", "on", ">pw", "~*", "+@all", "-unlink")
    config.write_text(config.read_text().replace("unix://", "unix://half:pw@"))
    try:
        ran = flush(config, "cache:*", "--yes")
        assert (ran.code, len(left(valkey))) == (7, 50)
        assert ran.report["error"]["hint"].startswith("ACL SETUSER <user> +unlink")
    finally:
        with valkey.connect() as client:
            client.execute_command("ACL", "DELUSER", "half")


def test_rights_for_some_of_the_keys_are_no_rights(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=40, session=100)
    with valkey.connect() as client:
        client.set("cache:private:1", "x", ex=600)
        client.execute_command(
            "ACL", "SETUSER", "half", "on", ">pw", "~cache:?", "~cache:??", "~cache:?:*", "~cache:??:*"
        )
        client.execute_command("ACL", "SETUSER", "half", "~perfctl:*", "+@all")
    config.write_text(config.read_text().replace("unix://", "unix://half:pw@"))
    ran = flush(config, "cache:*", "--yes", "--include-persistent")
    assert (ran.code, len(left(valkey))) == (7, 141)
    assert flush(config, "cache:?", "--yes").code == 0
    assert flush(config, "cache:*", "--exclude", "cache:private:*", "--yes").code == 0
    assert len(left(valkey)) == 101


def test_keys_that_come_meanwhile_are_told_and_the_flush_ends(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=2000, session=3000)
    ended = threading.Event()

    def write() -> None:
        with valkey.connect() as client:
            number = 0
            while not ended.is_set():
                client.set(f"cache:{number % 500}", "again", ex=60)
                number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        ran = flush(config, "cache:*", "--yes")
    finally:
        ended.set()
        thread.join()
    item = ran.items["cache:*"]
    assert (ran.code, item["data"]["passes"]) == (0, 2)
    assert item["data"]["recreated"] > 0
    assert "somebody goes on writing them" in item["detail"]
    assert sum(key.startswith(b"session:") for key in left(valkey)) == 3000


def test_a_rate_is_kept(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=1000, session=1500)
    item = flush(config, "cache:*", "--yes", "--rate", "2000", "--count", "100", "--passes", "1").items["cache:*"]
    assert item["data"]["flush_s"] > 0.4
    assert item["data"]["deleted"] == 1000


def start(config: Path, *arguments: str) -> Process:
    argv = [sys.executable, "-m", "perfctl", "cache", "flush", *arguments, "--config", str(config), "--format", "json"]
    argv += ["--journal", str(config.parent / "journal.jsonl")]
    return Process(
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    )


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_after_the_page(config: Path, valkey: Cache, signum: int, code: int) -> None:
    fill(valkey, cache=3000, session=4000)
    process = start(config, "cache:*", "--yes", "--rate", "1000", "--count", "50")
    until(lambda: len(left(valkey)) < 6900)
    process.popen.send_signal(signum)
    ran = process.wait()
    gone = 7000 - len(left(valkey))
    assert ran.code == code
    assert 0 < ran.items["cache:*"]["data"]["deleted"] == gone < 3000
    assert journal(config)[-1]["deleted"] == gone
    assert flush(config, "cache:*", "--yes").items["cache:*"]["data"]["deleted"] == 3000 - gone


def test_a_server_that_restarts_is_walked_from_the_beginning(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=3000, session=4000)
    with valkey.connect() as client:
        client.save()
    process = start(config, "cache:*", "--yes", "--rate", "1500", "--count", "50")
    until(lambda: len(left(valkey)) < 6500)
    valkey.server.kill()
    time.sleep(0.5)
    valkey.server.start()
    ran = process.wait()
    assert (ran.code, ran.items["cache:*"]["data"]["restarts"]) == (0, 1)
    assert left(valkey) == {f"session:{number}".encode() for number in range(4000)}


def test_a_replica_is_refused(config: Path, valkey: Cache) -> None:
    fill(valkey, cache=10, session=40)
    with valkey.connect() as client:
        client.replicaof("127.0.0.1", 1)
        try:
            ran = flush(config, "cache:*", "--yes")
            assert (ran.code, ran.report["error"]["hint"]) == (4, "its primary is 127.0.0.1:1")
        finally:
            client.replicaof("NO", "ONE")
    assert len(left(valkey)) == 50


def test_no_command_of_it_is_slow_on_a_large_set(config: Path, valkey: Cache) -> None:
    fill(valkey, session=100)
    with valkey.connect() as client:
        for first in range(0, 1_000_000, 50_000):
            client.sadd("cache:big", *range(first, first + 50_000))
        client.expire("cache:big", 600)
        client.config_set("slowlog-log-slower-than", 5000)
        client.slowlog_reset()
        assert flush(config, "cache:*", "--yes").code == 0
        slow = [entry["command"] for entry in client.slowlog_get(100)]
    assert not [line for line in slow if line.startswith((b"MEMORY", b"SCAN", b"TYPE", b"UNLINK"))]
