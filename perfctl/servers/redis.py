"""One connection to a Redis or Valkey: authenticated, tagged, its errors translated, its replies as bytes.

The only place that names ``redis.RedisError``. redis-py reads the address and opens the socket, TLS included; from
there on replies go through hiredis straight from that socket, so that a walk can have several commands under way and
a key is never decoded.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import hiredis
import redis
from redis.connection import Connection, UnixDomainSocketConnection, parse_url
from redis.crc import key_slot

from perfctl.errors import (
    Busy,
    CommandFailed,
    ConfigError,
    ConnectionLost,
    Denied,
    NoAnswer,
    PerfctlError,
    Unreachable,
)

#: Told of each command, without its arguments, and the seconds that it took.
Trace = Callable[[str, float], None]

#: What a server answers: hiredis knows no other types in RESP2.
Reply = Any

#: A command that was refused, as ``receive`` gives it.
Refusal = hiredis.ReplyError

#: What a command is made of.
Word = bytes | str | int

#: How much is read from the socket at once.
_READ_BYTES = 1 << 16

#: Replies of a server that is there and does not serve now; the same command is right later.
_NOT_NOW = ("LOADING", "MASTERDOWN", "CLUSTERDOWN")
_DENIALS = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: host and port, or the path of a socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """All that it takes to connect but the address, the same for every node of a deployment."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    #: redis-py's connection class and options of TLS
    factory: type[Any] = Connection
    options: Mapping[str, Any] = field(default_factory=dict)
    connect_timeout_s: float = 5.0
    application: str = "perfctl"


