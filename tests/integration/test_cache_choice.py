"""Which keys `perfctl cache` means beyond a pattern: families, ages, sizes, plans, whole databases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fix_perfctl import Ran, for_cache, run
from tests.fix_servers import Cache


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
    where = ["--config", str(config), "--format", "json"]
    if command == "flush":
        where += ["--journal", str(config.parent / "journal.jsonl")]
    return run("cache", command, *arguments, *where)


def left(valkey: Cache) -> set[bytes]:
    with valkey.connect() as client:
        return set(client.keys())


def give(valkey: Cache, *keys: bytes, ex: int | None = 600) -> None:
    with valkey.connect() as client:
        for key in keys:
            client.set(key, "x", ex=ex)


OTHERS = [f"session:{number}".encode() for number in range(20)]


def test_an_identifier_takes_its_own_keys_and_no_others(config: Path, valkey: Cache) -> None:
    own = [b"cache:user:42", b"cache:user:42:page:1", b"cache:user:42:a b"]
    near = [b"cache:user:421", b"cache:user:4", b"cache:user:43:42", b"user:42", b"cache:user:42x:y", *OTHERS]
    give(valkey, *own, *near)
    ran = cache(config, "flush", "--family", "user", "--id", "42", "--yes")
    assert ran.items["cache:user:42(:…)"]["data"]["deleted"] == 3
    assert left(valkey) == set(near)


@pytest.mark.parametrize("value", ["*", "?", "[a-z]", "4*", "\\", "{42}", "^", "[^x]*"])
def test_an_identifier_cannot_widen_what_goes(config70: Path, redis70: Cache, value: str) -> None:
    own = b"cache:user:" + value.encode() + b":page"
    give(redis70, own, b"cache:user:42:page", b"cache:user:4:page", b"cache:user:a", *OTHERS)
    assert cache(config70, "flush", "--family", "cache:user", "--id", value, "--yes").code == 0
    assert own not in left(redis70)
    assert len(left(redis70)) == 23


@pytest.mark.parametrize("value", ["", None])
def test_an_identifier_that_is_empty_is_refused(config70: Path, redis70: Cache, value: str | None) -> None:
    give(redis70, b"cache:user:42")
    arguments = ["--family", "cache:user", "--id", ""] if value == "" else ["--family", ""]
    assert cache(config70, "flush", *arguments, "--yes").code == 4
    assert left(redis70) == {b"cache:user:42"}


def test_identifiers_take_the_places_that_a_family_has(config70: Path, redis70: Cache) -> None:
    own = [b"cache:user:42:page:7", b"cache:user:42:page:7:draft"]
    near = [b"cache:user:42:page:8", b"cache:user:43:page:7", b"cache:user:42:7:page:7", *OTHERS]
    give(redis70, *own, *near)
    assert cache(config70, "flush", "--family", "cache:user:*:page:*", "--id", "42", "--id", "7", "--yes").code == 0
    assert left(redis70) == set(near)
    # A place without an identifier is any one part.
    assert cache(config70, "flush", "--family", "cache:user:*:page", "--yes").code == 0
    assert left(redis70) == {b"cache:user:42:7:page:7", *OTHERS}


def test_a_literal_pattern_is_one_key(config70: Path, redis70: Cache) -> None:
    give(redis70, b"cache:*", b"cache:1", b"cache:[a]", *OTHERS)
    assert cache(config70, "flush", "cache:*", "--literal", "--yes").code == 0
    assert cache(config70, "flush", "cache:[a]", "--literal", "--yes").code == 0
    assert left(redis70) == {b"cache:1", *OTHERS}


def test_the_look_and_the_flush_choose_the_same_keys_by_ttl(config: Path, valkey: Cache) -> None:
    give(valkey, b"cache:short", ex=30)
    give(valkey, b"cache:long", ex=7200)
    give(valkey, b"cache:never", ex=None)
    give(valkey, *OTHERS)
    chosen = {"..1m": b"cache:short", "1h..": b"cache:long", "10s..1m": b"cache:short", "none": b"cache:never"}
    for ttl, key in chosen.items():
        found = cache(config, "keys", "cache:*", "--ttl", ttl).report["items"]
        assert [item["name"] for item in found if item["kind"] == "key"] == [key.decode()]
    assert cache(config, "flush", "cache:*", "--ttl", "10s..2m", "--yes").items["cache:*"]["data"]["deleted"] == 1
    assert left(valkey) == {b"cache:long", b"cache:never", *OTHERS}


def test_keys_that_are_used_are_not_idle(config: Path, valkey: Cache) -> None:
    give(valkey, *(f"cache:{number}".encode() for number in range(5)), *OTHERS)
    with valkey.connect() as client:
        # What was idle for long cannot be waited for; RESTORE gives it.
        payload = client.dump("cache:0")
        for number in (1, 3):
            client.execute_command("RESTORE", f"cache:{number}", 600_000, payload, "REPLACE", "IDLETIME", 7200)
    ran = cache(config, "flush", "cache:*", "--idle", "1h", "--yes")
    assert ran.items["cache:*"]["data"]["deleted"] == 2
    assert left(valkey) == {b"cache:0", b"cache:2", b"cache:4", *OTHERS}


def test_under_lfu_nobody_knows_who_is_idle(config70: Path, redis70: Cache) -> None:
    give(redis70, b"cache:1", *OTHERS)
    with redis70.connect() as client:
        client.config_set("maxmemory-policy", "allkeys-lfu")
    ran = cache(config70, "flush", "cache:*", "--idle", "1h", "--yes")
    assert (ran.code, "LFU" in ran.report["error"]["hint"], len(left(redis70))) == (2, True, 21)


def test_keys_by_size(config: Path, valkey: Cache) -> None:
    give(valkey, b"cache:small", *OTHERS)
    with valkey.connect() as client:
        client.set("cache:large", "x" * 3_000_000, ex=60)
        client.set("cache:middle", "x" * 300_000, ex=60)
    shown = cache(config, "keys", "cache:*").report["items"]
    assert [item["name"] for item in shown if item["kind"] == "large key"] == ["cache:large"]
    ran = cache(config, "flush", "cache:*", "--larger", "100kB", "--max-key-size", "1MB", "--yes")
    data = ran.items["cache:*"]["data"]
    assert (data["deleted"], data["too_large"]) == (1, 1)
    assert left(valkey) == {b"cache:small", b"cache:large", *OTHERS}


def test_a_filter_that_the_user_may_not_ask_about_is_told_before_anything_goes(config70: Path, redis70: Cache) -> None:
    give(redis70, b"cache:1", *OTHERS)
    with redis70.connect() as client:
        client.execute_command("ACL", "SETUSER", "half", "on", ">pw", "~*", "+@all", "-memory")
    config70.write_text(config70.read_text().replace("unix://", "unix://half:pw@"))
    ran = cache(config70, "flush", "cache:*", "--larger", "1B", "--yes")
    assert (ran.code, len(left(redis70))) == (7, 21)
    assert ran.report["error"]["hint"].startswith("ACL SETUSER <user> +memory|usage")


def plan_of(ran: Ran) -> str:
    return str(ran.report["items"][0]["data"]["plan"])


def test_a_plan_holds_while_the_keys_are_about_as_many(config70: Path, redis70: Cache) -> None:
    give(redis70, *(f"cache:{number}".encode() for number in range(100)), *(OTHERS * 1), ex=600)
    give(redis70, *(f"other:{number}".encode() for number in range(300)))
    dry = cache(config70, "flush", "cache:*", "--dry-run")
    plan = plan_of(dry)
    assert re.fullmatch(r"[0-9a-f]{10}-100", plan)
    assert f"--plan {plan}" in dry.report["items"][0]["detail"]
    give(redis70, *(f"cache:{number}".encode() for number in range(100, 120)))
    ran = cache(config70, "flush", "cache:*", "--plan", plan, "--yes")
    assert (ran.code, ran.report["error"]["message"]) == (
        4, "the plan was made for 100 keys, and now 120 match; nothing was changed",
    )  # fmt: skip
    with redis70.connect() as client:
        client.delete(*(f"cache:{number}" for number in range(100, 111)))
    assert cache(config70, "flush", "cache:*", "--plan", plan, "--yes").code == 0


def test_a_plan_is_for_one_flush(config70: Path, redis70: Cache) -> None:
    give(redis70, b"cache:1", *OTHERS)
    plan = plan_of(cache(config70, "flush", "cache:*", "--dry-run"))
    for other in (
        ["cache:?"],
        ["cache:*", "--type", "string"],
        ["cache:*", "--soft", "5s"],
        ["cache:*", "--ttl", "..1h"],
    ):
        ran = cache(config70, "flush", *other, "--plan", plan, "--yes")
        assert (ran.code, "another flush" in ran.report["error"]["message"]) == (4, True), other
    assert len(left(redis70)) == 21


def test_the_whole_database_goes_when_its_name_is_given(config: Path, valkey: Cache) -> None:
    give(valkey, *OTHERS)
    with valkey.connect() as client:
        client.execute_command("SELECT", 2)
        client.set("elsewhere", "x")
        assert cache(config, "flush", "--all", "--yes").code == 4
        assert left(valkey) == set(OTHERS)
        ran = cache(config, "flush", "--all", "--confirm", "test")
        assert ran.items["all keys"]["data"]["deleted"] == 20
        # The lock is gone with the rest, and nothing is gone from anywhere else.
        assert (left(valkey), client.keys()) == (set(), [b"elsewhere"])
        stats = client.info("commandstats")
        assert "cmdstat_flushdb" in stats


def test_the_whole_database_is_asked_about_like_any_other_flush(config70: Path, redis70: Cache) -> None:
    give(redis70, *OTHERS)
    give(redis70, b"forever", ex=None)
    ran = cache(config70, "flush", "--all", "--confirm", "test")
    assert (ran.code, "--include-persistent" in ran.report["error"]["hint"], len(left(redis70))) == (4, True, 21)
    for more in (["cache:*"], ["--soft", "5s"], ["--backup", "x"], ["--type", "string"], ["--rate", "5"]):
        assert cache(config70, "flush", "--all", *more, "--confirm", "test").code == 2
    assert len(left(redis70)) == 21


def test_keys_of_other_databases_are_mentioned_and_stay(config70: Path, redis70: Cache) -> None:
    give(redis70, b"cache:1", *OTHERS)
    with redis70.connect() as client:
        client.execute_command("SELECT", 5)
        client.set("cache:1", "x")
        client.execute_command("SELECT", 6)
        client.set("else", "x")
    where = ("--config", str(config70), "--journal", str(config70.parent / "journal.jsonl"))
    ran = run("cache", "flush", "cache:*", "--yes", *where)
    assert "other databases have keys that match too, which are not looked at and stay: 5\n" in ran.stdout
    with redis70.connect() as client:
        client.execute_command("SELECT", 5)
        assert client.keys() == [b"cache:1"]
