"""Proxies in front of a Redis or Valkey: one that goes deaf or drops, and one that speaks RESP2 only.

``cache_proxy``, ``resp2_proxy``: in front of Valkey 9.1. ``proxied_cache``, ``resp2_only``: in front of any server.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest

from perfctl.embedded import ValkeyServer
from tests.fix_proxy import Link, Relay
from tests.fix_servers import Cache

#: HELLO becomes HELL0, which is no command: the server itself refuses it, and every answer keeps its turn.
_HELLO = re.compile(rb"\A(\*\d+\r\n\$5\r\n|)HELLO(?=\s)", re.IGNORECASE)
_REFUSED = re.compile(rb"(-ERR unknown command ['`])HELL0")


class CacheProxy(Relay):
    """A TCP port of 127.0.0.1 in front of a server; ``deafen``, ``hear``, ``drop``, ``forget_most_silent``."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        super().__init__()

    @property
    def url(self) -> str:
        """The server's address through the proxy, with its password."""
        secret = f":{self._server.password}@" if self._server.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def _reach(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(str(self._server.socket_path))
        except OSError:
            found.close()
            raise
        return found


class Resp2Proxy(CacheProxy):
    """One whose server knows no HELLO, as Redis before 6 and many proxies."""

    def __init__(self, server: ValkeyServer) -> None:
        self._begun: dict[Link, bytes] = {}
        super().__init__(server)

    def _altered(self, link: Link, data: bytes, to_server: bool) -> bytes:
        if not to_server:
            return _REFUSED.sub(rb"\1HELLO", data)
        whole, self._begun[link] = _without_hello(self._begun.get(link, b"") + data)
        return whole


def _without_hello(data: bytes) -> tuple[bytes, bytes]:
    """The whole commands in ``data``, HELLO replaced; and the begin of one that is not whole yet."""
    whole = []
    while (end := _command_end(data)) is not None:
        command, data = data[:end], data[end:]
        whole.append(_HELLO.sub(rb"\1HELL0", command))
    return b"".join(whole), data


def _command_end(data: bytes) -> int | None:
    """Where the first command ends, inline or an array of strings; None when it is not whole."""
    end = data.find(b"\r\n") + 2
    if end < 2:
        return None
    if not data.startswith(b"*"):
        return end
    for _ in range(int(data[1 : end - 2])):
        length_end = data.find(b"\r\n", end)
        if length_end < 0:
            return None
        end = length_end + 2 + int(data[end + 1 : length_end]) + 2
    return end if end <= len(data) else None


@contextlib.contextmanager
def proxied_cache(server: ValkeyServer, kind: type[CacheProxy] = CacheProxy) -> Iterator[CacheProxy]:
    """A proxy in front of a server."""
    proxy = kind(server)
    try:
        yield proxy
    finally:
        proxy.close()


def resp2_only(server: ValkeyServer) -> contextlib.AbstractContextManager[CacheProxy]:
    """The server as one that knows no HELLO."""
    return proxied_cache(server, Resp2Proxy)


@pytest.fixture
def cache_proxy(valkey91: Cache) -> Iterator[CacheProxy]:
    """A proxy in front of a Valkey 9.1 without keys."""
    with proxied_cache(valkey91.server) as proxy:
        yield proxy


@pytest.fixture
def resp2_proxy(valkey91: Cache) -> Iterator[CacheProxy]:
    """A Valkey 9.1 without keys that knows no HELLO."""
    with resp2_only(valkey91.server) as proxy:
        yield proxy
