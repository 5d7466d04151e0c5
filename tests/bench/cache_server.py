"""The server of bench_cache: filled anew for every run, with what a run cost it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from perfctl.embedded import ValkeyServer
from tests.bench.cache_clients import PROBED

CLIENTS = Path(__file__).with_name("cache_clients.py")
PATTERN = "cache:user_analyses:*"
FAMILIES = ("cache:report", "session", "cache:user_profile", "rate")
#: what is left of growing the table after the filling takes the server's own timer about a second
SETTLE_S = 1.5
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the GETs beside a run, in milliseconds."""

    p50_ms: float
    p99_ms: float
    max_ms: float


class Probe:
    """The client that GETs one key at fixed times, in a process of its own."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, str(CLIENTS), "probe", str(path), PATTERN]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> list[tuple[float, float]]:
        """When each GET was due on the monotonic clock, and the seconds until its answer."""
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate()
        samples: list[tuple[float, float]] = json.loads(out)
        return samples


def latency(samples: list[tuple[float, float]], began: float, ended: float) -> Latency:
    """Of the GETs that were due from ``began`` to ``ended``."""
    took = sorted(took for due, took in samples if began <= due <= ended) or [0.0]
    return Latency(*(1000 * took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.99, 1.0)))


def payload(keys: int, match: int) -> bytes:
    """Every key as a SET with a TTL of 5 to 60 minutes, in random order; the seed is fixed."""
    chance = random.Random(7)
    names = [b"cache:user_analyses:%d:%d" % (number // 5, number % 5) for number in range(match)]
    names += [b"%b:%d" % (FAMILIES[number % 4].encode(), number) for number in range(keys - match)]
    chance.shuffle(names)
    value = b"$64\r\n" + b"x" * 64 + b"\r\n"
    return b"".join(
        b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n%b$2\r\nEX\r\n$%d\r\n%d\r\n" % (len(name), name, value, len(b"%d" % ttl), ttl)
        for name, ttl in ((name, chance.randint(300, 3600)) for name in names)
    )


def refill(server: ValkeyServer, sets: bytes) -> redis.Redis:
    """The server started again, empty, and filled by one stream of SETs: the layout of a cache that grew."""
    server.restart()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(server.socket_path))
        line.sendall(b"CLIENT REPLY OFF\r\nSET %b 1\r\n" % PROBED)
        line.sendall(sets)
        line.sendall(b"CLIENT REPLY ON\r\n")
        assert line.recv(16) == b"+OK\r\n"
    time.sleep(SETTLE_S)
    client = redis.Redis.from_url(server.url)
    client.config_resetstat()
    return client


def cpu_s(pid: int) -> float:
    """User and system time of a process, to 1/100 s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def commands_s(client: redis.Redis) -> float:
    """Seconds that SCAN, UNLINK and DEL took since the filling, by the server's own count."""
    stats: Any = client.info("commandstats")
    return float(sum(stats.get(f"cmdstat_{name}", {"usec": 0})["usec"] for name in ("scan", "unlink", "del")) / 1e6)
