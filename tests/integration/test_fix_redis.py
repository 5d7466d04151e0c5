"""The Redis and Valkey servers for tests are what they say, fail over when they are killed, and are mended again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel

from tests.fix_redis import VERSIONS, ask, limited_user
from tests.fix_redis_cluster import PASSWORD, CacheCluster, myself
from tests.fix_redis_proxy import CacheProxy, resp2_only
from tests.fix_redis_sentinel import SentinelSet
from tests.fix_servers import Cache

#: The slot of "foo", by the cluster specification's own example.
FOO = 12182


def test_each_server_is_the_version_that_it_says(request: pytest.FixtureRequest, redis_server: Cache) -> None:
    version = VERSIONS[request.node.callspec.params["redis_server"]]
    told = ask(redis_server.server, "INFO", "server")
    key = "valkey_version" if version.name == "Valkey" else "redis_version"
    assert f"\n{key}:{version.series}." in told.replace("\r", "")


@pytest.mark.parametrize("time", [1, 2])
def test_each_server_is_as_new_for_every_test(redis_server: Cache, time: int) -> None:
    with redis_server.connect() as client:
        assert client.dbsize() == 0, time
        assert client.config_get("maxmemory")["maxmemory"] == "0"
        assert client.acl_users() == ["default"]
        client.set("k", 1)
        client.config_set("maxmemory", "10mb")
        limited_user(redis_server)


def test_a_server_that_a_test_gave_a_password_has_none_for_the_next(
    redis70: Cache, request: pytest.FixtureRequest
) -> None:
    ask(redis70.server, "CONFIG", "SET", "requirepass", "lost")
    again: Cache = request.getfixturevalue("redis_servers")("redis70")
    with again.connect() as client:
        assert client.ping()


def test_a_limited_user_may_do_what_its_rules_say(redis_server: Cache) -> None:
    with redis.Redis.from_url(limited_user(redis_server, "~a*", "+get", "+info")) as client:
        assert client.get("a") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("a", 1)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("b")


def test_a_cluster_serves_all_slots_and_asks_for_a_password(cluster: CacheCluster) -> None:
    cluster.wait_ok()
    assert len(cluster.primaries()) == 3
    assert all(cluster.replica(shard) for shard in range(3))
    with cluster.connect() as client:
        client.set("foo", 1)
        assert client.get("foo") == b"1"
    assert [ask(node, "DBSIZE") for node in cluster.primaries()] == [0, 0, 1]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(cluster.url.replace(PASSWORD, "wrong")).ping()


def test_a_killed_primary_is_replaced_by_its_replica_and_comes_back_as_one(cluster: CacheCluster) -> None:
    replica = cluster.replica(1)
    killed = cluster.kill_primary(1)
    assert cluster.primary(1) is None
    cluster.wait_ok()
    assert cluster.primary(1) is replica
    port = killed.port
    cluster.restore()
    assert (cluster.primary(1), cluster.replica(1), killed.port) == (replica, killed, port)
    assert (killed.data_dir / "nodes.conf").exists()


def test_a_slot_moves_in_steps_and_is_brought_back(cluster: CacheCluster, request: pytest.FixtureRequest) -> None:
    with cluster.connect() as client:
        client.mset_nonatomic({"{foo}1": 1, "{foo}2": 2})
        move = cluster.migrate_slot(FOO, to=0)
        move.begin()
        assert move.move_keys(limit=1) == 1
        assert [client.get(key) for key in ("{foo}1", "{foo}2")] == [b"1", b"2"]
        assert myself(move.source).open_slots == {FOO}
        assert move.move_keys() == 1
        move.finish()
        cluster.wait_ok()
        assert FOO in myself(cluster.primaries()[0]).slots
        assert client.get("{foo}2") == b"2"
    half = cluster.migrate_slot(0, to=1)
    half.begin()
    version = request.node.callspec.params["cluster"]
    healed: CacheCluster = request.getfixturevalue("cache_clusters")(version)
    assert FOO in myself(healed.primaries()[2]).slots
    assert not any(myself(node).open_slots for node in healed.nodes)


def test_a_limited_user_of_a_cluster_is_one_on_every_node(cluster91: CacheCluster) -> None:
    with redis.RedisCluster.from_url(cluster91.limited_user("~*", "+get", "+cluster", "+command")) as client:
        assert [client.get(key) for key in "abcdef"] == [None] * 6
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("a", 1)


def test_sentinels_make_another_node_the_primary(sentinel: SentinelSet) -> None:
    before = sentinel.primary_address()
    # redis-py gives it no types.
    finder: Any = Sentinel
    assert finder(sentinel.addresses).discover_master(sentinel.service) == before
    killed = sentinel.kill_primary()
    assert sentinel.wait_for_new_primary() != before
    sentinel.restore()
    # On a busy machine the Sentinels may have chosen once more, and the one that came back.
    roles = {node.port: ask(node, "ROLE")[0] for node in sentinel.nodes}
    assert roles == {port: "master" if port == sentinel.primary_address()[1] else "slave" for port in roles}
    assert ("127.0.0.1", killed.port) == before
    assert sentinel.url.endswith(f",127.0.0.1:{sentinel.sentinels[2].port}/mymaster/0")


def test_sentinels_do_it_again_on_a_mended_set(sentinel91: SentinelSet) -> None:
    before = sentinel91.primary_address()
    sentinel91.kill_primary()
    assert sentinel91.wait_for_new_primary() != before


def test_a_resp2_proxy_refuses_hello_and_forwards_the_rest(redis_server: Cache) -> None:
    with resp2_only(redis_server.server) as proxy:
        with redis.Redis.from_url(proxy.url, protocol=2) as client:
            with pytest.raises(redis.ResponseError, match=r"unknown command ['`]HELLO"):
                client.execute_command("hello", 3)
            client.set("big", b"x" * 3_000_000)
            pipe = client.pipeline(transaction=False)
            pipe.set("a", "HELLO 3")
            pipe.execute_command("HELLO", 3)
            pipe.get("a")
            first, refused, last = pipe.execute(raise_on_error=False)
            assert (first, last, client.strlen("big")) == (True, b"HELLO 3", 3_000_000)
            assert isinstance(refused, redis.ResponseError)
        with redis.Redis.from_url(proxy.url, protocol=3) as client, pytest.raises(redis.RedisError):
            client.ping()


def test_a_cache_proxy_goes_deaf_and_drops(cache_proxy: CacheProxy) -> None:
    with redis.Redis.from_url(cache_proxy.url, retry=None) as client, ThreadPoolExecutor() as pool:
        assert client.ping()
        cache_proxy.deafen()
        asked = pool.submit(client.ping)
        with pytest.raises(NotYet):
            asked.result(0.2)
        cache_proxy.drop()
        with pytest.raises(redis.ConnectionError):
            asked.result(10)
        cache_proxy.hear()
        assert client.ping()


def test_a_resp2_proxy_is_there_as_a_fixture(resp2_proxy: CacheProxy) -> None:
    with redis.Redis.from_url(resp2_proxy.url, protocol=2) as client:
        assert client.ping()