class Node:
    """A connection to one server. For one thread at a time."""

    def __init__(self, link: Any, sock: socket.socket, address: Address, trace: Trace | None = None) -> None:
        self._link = link
        self._sock = sock
        self._reader = hiredis.Reader()
        self._trace = trace
        self.address = address

    @property
    def answer_within_s(self) -> float | None:
        """How long a reply is waited for."""
        return self._sock.gettimeout()

    @answer_within_s.setter
    def answer_within_s(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def call(self, *words: Word) -> Reply:
        """Send one command and return its reply; text as bytes.

        Raises Denied, Busy, Unreachable, or CommandFailed with the code of any other refusal.
        """
        began = time.monotonic()
        self.send(pack(words))
        try:
            return self.answer(words)
        finally:
            if self._trace is not None:
                self._trace(_shown(words), time.monotonic() - began)

    def calls(self, commands: Sequence[Sequence[Word]]) -> list[Reply]:
        """Send commands together; their replies, a refused one as the error that ``call`` would raise."""
        began = time.monotonic()
        self.send(b"".join(map(pack, commands)))
        replies = [self.receive() for _ in commands]
        if self._trace is not None:
            self._trace(f"{len(commands)} commands: {_shown(commands[0])} …", time.monotonic() - began)
        return [
            refusal(reply, words) if isinstance(reply, hiredis.ReplyError) else reply
            for reply, words in zip(replies, commands, strict=True)
        ]

    def send(self, data: bytes) -> None:
        """Send packed commands, whose replies ``receive`` gives one by one."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def receive(self) -> Reply:
        """The next reply; a refusal is a value here, for other replies may stand behind it."""
        return self.receive_many(1)[0]

    def receive_many(self, count: int) -> list[Reply]:
        """The next replies, as ``receive`` gives one."""
        replies: list[Reply] = []
        take = self._reader.gets
        try:
            while len(replies) < count:
                if (reply := take()) is not False:
                    replies.append(reply)
                    continue
                data = self._sock.recv(_READ_BYTES)
                if not data:
                    raise ConnectionLost(f"{self.address} closed the connection")
                self._reader.feed(data)
        except OSError as error:
            raise self._lost(error) from error
        except hiredis.ProtocolError as error:
            raise Unreachable(f"{self.address} does not speak Redis's protocol") from error
        return replies

    def answer(self, words: Sequence[Word]) -> Reply:
        """The next reply, which is to ``words``. Raises as ``call`` for a refusal."""
        reply = self.receive()
        if isinstance(reply, hiredis.ReplyError):
            raise refusal(reply, words)
        return reply

    def close(self) -> None:
        """Close the connection. May be called again, and from another thread: who waits for a reply is told."""
        self._link.disconnect()

    def _lost(self, error: OSError) -> Unreachable:
        if isinstance(error, TimeoutError):
            return NoAnswer(f"{self.address} did not answer within {self.answer_within_s:g} s")
        return ConnectionLost(f"the connection to {self.address} was lost: {error.strerror or error}")


def pack(words: Sequence[Word]) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]  # its stub knows one argument only
    return packed


def unpack(file: BinaryIO, size: int) -> Iterator[list[bytes]]:
    """The commands in a file of packed ones; one that breaks off at ``size`` is left out. ValueError for what is none.

    No number in the file makes room in memory for more than the file has.
    """
    left = size
    while line := file.readline(_MOST_LINE):
        count = _number(line, b"*")
        if count is None:
            return
        if not 0 < count <= _MOST_WORDS:
            raise ValueError("it holds something else than commands")
        left -= len(line)
        words: list[bytes] = []
        for _ in range(count):
            line = file.readline(_MOST_LINE)
            length = _number(line, b"$")
            if length is None:
                return
            left -= len(line) + length + len(_LINE_END)
            if left < 0:
                return
            word = file.read(length + len(_LINE_END))
            if not word.endswith(_LINE_END):
                raise ValueError("a word in it has another length than is said")
            words.append(word[:-2])
        yield words


#: No command of a packed file has more; it bounds what a damaged number can ask for.
_MOST_WORDS = 64
_LINE_END = b"\r\n"
#: A sign, the digits of a number, and the line's end.
_MOST_LINE = 24


@lru_cache(maxsize=1024)  # The same few lengths stand in all of a file.
def _number(line: bytes, sign: bytes) -> int | None:
    """What a line says that ``pack`` has written; None for one that the file's end cuts off."""
    digits = line[1:-2]
    if line[:1] == sign and line[-2:] == _LINE_END and digits.isdigit() and (digits[:1] != b"0" or digits == b"0"):
        return int(digits)
    if len(line) < _MOST_LINE and not line.endswith(b"\n"):
        return None
    raise ValueError("it holds something else than commands")


def slot_of(key: bytes) -> int:
    """The hash slot of a key, its hash tag heeded; see https://valkey.io/topics/cluster-spec/."""
    slot: int = key_slot(key)
    return slot


def open_node(address: Address, login: Login, trace: Trace | None = None) -> Node:
    """A connection, authenticated and with the database chosen. Raises Unreachable, Denied, ConfigError."""
    where: dict[str, Any] = {"path": address.path} if address.path else {"host": address.host, "port": address.port}
    factory: type[Any] = UnixDomainSocketConnection if address.path else login.factory
    link: Any = factory(
        **where,
        **({} if address.path else login.options),
        socket_timeout=login.connect_timeout_s,
        socket_connect_timeout=login.connect_timeout_s,
        # RESP2 is what every server and proxy speaks; nothing of RESP3 is needed here.
        protocol=2,
        redis_connect_func=_say_nothing,
    )
    try:
        link.connect()
        # redis-py has no public name for the socket that it opened.
        node = Node(link, link._sock, address, trace)
        _introduce(node, login)
    except (redis.RedisError, OSError, ssl.SSLError) as error:
        link.disconnect()
        raise _unreached(address, login, error) from error
    except PerfctlError:
        link.disconnect()
        raise
    return node


def _say_nothing(_: object) -> None:
    """Instead of redis-py's greeting, whose every line is an error for a user without that right."""


def _introduce(node: Node, login: Login) -> None:
    if login.password is not None:
        words = ("AUTH", login.username, login.password) if login.username else ("AUTH", login.password)
        try:
            node.call(*words)
        except CommandFailed as error:
            # A server without any password complains of one; its words do not hold it.
            raise Denied(f"{node.address} does not take the password: {error.message}") from None
    with suppress(CommandFailed, Denied):
        # Only a name in CLIENT LIST: a user may be denied it.
        node.call("CLIENT", "SETNAME", login.application.replace(" ", "-"))
    if login.db:
        try:
            node.call("SELECT", login.db)
        except CommandFailed as error:
            raise ConfigError(f"{node.address} has no database {login.db}: {error.message}") from None


def _unreached(address: Address, login: Login, error: Exception) -> PerfctlError:
    if isinstance(error, (redis.TimeoutError, TimeoutError)):
        return NoAnswer(f"no answer from {address} within {login.connect_timeout_s:g} s")
    cause = error.__context__ if isinstance(error, redis.RedisError) else error
    if isinstance(cause, ssl.SSLError):
        return Unreachable(f"no TLS with {address}: {cause.reason or cause}")
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(error).__name__
    return Unreachable(f"cannot connect to {address}: {reason}")


def refusal(reply: hiredis.ReplyError, words: Sequence[Word]) -> PerfctlError:
    """The error that a server's refusal stands for."""
    text = str(reply)
    code = text.partition(" ")[0]
    command = _shown(words)
    if code in _DENIALS:
        return Denied(f"{command}: {text}", hint=_right(words) if code == "NOPERM" else None)
    if code in _NOT_NOW or "max number of clients" in text:
        return Unreachable(f"the server does not serve now: {text}")
    if code == "BUSY":
        return Busy(f"the server is busy running a script: {text}")
    return CommandFailed(f"{command}: {text}", code=code)


def _shown(words: Sequence[Word]) -> str:
    """The command without arguments, which may be secrets or keys."""
    head, sub = str(words[0]), str(words[1]) if len(words) > 1 else ""
    return f"{head} {sub}" if sub and head in _CONTAINERS else head


_CONTAINERS = ("ACL", "CLIENT", "CLUSTER", "CONFIG", "INFO", "MEMORY", "SENTINEL", "SLOWLOG", "SCRIPT")


def _right(words: Sequence[Word]) -> str:
    command = _shown(words).lower().replace(" ", "|")
    return f"ACL SETUSER <user> +{command}, or a key pattern of the user that takes in these keys"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where to begin, and how to log in."""

    addresses: tuple[Address, ...]
    login: Login
    #: what Sentinels call the primary
    service: str | None = None
    through_sentinel: bool = False


def read_address(url: str, password: str | None, application: str, connect_timeout_s: float) -> Seeds:
    """What a URL says: where to begin, and how to log in.

    ``redis+sentinel://s1:26379,s2:26379/SERVICE/DB`` names Sentinels; several hosts elsewhere are tried in turn.
    Raises ConfigError, whose text holds no part of the URL.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    login, _, hosts = parts.netloc.rpartition("@")
    at = f"{login}@" if login else ""
    path, service = parts.path, None
    if kind == "sentinel":
        service, _, db = path.strip("/").partition("/")
        path = f"/{db}" if db else ""
        hosts = ",".join(host if _has_port(host) else f"{host}:26379" for host in hosts.split(","))
    # redis-py does not know Valkey's own schemes.
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    try:
        tail = f"{path}?{parts.query}" if parts.query else path
        found: list[dict[str, Any]] = [parse_url(f"{scheme}://{at}{host}{tail}") for host in hosts.split(",")]  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise ConfigError("the cache's address cannot be read", hint="redis://user:password@host:6379/0") from None
    first: dict[str, Any] = dict(found[0])
    own = {key: first.pop(key, None) for key in ("host", "port", "path", "db", "username", "password")}
    for key in _NOT_HERE:
        first.pop(key, None)
    if strange := [key for key in first if key != "connection_class" and not key.startswith("ssl_")]:
        raise ConfigError(f"the cache's address has an option that nobody knows: {strange[0]}")
    factory = first.pop("connection_class", Connection)
    if factory is UnixDomainSocketConnection:
        factory = Connection
    addresses = tuple(
        Address(path=each["path"]) if "path" in each else Address(each.get("host", "localhost"), each.get("port", 6379))
        for each in found
    )
    return Seeds(
        addresses,
        Login(
            own["username"],
            password if password is not None else own["password"],
            int(own["db"] or 0),
            factory,
            first,
            connect_timeout_s,
            application,
        ),
        service or None,
        through_sentinel=kind == "sentinel",
    )


#: Options of redis-py's own pools and of how it speaks, which an address may have for the application's sake.
_NOT_HERE = (
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size", "socket_type"),
    *("retry_on_timeout", "retry_on_error", "health_check_interval", "max_connections", "timeout", "protocol"),
    *("decode_responses", "encoding", "encoding_errors", "client_name", "lib_name", "lib_version"),
    *("single_connection_client", "auto_close_connection_pool", "credential_provider", "legacy_responses"),
)


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]
