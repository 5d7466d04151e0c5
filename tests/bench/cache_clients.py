"""The clients of bench_cache, each a process of its own, so that any Python with the library can run it.

A deleting client prints one line of JSON: ``began`` and ``ended`` on the machine's monotonic clock. ``probe`` reads one
key every 2 ms until SIGTERM and then prints its samples. This file imports nothing of perfctl.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

EVERY_S = 0.002
PROBED = b"probe:get"


def main() -> None:
    """``NAME SOCKET PATTERN [COUNT]``"""
    name, path, pattern, *more = sys.argv[1:]
    if name == "probe":
        probe(path)
        return
    prepare = {"tight": tight, "redis-py": redis_py, "django-redis": django_redis, "cashews": cashews}[name]
    delete = prepare(path, pattern, int(more[0]) if more else 0)
    began = time.monotonic()
    delete()
    print(json.dumps({"began": began, "ended": time.monotonic()}))


def tight(path: str, pattern: str, count: int) -> Callable[[], None]:
    """The least that a client in Python can do: the next SCAN leaves before the UNLINK of the page at hand is built.

    The server thus scans while this builds, and unlinks while this reads. A list is SCAN's answer, a number UNLINK's.
    """
    hiredis: Any = importlib.import_module("hiredis")
    server = _connected(path)

    def delete() -> None:
        replies = _replies(server, hiredis.Reader())
        unanswered = 0
        cursor = b"0"
        server.sendall(_scan(cursor, pattern, count))
        while True:
            for reply in replies:
                if isinstance(reply, list):
                    break
                unanswered -= 1
            cursor, keys = reply
            if cursor != b"0":
                server.sendall(_scan(cursor, pattern, count))
            if keys:
                server.sendall(_command(b"UNLINK", *keys))
                unanswered += 1
            if cursor == b"0":
                break
        for _ in range(unanswered):
            next(replies)

    return delete


def redis_py(path: str, pattern: str, count: int) -> Callable[[], None]:
    """scan_iter, and UNLINK of as many keys as a page has."""
    redis: Any = importlib.import_module("redis")
    if not redis.utils.HIREDIS_AVAILABLE:
        sys.exit("redis-py without hiredis")
    client = redis.Redis(unix_socket_path=path)
    client.ping()

    def delete() -> None:
        keys = client.scan_iter(match=pattern, count=count)
        while chunk := list(itertools.islice(keys, count)):
            client.unlink(*chunk)

    return delete


def django_redis(path: str, pattern: str, count: int) -> Callable[[], None]:
    """delete_pattern of a cache whose keys have no prefix and no version."""
    settings: Any = importlib.import_module("django.conf").settings
    backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"unix://{path}?db=0"}
    settings.configure(CACHES={"default": {**backend, "KEY_FUNCTION": "cache_clients.as_written"}})
    cache: Any = importlib.import_module("django.core.cache").cache
    cache.get("none")
    return lambda: cache.delete_pattern(pattern, itersize=count)


def as_written(key: str, _prefix: str, _version: int) -> str:
    """The key of a Django cache as the caller wrote it."""
    return key


def cashews(path: str, pattern: str, _count: int) -> Callable[[], None]:
    """delete_match; its errors are raised, where its default would hide them."""
    cache: Any = importlib.import_module("cashews").Cache()
    # A scheme that it knows, for it takes no unix URL; the address given beside it is the one that redis-py gets.
    cache.setup("redis://", address=f"unix://{path}", suppress=False)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(cache.get("none"))
    return lambda: loop.run_until_complete(cache.delete_match(pattern))


def probe(path: str) -> None:
    """GETs at fixed times. A time that passes while an answer is awaited is charged the wait until that answer.

    Sending a GET for each of those as well would queue them behind each other, and measure this client's own backlog.
    """
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    server = _connected(path)
    request = _command(b"GET", PROBED)
    samples: list[tuple[float, float]] = []
    print("ready", flush=True)
    due = time.monotonic()
    while not stop:
        due += EVERY_S
        time.sleep(max(0.0, due - time.monotonic()))
        server.sendall(request)
        if not server.recv(1024).startswith(b"$"):
            sys.exit("the probed key is gone")
        now = time.monotonic()
        samples.append((due, now - due))
        while due + EVERY_S <= now:
            due += EVERY_S
            samples.append((due, now - due))
    json.dump(samples, sys.stdout)


def _connected(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    return server


def _replies(server: socket.socket, reader: Any) -> Iterator[Any]:
    while True:
        # hiredis returns False for "not complete yet", which no reply in RESP2 is.
        while (reply := reader.gets()) is False:
            data = server.recv(1 << 20)
            if not data:
                sys.exit("the server hung up")
            reader.feed(data)
        if isinstance(reply, Exception):
            sys.exit(str(reply))
        yield reply


def _scan(cursor: bytes, pattern: str, count: int) -> bytes:
    return _command(b"SCAN", cursor, b"MATCH", pattern.encode(), b"COUNT", b"%d" % count)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


if __name__ == "__main__":
    main()
