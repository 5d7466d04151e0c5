"""What ``perfctl cache keys`` says of real servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.fix_perfctl import ROOT, Process, Ran, for_cache, run, until
from tests.fix_redis_proxy import CacheProxy
from tests.fix_servers import Cache

ODD = [b"a b", b"quote\"'", b"line\r\nend", b"\xff\xfe", b"g*[l]?b\\"]


@pytest.fixture
def valkey(redis_server: Cache) -> Cache:
    """Each server in turn."""
    return redis_server


@pytest.fixture
def config(tmp_path: Path, valkey: Cache) -> Path:
    return for_cache(tmp_path, valkey.url)


def ask(config: Path, *arguments: str, form: str = "json") -> Ran:
    return run("cache", "keys", *arguments, "--config", str(config), "--format", form)


def load(valkey: Cache) -> None:
    with valkey.connect() as client, client.pipeline(transaction=False) as pipe:
        for number in range(1, 301):
            pipe.set(f"cache:user:{number}:page", "x" * 64, ex=300)
        for number in range(100):
            pipe.set(f"cache:report:{number}", "x", ex=60)
        pipe.rpush("cache:queue", "job")
        pipe.set("session:1", "x")
        pipe.execute()


def test_how_many_of_what_families_and_kinds(config: Path, valkey: Cache) -> None:
    load(valkey)
    found = ask(config, "cache:*").items
    whole = found["cache:*"]["data"]
    assert (whole["keys"], whole["matched"], whole["sampled"]) == (402, 401, 401)
    assert whole["types"] == {"string": 0.9975, "list": 0.0025}
    assert whole["without_ttl"]["share"] == whole["without_ttl"]["low"] == 0.0025
    assert 401 * 40 < whole["size_bytes"] < 401 * 400
    families = {name: item["data"]["keys"] for name, item in found.items() if item["kind"] == "family"}
    assert families == {"cache:user:*:page": 300, "cache:report:*": 100, "cache:queue": 1}
    assert sum(item["kind"] == "key" for item in found.values()) == 10


def test_what_a_pattern_takes_in_that_is_likely_not_meant(config: Path, valkey: Cache) -> None:
    load(valkey)
    report = ask(config, "cache:user:1*").report
    (near,) = [item for item in report["items"] if item["kind"] == "near miss"]
    # Users 10 to 19 and 100 to 199.
    assert near["data"] == {"keys": 110, "names": 110}
    assert near["remedy"] == "cache:user:1:* leaves them out"
    assert not [item for item in ask(config, "cache:user:1:*").report["items"] if item["kind"] == "near miss"]


def test_types_and_exceptions(config: Path, valkey: Cache) -> None:
    load(valkey)
    assert ask(config, "*", "--type", "list").items["*"]["data"]["matched"] == 1
    assert ask(config, "*", "--exclude", "cache:user:*", "--exclude", "session:?").items["*"]["data"]["matched"] == 101


@pytest.mark.parametrize("key", ODD)
def test_odd_keys_are_counted_and_harmless_on_the_screen(config: Path, valkey: Cache, key: bytes) -> None:
    with valkey.connect() as client:
        client.set(key, "1")
        client.set("bystander", "1")
    ran = ask(config, "[^b]*", form="text")
    assert ran.code == 0
    assert "1 of 2 keys" in ran.stdout
    assert "\r" not in ran.stdout
    assert len(ran.stdout.splitlines()) == 8


def test_a_sample_says_how_far_it_may_be_off(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client, client.pipeline(transaction=False) as pipe:
        for number in range(5000):
            pipe.set(f"cache:n:{number}", "x", ex=None if number % 4 else 600)
        pipe.execute()
    whole = ask(config, "cache:*").items["cache:*"]["data"]
    assert (whole["matched"], whole["sampled"]) == (5000, 2000)
    ttl = whole["without_ttl"]
    assert 0.65 < ttl["low"] < ttl["share"] < ttl["high"] < 0.85


def test_nothing_matches(config: Path) -> None:
    ran = ask(config, "cache:*")
    assert (ran.code, ran.items["cache:*"]["data"]) == (0, {"keys": 0, "matched": 0})


def test_a_type_that_the_server_does_not_know(tmp_path: Path, valkey91: Cache) -> None:
    ran = ask(for_cache(tmp_path, valkey91.url), "*", "--type", "nonsense")
    assert (ran.code, ran.report["error"]["message"]) == (2, 'the server knows no type "nonsense"')


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_heard_while_a_server_does_not_answer(
    tmp_path: Path, cache_proxy: CacheProxy, signum: int, code: int
) -> None:
    with redis.Redis.from_url(cache_proxy.url) as client:
        client.mset({f"cache:{number}": "x" for number in range(100_000)})
    until(lambda: cache_proxy.connections == 0)
    config = for_cache(tmp_path, cache_proxy.url)
    argv = [sys.executable, "-m", "perfctl", "cache", "keys", "*", "--timeout", "1h", "--config", str(config)]
    out = subprocess.PIPE
    process = Process(subprocess.Popen(argv, text=True, cwd=ROOT, stdout=out, stderr=out))
    # The first connection asks what stands behind the address, the second one walks.
    until(lambda: cache_proxy.connections == 2)
    cache_proxy.deafen()
    process.popen.send_signal(signum)
    assert process.wait().code == code


def test_a_stream_of_events_ends_with_the_report(config: Path, valkey: Cache) -> None:
    load(valkey)
    first, *_, last = ask(config, "cache:*", form="ndjson").events
    assert (first["event"], first["matched"] > 0, last["event"]) == ("looking", True, "report")


def test_an_empty_pattern_is_refused(config: Path) -> None:
    assert ask(config, "").report["error"]["class"] == "Refused"


def test_a_target_without_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "perfctl.yaml"
    path.write_text("version: 1\ntargets: {test: {database: {dsn: 'postgresql://h/d'}}}\n")
    ran = ask(path, "*")
    assert (ran.code, ran.report["error"]["message"]) == (2, 'target "test" has no cache')


def test_nobody_listens(tmp_path: Path) -> None:
    ran = ask(for_cache(tmp_path, "redis://:canary@127.0.0.1:1/0"), "*")
    assert (ran.code, "canary" in ran.stdout + ran.stderr) == (3, False)


def test_a_key_beyond_the_applications_own_is_mentioned(config: Path) -> None:
    assert 'begin with "cache:"' in ask(config, "session:*", form="text").stdout


def test_missing_rights_are_named(tmp_path: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        client.set("cache:1", "x")
        client.execute_command(
            "ACL", "SETUSER", "looker", "on", ">pw", "~*", "+info", "+scan", "+dbsize", "+type", "+pttl"
        )
    path = for_cache(tmp_path, valkey.url.replace("unix://", "unix://looker:pw@"))
    try:
        ran = ask(path, "*")
        assert ran.code == 0
        assert "sizes unknown: MEMORY USAGE: NOPERM" in ran.items["*"]["detail"]
        with valkey.connect() as client:
            client.execute_command("ACL", "SETUSER", "looker", "-scan")
        ran = ask(path, "*")
        assert (ran.code, ran.report["error"]["hint"].split(",")[0]) == (7, "ACL SETUSER <user> +scan")
    finally:
        with valkey.connect() as client:
            client.execute_command("ACL", "DELUSER", "looker")


def test_a_large_set_stalls_nobody(config: Path, valkey: Cache) -> None:
    with valkey.connect() as client:
        for start in range(0, 200_000, 10_000):
            client.sadd("cache:big", *range(start, start + 10_000))
        client.config_set("slowlog-log-slower-than", 5000)
        client.slowlog_reset()
        assert ask(config, "*").items["*"]["data"]["matched"] == 1
        # The test's own commands are not among those that a slow machine may put there.
        slow = [entry["command"] for entry in client.slowlog_get(100)]
        assert not [line for line in slow if line.startswith((b"MEMORY", b"SCAN", b"TYPE"))]
