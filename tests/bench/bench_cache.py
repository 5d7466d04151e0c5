"""What deleting half of a cache costs by perfctl and by others, and what a client feels meanwhile. Run it as

python -m tests.bench.bench_cache [--keys 1000000] [--match 500000] [--rounds 5] [--server redis-server]
                                  [--peers-python PATH] [--only NAME ...]

The limit is what one core of the server can do: keys deleted a second of the server's CPU, while the tightest client
deletes. Every run has a server started and filled anew; the methods take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import redis

from perfctl import __version__
from perfctl.embedded import ValkeyServer, find_valkey, start_valkey
from tests.bench.bench_indexes import ROOT
from tests.bench.cache_server import CLIENTS, PATTERN, Latency, Probe, commands_s, cpu_s, latency, payload, refill

COUNT = 500
LIMITS = ("tight client, COUNT 10000", f"tight client, COUNT {COUNT}")
OURS = "perfctl, 1 pass"
SAME_COUNT = f"redis-py, COUNT {COUNT}"
IDLE_S = 2.0
LIMIT_SHARE, OVER_REDIS_PY, OVER_IDLE_MS = 0.8, 1.25, 2.0


@dataclass(frozen=True, slots=True)
class Method:
    """A process that deletes what matches PATTERN."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One method once. ``operation_s`` is the deleting alone, ``process_s`` the process from start to end."""

    deleted: int
    operation_s: float
    process_s: float
    look_s: float
    client_cpu_s: float
    server_cpu_s: float
    commands_s: float
    beside: Latency
    idle: Latency

    @property
    def rate(self) -> float:
        """Keys deleted a second."""
        return self.deleted / self.operation_s

    @property
    def server_bound(self) -> float:
        """Keys deleted a second of the server's CPU."""
        return self.deleted / self.server_cpu_s

    @property
    def over_idle_ms(self) -> float:
        """What the run adds to the p99 of a GET."""
        return self.beside.p99_ms - self.idle.p99_ms


COLUMNS: tuple[tuple[str, int, Callable[[Run], float]], ...] = (
    ("del s", 6, lambda run: run.operation_s),
    ("look s", 6, lambda run: run.look_s),
    ("all s", 6, lambda run: run.process_s),
    ("cli CPU", 7, lambda run: run.client_cpu_s),
    ("srv CPU", 7, lambda run: run.server_cpu_s),
    ("cmds s", 6, lambda run: run.commands_s),
    ("GET p50", 7, lambda run: run.beside.p50_ms),
    ("p99", 7, lambda run: run.beside.p99_ms),
    ("max ms", 7, lambda run: run.beside.max_ms),
)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--match", type=int, default=500_000, help="how many of them are deleted")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each method")
    parser.add_argument("--server", help="program of the server; the system's redis-server, else the Valkey found")
    parser.add_argument("--peers-python", help="a Python that has django-redis and cashews")
    parser.add_argument("--only", nargs="+", default=[], help="methods whose name begins so")
    options = parser.parse_args()
    program = shutil.which(options.server or "redis-server")
    if options.server and program is None:
        sys.exit(f'no "{options.server}" on this machine')
    binary = Path(program) if program else find_valkey()
    sets = payload(options.keys, options.match)
    with start_valkey(binary=binary, tcp=False) as server, tempfile.TemporaryDirectory() as folder:
        methods = _methods(server, Path(folder), options.peers_python)
        if options.only:
            methods = [each for each in methods if each.name.startswith(tuple(options.only))]
        _head(binary, options.keys, options.match, options.rounds, methods)
        runs: dict[str, list[Run]] = {method.name: [] for method in methods}
        for _ in range(options.rounds):
            client = refill(server, sets)
            idle = _idle(server)
            for method in methods:
                client = refill(server, sets)
                runs[method.name].append(_run(method, server, client, idle, options.match))
    _table(runs)
    _targets(runs)


def _methods(server: ValkeyServer, folder: Path, peers: str | None) -> list[Method]:
    path = str(server.socket_path)
    config = folder / "perfctl.yaml"
    config.write_text(f"version: 1\ntargets: {{bench: {{cache: {{url: '{server.url.split('?')[0]}'}}}}}}\n")
    flush = (
        sys.executable, "-m", "perfctl", "cache", "flush", PATTERN, "--yes", "--include-persistent",
        "--confirm", "bench", "--format", "json", "--quiet", "--config", str(config),
        "--journal", str(folder / "journal.jsonl"),
    )  # fmt: skip

    def client(python: str, name: str, count: int) -> tuple[str, ...]:
        return (python, str(CLIENTS), name, path, PATTERN, str(count))

    found = [
        Method(LIMITS[0], client(sys.executable, "tight", 10_000)),
        Method(LIMITS[1], client(sys.executable, "tight", COUNT)),
        Method(OURS, (*flush, "--passes", "1")),
        Method("perfctl, defaults", flush),
        Method(SAME_COUNT, client(sys.executable, "redis-py", COUNT)),
        Method("redis-py, COUNT 1000", client(sys.executable, "redis-py", 1000)),
    ]
    if shutil.which("redis-cli"):
        cli = f"redis-cli -s {shlex.quote(path)}"
        line = f"{cli} --scan --pattern '{PATTERN}' | xargs -L 1000 {cli} unlink >&2"
        found.append(Method("redis-cli | xargs", ("sh", "-c", line)))
    else:
        print("redis-cli | xargs: skipped, there is no redis-cli")
    for name, module, count in (("django-redis", "django_redis", 1000), ("cashews", "cashews", 100)):
        if peers and not subprocess.run([peers, "-c", f"import {module}"], capture_output=True).returncode:
            found.append(Method(name, client(peers, name, count)))
        else:
            print(f"{name}: skipped, " + (f"{peers} does not have it" if peers else "no --peers-python"))
    return found


