"""One connection to a real Valkey, and what its refusals become."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from perfctl.embedded import start_valkey
from perfctl.errors import CommandFailed, ConfigError, ConnectionLost, Denied, NoAnswer, Unreachable
from perfctl.servers.deployment import Deployment, connect
from perfctl.servers.redis import Address, Login, Seeds, open_node, read_address
from tests.fix_servers import Cache

ODD = [b"a b", b"quote\"'", b"line\r\n:5\r\nend", b"\xff\xfe", b"g*[l]?b\\", b""]


def seeds(cache: Cache, **login: Any) -> Seeds:
    found = read_address(cache.url, None, "perfctl/test", 5.0)
    return replace(found, login=replace(found.login, **login))


@pytest.fixture
def deployment(valkey: Cache) -> Iterator[Deployment]:
    found = connect(seeds(valkey))
    yield found
    found.close()


def test_one_server_is_its_own_primary(deployment: Deployment) -> None:
    assert (deployment.kind, deployment.version[:9]) == ("standalone", "Valkey 9.")
    assert [each.address for each in deployment.primaries()] == [deployment.node.address]


def test_keys_come_back_byte_for_byte(deployment: Deployment) -> None:
    node = deployment.node
    assert node.calls([("SET", key, b"1") for key in ODD]) == [b"OK"] * len(ODD)
    cursor, keys = node.call("SCAN", "0", "COUNT", 100)
    assert (cursor, sorted(keys)) == (b"0", sorted(ODD))
    assert node.call("UNLINK", *keys) == len(ODD)


def test_a_refusal_among_several_commands_is_a_value_in_its_place(deployment: Deployment) -> None:
    first, second, third = deployment.node.calls([("SET", "a", 1), ("LPUSH", "a", "secret"), ("GET", "a")])
    assert (first, third) == (b"OK", b"1")
    assert isinstance(second, CommandFailed)
    assert second.code == "WRONGTYPE"
    assert "secret" not in second.message


def test_the_connection_has_a_name(deployment: Deployment) -> None:
    assert deployment.node.call("CLIENT", "GETNAME") == b"perfctl/test"


def test_a_missing_right_is_denied_with_what_grants_it(valkey: Cache, deployment: Deployment) -> None:
    deployment.node.call("ACL", "SETUSER", "looker", "on", ">pw", "~*", "+scan", "+info")
    try:
        found = connect(seeds(valkey, username="looker", password="pw"))
        with pytest.raises(Denied) as raised:
            found.node.call("UNLINK", "a")
        found.close()
        assert (raised.value.hint or "").startswith("ACL SETUSER <user> +unlink")
    finally:
        deployment.node.call("ACL", "DELUSER", "looker")


@pytest.mark.parametrize("login", [{"password": "canary"}, {"username": "nobody", "password": "canary"}])
def test_a_wrong_password_is_denied_and_not_shown(login: dict[str, Any]) -> None:
    with start_valkey(password="right") as server:
        found = read_address(f"unix://{server.socket_path}", None, "perfctl/test", 5.0)
        with pytest.raises(Denied) as raised:
            connect(replace(found, login=replace(found.login, **login)))
        assert "canary" not in raised.value.message
        with pytest.raises(Denied):
            connect(found)


def test_a_database_that_is_not_there_is_a_fault_of_the_configuration(valkey: Cache) -> None:
    with pytest.raises(ConfigError) as raised:
        connect(seeds(valkey, db=4711))
    assert "has no database 4711" in raised.value.message


def test_the_first_host_that_answers_counts(valkey: Cache) -> None:
    found = seeds(valkey)
    deployment = connect(replace(found, addresses=(Address("127.0.0.1", 1), *found.addresses)))
    assert deployment.node.call("PING") == b"PONG"
    deployment.close()


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable) as raised:
        open_node(Address("127.0.0.1", 1), Login())
    assert raised.value.message == "cannot connect to 127.0.0.1:1: Connection refused"


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = Address("127.0.0.1", deaf.getsockname()[1])
        with pytest.raises(NoAnswer):
            open_node(address, Login(connect_timeout_s=0.2))


def test_a_server_that_goes_is_a_lost_connection() -> None:
    with start_valkey() as server:
        deployment = connect(read_address(server.url, None, "perfctl/test", 5.0))
        server.kill()
        with pytest.raises(ConnectionLost):
            deployment.node.call("PING")
        deployment.close()


def test_another_protocol_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_speak_http, args=(listener,))
        answering.start()
        with pytest.raises(Unreachable) as raised:
            open_node(Address("127.0.0.1", listener.getsockname()[1]), Login(password="x"))
        answering.join()
    assert "does not speak Redis's protocol" in raised.value.message


def _speak_http(listener: socket.socket) -> None:
    far, _ = listener.accept()
    with far:
        far.recv(100)
        far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
