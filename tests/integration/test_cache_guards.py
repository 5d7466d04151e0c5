"""What a flush must not do, whatever it is asked or whatever comes in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from perfctl.cache.lock import KEY as LOCK
from perfctl.cache.lock import FlushLock
from perfctl.cache.route import Router
from perfctl.servers.deployment import connect
from perfctl.servers.redis import read_address
from tests.fix_perfctl import ROOT, Process, Ran, for_cache, run, until
from tests.fix_redis_cluster import CacheCluster
from tests.fix_servers import Cache


@pytest.fixture
def config(tmp_path: Path, redis70: Cache) -> Path:
    return for_cache(tmp_path, redis70.url)


def cache(config: Path, command: str, *arguments: str) -> Ran:
    where = ["--config", str(config), "--format", "json"]
    if command != "keys":
        where += ["--journal", str(config.parent / "journal.jsonl")]
    return run("cache", command, *arguments, *where)


def start(config: Path, *arguments: str) -> Process:
    argv = [sys.executable, "-m", "perfctl", "cache", "flush", *arguments, "--config", str(config), "--format", "json"]
    argv += ["--journal", str(config.parent / "journal.jsonl")]
    out = subprocess.PIPE
    return Process(subprocess.Popen(argv, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out))


def fill(valkey: Cache, **families: int) -> None:
    with valkey.connect() as client, client.pipeline(transaction=False) as pipe:
        for family, count in families.items():
            for number in range(count):
                pipe.set(f"{family}:{number}", "old", ex=600)
        pipe.execute()


def count(valkey: Cache) -> int:
    with valkey.connect() as client:
        return len(client.keys())


@pytest.mark.parametrize("option", ["--backup", "--type", "--plan", "--exclude", "--ttl", "--soft", "--rate"])
def test_an_option_without_a_value_takes_no_guard_away(config: Path, redis70: Cache, option: str) -> None:
    fill(redis70, cache=5, session=10)
    assert cache(config, "flush", "cache:*", option, "", "--yes").code == 2
    assert count(redis70) == 15


def test_the_whole_database_is_not_meant_by_an_empty_family(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=5)
    for narrower in (["--family", ""], ["--id", ""], ["--type", ""]):
        assert cache(config, "flush", "--all", *narrower, "--confirm", "test").code == 2
    assert count(redis70) == 5


@pytest.mark.parametrize(
    "arguments",
    [["--soft", "0.1ms"], ["--type", "strüng"], ["--exclude", "[c:[-\udcff^"], ["--plan", "x"], ["--ttl", "2h..1h"]],
)
def test_wishes_that_make_no_sense_are_told(config: Path, redis70: Cache, arguments: list[str]) -> None:
    fill(redis70, cache=5, session=10)
    assert cache(config, "flush", "cache:*", *arguments, "--yes").code == 2
    assert count(redis70) == 15


def test_what_is_written_while_a_flush_waits_is_in_its_backup(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=300, session=400)
    backup = str(config.parent / "backup.resp")
    process = start(config, "cache:*", "--yes", "--rate", "100", "--backup", backup, "--passes", "1")
    until(lambda: count(redis70) < 690)
    with redis70.connect() as client:
        newer = {number for number in range(300) if client.set(f"cache:{number}", "new", ex=600, xx=True)}
        assert process.wait().code == 0
        assert newer
        # The lock has gone with the flush.
        assert count(redis70) == 400
        assert cache(config, "restore", backup, "--yes").code == 0
        values = {number: client.get(f"cache:{number}") for number in range(300)}
    assert {number for number, value in values.items() if value == b"new"} == newer
    assert set(values.values()) == {b"new", b"old"}


def test_keys_that_never_expire_stay_however_rare_they_are(config: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.set("cache:forever", "x")
        for _ in range(4):
            fill(redis70, cache=6000, session=7000)
            ran = cache(config, "flush", "cache:*", "--yes")
            # Where the sample shows it the flush is refused, and where it does not the key is left.
            if ran.code == 0:
                item = ran.items["cache:*"]
                assert (item["data"]["deleted"], item["data"]["lasting"]) == (6000, 1)
                assert "--include-persistent takes them too" in item["detail"]
            else:
                assert ran.code == 4
            assert client.exists("cache:forever")
        assert cache(config, "flush", "cache:*", "--yes", "--include-persistent").code == 0
        assert not client.exists("cache:forever")


def test_a_lock_is_kept_alive_taken_again_and_given_up(redis70: Cache) -> None:
    deployment = connect(read_address(redis70.url, None, "test", 5.0))
    router = Router(deployment, deployment.node.address)
    lock = FlushLock(router, renew_every_s=0.02)
    lock.take(force=False)
    with redis70.connect() as client:
        client.pexpire(LOCK, 5000)
        until(lambda: client.pttl(LOCK) > 50_000)
        # A server that failed may come back without it.
        client.delete(LOCK)
        until(lambda: client.exists(LOCK))
        assert not lock.lost
        client.set(LOCK, "another's", px=60_000)
        until(lambda: lock.lost)
        lock.release()
        assert client.get(LOCK) == b"another's"
    router.close()
    deployment.close()


def test_a_lock_of_another_type_is_told(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=5, session=10)
    with redis70.connect() as client:
        client.hset(LOCK, "a", "b")
    ran = cache(config, "flush", "cache:*", "--yes")
    assert (ran.code, "perfctl:flush is of another type" in ran.report["error"]["message"]) == (6, True)


def test_a_server_without_memory_can_be_flushed(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=50, session=100)
    with redis70.connect() as client:
        client.config_set("maxmemory", "100kb")
        ran = cache(config, "flush", "cache:*", "--yes")
        assert (ran.code, "--force" in ran.report["error"]["hint"]) == (4, True)
        assert cache(config, "flush", "cache:*", "--yes", "--force").code == 0
        assert count(redis70) == 100
        assert cache(config, "flush", "--all", "--confirm", "test", "--force").code == 0
        assert count(redis70) == 0


def test_rights_for_a_pattern_that_is_no_prefix_are_enough(config: Path, redis70: Cache) -> None:
    fill(redis70, session=20)
    with redis70.connect() as client:
        for number in range(3):
            client.set(f"tenant:{number}:data", "x", ex=60)
        rights = ("~tenant:*:data", "~perfctl:flush", "+@all")
        client.execute_command("ACL", "SETUSER", "half", "on", ">pw", *rights)
        config.write_text(config.read_text().replace("unix://", "unix://half:pw@"))
        assert cache(config, "flush", "tenant:*:data", "--yes").code == 0
        # Who may open no transaction is tried on other names, and those have no right.
        client.execute_command("ACL", "SETUSER", "half", "-multi")
        client.set("tenant:1:data", "x", ex=60)
        assert cache(config, "flush", "tenant:*:data", "--yes").code == 7
    assert count(redis70) == 21


def test_a_right_that_one_server_lacks_is_found_before_the_first_delete(
    tmp_path: Path, cluster91: CacheCluster
) -> None:
    with cluster91.connect() as client:
        for number in range(300):
            client.set(f"cache:{number}", "x", ex=600)
            client.set(f"session:{number}", "x", ex=600)
            client.set(f"session:more:{number}", "x", ex=600)
        url = cluster91.limited_user("~*", "+@all")
        last = cluster91.primaries()[-1]
        with redis.Redis.from_url(last.url) as one:
            one.execute_command("ACL", "SETUSER", "limited", "-unlink")
        ran = cache(for_cache(tmp_path, url), "flush", "cache:*", "--yes")
        assert (ran.code, ran.report["error"]["hint"].split(",")[0]) == (7, "ACL SETUSER <user> +unlink")
        assert all(client.exists(f"cache:{number}") for number in range(300))


def test_a_flush_that_did_not_begin_is_not_in_the_journal(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=5, session=10)
    with redis70.connect() as client:
        client.set(LOCK, "another's", px=60_000)
    assert cache(config, "flush", "cache:*", "--yes").code == 6
    assert not (config.parent / "journal.jsonl").exists()


def test_without_a_journal_nothing_goes_and_the_lock_is_given_back(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=5, session=10)
    ran = run(
        "cache", "flush", "cache:*", "--yes", "--config", str(config), "--journal", "/dev/full", "--format", "json"
    )
    assert (ran.code, count(redis70)) == (2, 15)


def test_a_plan_whose_number_was_changed_is_none(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=100, session=300)
    plan = cache(config, "flush", "cache:*", "--dry-run").report["items"][0]["data"]["plan"]
    fill(redis70, cache=150)
    changed = plan.replace("-100", "-150")
    assert cache(config, "flush", "cache:*", "--plan", changed, "--yes").code == 4
    assert count(redis70) == 450


def test_keys_that_are_all_too_large_are_told(config: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.set("cache:1", "x" * 6_000_000, ex=600)
    item = cache(config, "flush", "cache:*", "--yes", "--backup", str(config.parent / "b")).report["items"][0]
    assert (item["status"], item["data"]["too_large"]) == ("skipped", 1)
    assert "takes more than 4.0 MB" in item["detail"]


def test_an_address_may_have_the_applications_own_options(config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace("?db=0", "?db=0&socket_timeout=3&max_connections=7&protocol=3"))
    assert cache(config, "keys", "x*").code == 0
    config.write_text(text.replace("?db=0", "?db=0&sock_timeout=3"))
    ran = cache(config, "keys", "x*")
    assert (ran.code, "sock_timeout" in ran.report["error"]["message"]) == (2, True)


def test_a_closed_stream_does_not_end_a_flush_half_way(config: Path, redis70: Cache) -> None:
    fill(redis70, cache=10, session=20)
    words = f"{sys.executable} -m perfctl cache flush 'cache:*' --yes --config {config} --journal {config.parent}/j"
    for closed in (">&-", "2>&-"):
        fill(redis70, cache=10)
        done = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=ROOT, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
        assert count(redis70) == 20


def test_a_long_name_is_cut_on_the_screen(config: Path, redis70: Cache) -> None:
    with redis70.connect() as client:
        client.set("cache:" + "x" * 1_000_000, "1", ex=60)
    assert len(cache(config, "keys", "cache:*").stdout) < 10_000
