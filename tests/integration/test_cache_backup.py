"""A flush that can be taken back: by a backup, or by keys that only begin to expire."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.fix_perfctl import ROOT, Process, Ran, for_cache, run, until
from tests.fix_redis_cluster import CacheCluster
from tests.fix_servers import Cache

ODD = [b"a b", b"quote\"'", b"line\r\nend", b"\xff\xfe", b"g*[l]?b\\", b"", b"*3\r\n$4\r\nECHO"]


@pytest.fixture
def valkey(redis_server: Cache) -> Cache:
    """Each server in turn."""
    return redis_server


@pytest.fixture
def config(tmp_path: Path, valkey: Cache) -> Path:
    return for_cache(tmp_path, valkey.url)


@pytest.fixture
def config70(tmp_path: Path, redis70: Cache) -> Path:
    return for_cache(tmp_path, redis70.url)


def cache(config: Path, command: str, *arguments: str) -> Ran:
    where = ("--config", str(config), "--journal", str(config.parent / "journal.jsonl"), "--format", "json")
    return run("cache", command, *arguments, *where)


def backup(config: Path) -> Path:
    return config.parent / "backup.resp"


def content(client: redis.Redis) -> dict[object, object]:
    return {key: client.dump(key) for key in client.keys("*")}


def load(client: redis.Redis) -> None:
    for number in range(1200):
        client.set(f"cache:{number}", f"value {number}", ex=600)
        client.set(f"session:{number}", "x", ex=600)
    for key in ODD:
        client.set(b"cache:" + key, key, ex=600)
    client.hset("cache:hash", mapping={"a": "1", "b": b"\xff"})
    client.sadd("cache:set", *range(100))
    client.expire("cache:hash", 600)
    client.expire("cache:set", 600)


def test_what_a_backup_has_comes_back_as_it_was(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        load(client)
        before = content(client)
        ran = cache(config, "flush", "cache:*", "--yes", "--confirm", "test", "--backup", str(backup(config)))
        data = ran.items["cache:*"]["data"]
        assert (ran.code, data["deleted"], data["backup_keys"]) == (0, 1209, 1209)
        assert client.dbsize() == 1200
        assert backup(config).stat().st_mode & 0o777 == 0o600
        planned = cache(config, "restore", str(backup(config)), "--dry-run").report["items"][0]
        assert (planned["status"], planned["data"]["keys"], client.dbsize()) == ("planned", 1209, 1200)
        assert cache(config, "restore", str(backup(config))).code == 4
        ran = cache(config, "restore", str(backup(config)), "--yes")
        assert ran.items[str(backup(config))]["data"] == {"restored": 1209, "exists": 0, "expired": 0, "failed": 0}
        assert content(client) == before
        assert all(0 < client.pttl(key) <= 600_000 for key in client.keys("*"))


def test_the_servers_own_client_reads_a_backup(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        load(client)
        before = content(client)
        assert cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70))).code == 0
        socket = redis70.url.removeprefix("unix://").partition("?")[0]
        with backup(config70).open("rb") as stream:
            done = subprocess.run(["redis-cli", "-s", socket, "--pipe"], stdin=stream, capture_output=True, check=True)
        assert b"errors: 0" in done.stdout
        assert content(client) == before


def test_what_is_there_again_stays_and_what_has_expired_stays_away(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        client.set("cache:1", "old", ex=600)
        client.set("cache:2", "short", px=2500)
        client.set("cache:3", "forever")
        client.set("session:1", "x")
        client.set("session:2", "x")
        client.set("session:3", "x")
        client.set("session:4", "x")
        arguments = ("--yes", "--include-persistent", "--backup", str(backup(config)))
        assert cache(config, "flush", "cache:*", *arguments).code == 0
        client.set("cache:1", "new")
        time.sleep(2.6)
        item = cache(config, "restore", str(backup(config)), "--yes").items[str(backup(config))]
        assert item["data"] == {"restored": 1, "exists": 1, "expired": 1, "failed": 0}
        assert (client.get("cache:1"), client.get("cache:2"), client.pttl("cache:3")) == (b"new", None, -1)
        assert cache(config, "restore", str(backup(config)), "--replace", "--yes").code == 0
        assert client.get("cache:1") == b"old"


def test_a_backup_is_never_overwritten(config70: Path, redis70: Cache) -> None:
    backup(config70).write_text("precious")
    with redis70.connect() as client:
        client.set("cache:1", "x", ex=60)
        ran = cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70)))
        assert (ran.code, client.dbsize()) == (2, 1)
    assert backup(config70).read_text() == "precious"


def test_without_a_place_for_the_backup_nothing_goes(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.set("cache:1", "x", ex=60)
        ran = cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", "/nowhere/at/all")
        assert (ran.code, client.dbsize()) == (2, 1)
        # A disk that is full takes the head of the file no more than the values.
        ran = cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", "/dev/full/x")
        assert (ran.code, client.dbsize()) == (2, 1)


def test_a_key_that_is_too_large_for_a_backup_stays(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.set("cache:large", "x" * 6_000_000, ex=600)
        client.set("cache:small", "x", ex=600)
        ran = cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70)))
        assert (ran.items["cache:*"]["data"]["too_large"], client.keys()) == (1, [b"cache:large"])
        other = str(backup(config70)) + ".2"
        ran = cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", other, "--max-key-size", "1GB")
        assert (ran.items["cache:*"]["data"]["backup_keys"], client.keys()) == (1, [])


@pytest.mark.parametrize("command", ["dump", "restore"])
def test_a_missing_right_is_told_before_anything_goes(config70: Path, redis70: Cache, command: str) -> None:
    with redis70.connect() as client:
        client.set("cache:1", "x", ex=60)
        if command == "restore":
            assert cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70))).code == 0
            client.set("other", "x")
        client.execute_command("ACL", "SETUSER", "half", "on", ">pw", "~*", "+@all", f"-{command}")
        config70.write_text(config70.read_text().replace("unix://", "unix://half:pw@"))
        if command == "restore":
            ran = cache(config70, "restore", str(backup(config70)), "--yes")
        else:
            ran = cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70)))
        assert (ran.code, ran.report["error"]["hint"].split(",")[0]) == (7, f"ACL SETUSER <user> +{command}")
        assert client.dbsize() == 1


def test_a_file_that_is_cut_off_gives_what_it_has_and_another_file_is_no_backup(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        load(client)
        assert cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70))).code == 0
        whole = backup(config70).read_bytes()
        backup(config70).write_bytes(whole[: len(whole) // 2])
        ran = run("cache", "restore", str(backup(config70)), "--yes", "--config", str(config70))
        assert "did not come to its end" in ran.stdout
        assert 300 < client.dbsize() - 1200 < 900
        for text in (b"", b"not one", b"*1\r\n$4\r\nPING\r\n", whole[:200] + b"*1\r\n$8\r\nFLUSHALL\r\n"):
            backup(config70).write_bytes(text)
            assert cache(config70, "restore", str(backup(config70)), "--yes").code == 2
        assert client.dbsize() > 1500


def test_a_value_that_the_server_cannot_read_is_told(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        client.set("cache:1", "value", ex=600)
        assert cache(config, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config))).code == 0
        data = backup(config).read_bytes()
        backup(config).write_bytes(data.replace(b"value", b"xalue"))
        ran = cache(config, "restore", str(backup(config)), "--yes")
        assert (ran.code, client.dbsize()) == (2, 0)
        assert "damaged" in ran.report["error"]["message"]


def endless(path: Path) -> bytes:
    """A backup as a flush leaves it that is killed."""
    data = path.read_bytes()
    return data[: data.rindex(b"*2\r\n$4\r\nECHO\r\n")]


def test_a_key_that_went_twice_comes_back_with_its_last_value(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        heads = []
        for value in ("old", "new"):
            client.set("cache:1", value, ex=600)
            client.set("cache:" + value, value, ex=600)
            assert cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70))).code == 0
            heads.append(endless(backup(config70)))
            backup(config70).unlink()
        backup(config70).write_bytes(heads[0] + heads[1][heads[1].index(b"*5\r\n") :])
        ran = cache(config70, "restore", str(backup(config70)), "--yes")
        assert ran.items[str(backup(config70))]["data"] == {"restored": 3, "exists": 0, "expired": 0, "failed": 0}
        assert client.get("cache:1") == b"new"


def test_one_damaged_value_keeps_no_other_away(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        for number in range(50):
            client.set(f"cache:{number}", f"value {number}", ex=600)
        assert cache(config, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config))).code == 0
        backup(config).write_bytes(endless(backup(config)).replace(b"value ", b"xalue ", 1))
        ran = cache(config, "restore", str(backup(config)), "--yes")
        item = ran.items[str(backup(config))]
        assert item["data"] == {"restored": 49, "exists": 0, "expired": 0, "failed": 1}
        assert (ran.code, item["status"], client.dbsize()) == (5, "failed", 49)
        assert "1 refused: the value in the backup is damaged" in item["detail"]


def test_a_server_that_is_too_old_is_told_at_the_first_value(
    tmp_path: Path, config70: Path, redis70: Cache, valkey91: Cache
) -> None:
    (tmp_path / "new").mkdir()
    newer = for_cache(tmp_path / "new", valkey91.url)
    with valkey91.connect() as client, redis70.connect() as old:
        for number in range(50):
            client.set(f"cache:{number}", f"value {number}", ex=600)
        assert cache(newer, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70))).code == 0
        ran = cache(config70, "restore", str(backup(config70)), "--yes")
        assert (ran.code, old.dbsize()) == (4, 0)
        assert "cannot read the values of the server" in ran.report["error"]["message"]


def test_a_server_that_is_full_is_told_with_what_was_restored(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        for number in range(60):
            client.set(f"cache:{number}", str(number) * 50_000, ex=600)
        assert cache(config70, "flush", "cache:*", "--confirm", "test", "--backup", str(backup(config70))).code == 0
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 3_000_000)
        try:
            ran = cache(config70, "restore", str(backup(config70)), "--yes")
        finally:
            client.config_set("maxmemory", 0)
        assert (ran.code, 0 < client.dbsize() < 60) == (5, True)
        assert f"stopped after {client.dbsize()} keys" in ran.report["error"]["message"]
        assert cache(config70, "restore", str(backup(config70)), "--yes").code == 0
        assert client.dbsize() == 60


def test_keys_that_are_still_dying_get_their_lives_back(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        for number in range(50):
            client.set(f"cache:{number}", f"value {number}", ex=6000 if number % 2 else None)
        # Of less life than what it would be left with, mostly: it stays as it is.
        client.set("cache:short", "x", ex=50)
        options = ("--soft", "600s", "--include-persistent", "--yes", "--confirm", "test")
        ran = cache(config, "flush", "cache:*", *options, "--backup", str(backup(config)))
        assert (ran.code, client.dbsize()) == (0, 51)
        client.delete("cache:0", "cache:1")
        client.set("cache:2", "new", ex=30)
        client.set("cache:3", "value 3", ex=9000)
        item = cache(config, "restore", str(backup(config)), "--yes").items[str(backup(config))]
        assert item["data"] == {"restored": 49, "exists": 2, "expired": 0, "failed": 0}
        assert (client.get("cache:2"), client.ttl("cache:2") <= 30, client.ttl("cache:3") > 8000) == (
            b"new",
            True,
            True,
        )
        assert 30 < client.ttl("cache:short") <= 50
        for number in {*range(50)} - {2, 3}:
            assert client.get(f"cache:{number}") == f"value {number}".encode()
            assert client.ttl(f"cache:{number}") > 5900 if number % 2 else client.ttl(f"cache:{number}") == -1


def test_keys_of_a_cluster_that_are_still_dying_get_their_lives_back(tmp_path: Path, cluster91: CacheCluster) -> None:
    config = for_cache(tmp_path, cluster91.url)
    with cluster91.connect() as client:
        for number in range(100):
            client.set(f"cache:{number}", str(number), ex=6000)
        ran = cache(config, "flush", "cache:*", "--soft", "60s", "--confirm", "test", "--backup", str(backup(config)))
        assert ran.code == 0
        ran = cache(config, "restore", str(backup(config)), "--yes")
        assert ran.items[str(backup(config))]["data"]["restored"] == 100
        assert all(client.ttl(f"cache:{number}") > 5900 for number in range(100))


def test_a_stop_in_the_middle_leaves_every_deleted_key_in_the_backup(config70: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        load(client)
        before = content(client)
        argv = [sys.executable, "-m", "perfctl", "cache", "flush", "cache:*", "--confirm", "test", "--rate", "500"]
        argv += ["--count", "50", "--backup", str(backup(config70)), "--config", str(config70)]
        argv += ["--journal", str(config70.parent / "journal.jsonl"), "--format", "json"]
        out = subprocess.PIPE
        process = Process(subprocess.Popen(argv, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        until(lambda: client.dbsize() < 2300)
        # Not even a kill loses a value.
        process.popen.send_signal(signal.SIGKILL)
        process.popen.wait()
        process.popen.communicate()
        assert 1200 < client.dbsize() < 2409
        client.delete("perfctl:flush")
        assert cache(config70, "restore", str(backup(config70)), "--yes").code == 0
        assert content(client) == before


def test_a_cluster_is_backed_up_and_restored_node_by_node(tmp_path: Path, cluster91: CacheCluster) -> None:
    config = for_cache(tmp_path, cluster91.url)
    with cluster91.connect() as client:
        for number in range(600):
            client.set(f"cache:{number}", str(number), ex=600)
            client.set(f"session:{number}", "x", ex=600)
        client.set("session:more", "x", ex=600)
        ran = cache(config, "flush", "cache:*", "--yes", "--backup", str(backup(config)))
        assert (ran.code, ran.items["cache:*"]["data"]["backup_keys"]) == (0, 600)
        ran = cache(config, "restore", str(backup(config)), "--yes")
        assert ran.items[str(backup(config))]["data"]["restored"] == 600
        assert [client.get(f"cache:{number}") for number in range(600)] == [b"%d" % number for number in range(600)]


def test_keys_expire_one_after_the_other(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        for number in range(400):
            client.set(f"cache:{number}", "x", ex=600)
            client.set(f"session:{number}", "x", ex=600)
        client.set("session:more", "x", ex=600)
        client.set("cache:sooner", "x", px=60_000)
        client.set("cache:forever", "x")
        ran = cache(config, "flush", "cache:*", "--soft", "1h", "--yes", "--confirm", "test", "--include-persistent")
        data = ran.items["cache:*"]["data"]
        assert (ran.code, data["matched"], data["deleted"], data["passes"]) == (0, 402, 0, 1)
        assert client.dbsize() == 803
        lives = [client.pttl(f"cache:{number}") for number in range(400)]
        # Whoever had less keeps it; for 600 s within an hour, that is five of six.
        assert max(lives) <= 600_000
        assert 20 < sum(life < 590_000 for life in lives) < 130
        assert 0 < client.pttl("cache:sooner") <= 60_000
        assert 0 < client.pttl("cache:forever") <= 3_600_000
        assert data["expiring"] == data["matched"] - data["gone"]
        assert all(client.pttl(f"session:{number}") > 500_000 for number in range(400))
        assert cache(config, "flush", "cache:*", "--soft", "1ms", "--confirm", "test", "--include-persistent").code == 0
        until(lambda: not client.keys("cache:*"))
        assert len(client.keys("session:*")) == 401


def test_a_soft_flush_of_a_cluster(tmp_path: Path, cluster: CacheCluster) -> None:
    config = for_cache(tmp_path, cluster.url)
    with cluster.connect() as client:
        for number in range(200):
            client.set(f"cache:{number}", "x", ex=600)
        ran = cache(config, "flush", "cache:*", "--soft", "10s", "--confirm", "test")
        assert (ran.code, ran.items["cache:*"]["data"]["expiring"]) == (0, 200)
        assert max(client.pttl(f"cache:{number}") for number in range(200)) <= 10_000


def test_the_whole_of_a_cluster(tmp_path: Path, cluster: CacheCluster) -> None:
    config = for_cache(tmp_path, cluster.url)
    with cluster.connect() as client:
        for number in range(300):
            client.set(f"cache:{number}", "x", ex=600)
        ran = cache(config, "flush", "--all", "--confirm", "test")
        assert (ran.code, ran.items["all keys"]["data"]["deleted"]) == (0, 300)
        assert client.dbsize(target_nodes=redis.RedisCluster.PRIMARIES) == 0


def test_impossible_wishes_are_told(config70: Path) -> None:
    for arguments in (["--soft", "0s"], ["--soft", "5s", "--passes", "2"], ["--soft", "soon"], ["--max-key-size", "9"]):
        assert cache(config70, "flush", "cache:*", *arguments).code == 2
