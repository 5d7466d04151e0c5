"""What addresses and a cluster's own table of nodes say."""

from __future__ import annotations

import pytest
from redis.connection import SSLConnection

from perfctl.errors import ConfigError, Unreachable
from perfctl.servers.deployment import SLOTS, primaries_of, version_of
from perfctl.servers.redis import Address, read_address

ASKED = Address("10.0.0.1", 7000)
A, B = "a" * 40, "b" * 40


def nodes(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_primaries_with_their_slots() -> None:
    text = nodes(
        f"{A} 10.0.0.1:7000@17000,host-a myself,master - 0 0 1 connected 0-8191 [93->-{B}] [9000-<-{B}]",
        f"{B} 10.0.0.2:7001@17001 master - 0 1 2 connected 8192-16383",
        f"{'c' * 40} 10.0.0.3:7002@17002 slave {A} 0 1 1 connected",
        f"{'d' * 40} 10.0.0.4:7003@17003 master - 0 1 3 connected",
    )
    first, second = primaries_of(text, ASKED)
    assert (first.address, second.address) == (ASKED, Address("10.0.0.2", 7001))
    assert len(first.slots) + len(second.slots) == SLOTS
    assert (first.moving, second.moving) == (frozenset({93, 9000}), frozenset())


def test_a_node_that_does_not_know_its_address_has_the_one_that_was_asked() -> None:
    (found,) = primaries_of(f"{A} :7000@17000 myself,master - 0 0 1 connected 5", ASKED)
    assert (found.address, found.slots) == (ASKED, frozenset({5}))


def test_a_failed_primary_that_holds_slots_is_no_cluster_to_work_on() -> None:
    with pytest.raises(Unreachable) as raised:
        primaries_of(f"{A} 10.0.0.9:7000@17000 master,fail - 0 0 1 disconnected 0-16383", ASKED)
    assert "10.0.0.9:7000 has failed" in raised.value.message


@pytest.mark.parametrize(
    ("url", "addresses", "db"),
    [
        ("redis://cache", ["cache:6379"], 0),
        ("valkeys://u:p@cache:7000/3", ["cache:7000"], 3),
        ("redis://[::1]:7000", ["[::1]:7000"], 0),
        ("redis://a:1,b:2,c/1", ["a:1", "b:2", "c:6379"], 1),
        ("unix:///run/valkey.sock?db=2", ["/run/valkey.sock"], 2),
        ("redis+sentinel://a,b:5/reviews/4", ["a:26379", "b:5"], 4),
    ],
)
def test_addresses(url: str, addresses: list[str], db: int) -> None:
    found = read_address(url, None, "perfctl", 5.0)
    assert ([str(each) for each in found.addresses], found.login.db) == (addresses, db)


@pytest.mark.parametrize(("scheme", "tls"), [("redis", False), ("valkey", False), ("rediss", True), ("valkeys", True)])
def test_schemes_that_ask_for_tls(scheme: str, tls: bool) -> None:
    assert (read_address(f"{scheme}://h:1/0", None, "perfctl", 5.0).login.factory is SSLConnection) is tls


def test_a_sentinels_address_names_the_service() -> None:
    found = read_address("redis+sentinel://a,b:5/reviews", None, "perfctl", 5.0)
    assert (found.through_sentinel, found.service) == (True, "reviews")


def test_the_password_of_a_file_goes_before_the_urls() -> None:
    assert read_address("redis://u:old@a", "new", "perfctl", 5.0).login.password == "new"


def test_no_part_of_a_login_is_shown() -> None:
    assert "canary" not in repr(read_address("redis://u:canary@a", None, "perfctl", 5.0))
    with pytest.raises(ConfigError) as raised:
        read_address("redis://u:canary@a:port", None, "perfctl", 5.0)
    assert "canary" not in raised.value.message


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"redis_version": "7.0.15"}, "Redis 7.0.15"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, "Valkey 9.1.2"),
    ],
)
def test_versions(facts: dict[str, str], shown: str) -> None:
    assert version_of(facts) == shown