def _idle(server: ValkeyServer) -> Latency:
    probe = Probe(server.socket_path)
    began = time.monotonic()
    time.sleep(IDLE_S)
    return latency(probe.stop(), began, began + IDLE_S)


def _run(method: Method, server: ValkeyServer, client: redis.Redis, idle: Latency, match: int) -> Run:
    """One process from start to end, with the probe beside it. A failed one ends the benchmark."""
    probe = Probe(server.socket_path)
    before, server_before = _size(client), cpu_s(server.pid)
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((os.environ.get("PYTHONPATH", ""), str(ROOT)))}
        process = subprocess.Popen(method.command, stdout=out, stderr=errors, env=environment, cwd="/")
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        server_cpu_s = cpu_s(server.pid) - server_before
        samples = probe.stop()
        out.seek(0)
        errors.seek(0)
        text, complaint = out.read(), errors.read().decode()
    deleted = before - _size(client)
    # A tool may leave a key of its own behind, such as a lock.
    if process.returncode or abs(deleted - match) > 2:
        sys.exit(f"{method.name}: {deleted} keys deleted, exit code {process.returncode}: {complaint[-2000:]}")
    facts = _facts(json.loads(text) if text.strip() else {}, began, ended)
    return Run(
        deleted, facts["ended"] - facts["began"], ended - began, facts["look_s"], usage.ru_utime + usage.ru_stime,
        server_cpu_s, commands_s(client), latency(samples, facts["began"], facts["ended"]), idle,
    )  # fmt: skip


def _facts(answer: dict[str, Any], began: float, ended: float) -> dict[str, float]:
    """When the deleting began and ended: as a client says, or as the last ``flush_s`` of perfctl, or all of it."""
    for item in answer.get("items", ()):
        if "flush_s" in item["data"]:
            return {"look_s": item["data"]["look_s"], "began": ended - item["data"]["flush_s"], "ended": ended}
    return {"look_s": 0.0, "began": began, "ended": ended, **{name: answer[name] for name in answer if name != "items"}}


def _size(client: redis.Redis) -> int:
    size: Any = client.dbsize()
    return int(size)


def _head(binary: Path, keys: int, match: int, rounds: int, methods: list[Method]) -> None:
    version = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()
    print(
        f"perfctl {__version__}, Python {platform.python_version()}, redis-py {redis.__version__}, hiredis"
        f" {hiredis.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{version}\n"
        f"{match} of {keys} keys deleted, 64-byte values, filled by SETs before each run; medians of {rounds}"
        " (min to max), in turn\n"
    )
    for method in methods:
        print(f"  {method.name:26} {shlex.join(method.command)}")
    print(flush=True)


def _table(runs: dict[str, list[Run]]) -> None:
    """CPU is of whole processes; the GETs and the rate are of the deleting alone."""
    titles = "".join(f" {title:>{width}}" for title, width, _ in COLUMNS)
    print(f"  {'':26} {'k deleted/s':>20}{titles} {'p99 over idle, ms':>22}")
    for name, samples in runs.items():
        figures = "".join(f" {_of(samples, figure):{width}.2f}" for _, width, figure in COLUMNS)
        rate = _spread(samples, lambda run: run.rate / 1000, 0)
        print(f"  {name:26} {rate:>20}{figures} {_spread(samples, lambda run: run.over_idle_ms, 2):>22}")
    some = next(iter(runs.values()))
    print(f"  idle: GET p99 {_spread(some, lambda run: run.idle.p99_ms, 2)} ms; load now {os.getloadavg()[0]:.1f}\n")


def _targets(runs: dict[str, list[Run]]) -> None:
    """Ratios within a round. The limit is the better of the two tight clients', by the server's CPU."""
    tight = [runs[name] for name in LIMITS if name in runs]
    if not tight:
        return
    limits = [max(run.server_bound for run in turn) for turn in zip(*tight, strict=True)]
    print(f"  server-bound limit: {statistics.median(limits) / 1000:.0f} k deleted a second of the server's CPU")
    for name in (OURS, SAME_COUNT, *LIMITS):
        shares = [run.rate / limit for run, limit in zip(runs.get(name, []), limits, strict=False)]
        if shares:
            print(f"    {name:26} {_figures(shares, 2)} of it" + (f" (target {LIMIT_SHARE})" if name == OURS else ""))
    if ours := runs.get(OURS):
        if theirs := runs.get(SAME_COUNT):
            ratios = [our.rate / their.rate for our, their in zip(ours, theirs, strict=True)]
            print(f"  {OURS} over {SAME_COUNT}: {_figures(ratios, 2)} (target {OVER_REDIS_PY})")
        over = _spread(ours, lambda run: run.over_idle_ms, 2)
        print(f"  {OURS}, GET p99 over idle: {over} ms (target at most {OVER_IDLE_MS})")


def _of(samples: list[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(figure(run) for run in samples)


def _spread(samples: list[Run], figure: Callable[[Run], float], digits: int) -> str:
    return _figures([figure(run) for run in samples], digits)


def _figures(values: list[float], digits: int) -> str:
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


if __name__ == "__main__":
    main()
