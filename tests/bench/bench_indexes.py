"""What perfctl costs beside psql, and how verify grows. Ratios of one run; run it as

python -m tests.bench.bench_indexes [--scale 4] [--rounds 5] [--many 5000]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from perfctl import __version__
from perfctl.embedded import PostgresServer, find_postgres, start_postgres

ROOT = Path(__file__).parents[2]
MIGRATION = ROOT / "sql" / "migrations" / "003_performance_indexes.sql"
ROLLBACK = ROOT / "sql" / "migrations" / "003_performance_indexes_rollback.sql"
FORMS = (
    "(a)", "(b)", "(c DESC)", "(a, b)", "(lower(b))", "(e) WHERE a > 5", "USING gin (d)",
    "(f, g) INCLUDE (h)", "(g, h, j DESC)", "USING brin (c)",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One process: seconds from start to end, and its peak resident memory in MB."""

    wall_s: float
    peak_mb: float


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=4.0, help="scale of the reference system")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each command")
    parser.add_argument("--many", type=int, default=5000, help="indexes of the large verify")
    options = parser.parse_args()
    installation = find_postgres(18)
    psql = shutil.which("psql", path=f"{installation.bindir}{os.pathsep}{os.environ['PATH']}")
    if psql is None:
        sys.exit("no psql on this machine")
    # What a server of this size would have; autovacuum would come in between at random.
    settings = {"shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off"}
    with start_postgres(installation, settings=settings) as server:
        print(
            f"perfctl {__version__}, Python {platform.python_version()}, PostgreSQL {installation.version},"
            f" {os.cpu_count()} cores; medians of {options.rounds}, processes in turn"
        )
        apply_beside_psql(server, psql, options.scale, options.rounds)
        verify_many(server, options.many, options.rounds)


def apply_beside_psql(server: PostgresServer, psql: str, scale: float, rounds: int) -> None:
    """The 27 statements by perfctl and by psql, concurrent and plain, on one database, in turn."""
    dsn = _database(server, "bench")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"SET perfctl.scale = '{scale}'")
        for name in ("schema", "data"):
            conn.execute((ROOT / "sql" / "reference" / f"{name}.sql").read_bytes())
        conn.execute("VACUUM (ANALYZE)")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.sql"
        plain.write_text(MIGRATION.read_text().replace("INDEX CONCURRENTLY", "INDEX"))
        by_psql = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f"]
        apply = [sys.executable, "-m", "perfctl", "indexes", "apply", "--yes", "--quiet", str(MIGRATION)]
        pairs = (
            ("--jobs 1", [*by_psql, str(MIGRATION)], [*apply, "--jobs", "1"], 1.05),
            ("--jobs 2", [*by_psql, str(MIGRATION)], [*apply, "--jobs", "2"], 0.75),
            ("--offline --jobs 2", [*by_psql, str(plain)], [*apply, "--offline", "--jobs", "2"], 0.75),
        )
        print(f"27 indexes at scale {scale:g}, as whole processes:")
        for name, one, two, target in pairs:
            _pair(name, one, two, target, [psql, "-X", "-q", "-d", dsn, "-f", str(ROLLBACK)], dsn, rounds)
    run([*apply], dsn)
    verify = [sys.executable, "-m", "perfctl", "indexes", "verify", str(MIGRATION)]
    samples = [run(verify, dsn) for _ in range(rounds)]
    sent = _statements(server, dsn, MIGRATION)
    print(f"  perfctl indexes verify  {_wall(samples):6.2f} s  {_peak(samples):4.0f} MB  {sent} statements")


def _pair(name: str, one: list[str], two: list[str], target: float, undo: list[str], dsn: str, rounds: int) -> None:
    """psql and perfctl in turn, the indexes dropped in between; the first round warms the caches."""
    by_psql, by_perfctl = [], []
    for number in range(rounds + 1):
        first = run(one, dsn)
        run(undo, dsn)
        second = run(two, dsn)
        run(undo, dsn)
        if number:
            by_psql.append(first)
            by_perfctl.append(second)
    ratios = [b.wall_s / a.wall_s for a, b in zip(by_psql, by_perfctl, strict=True)]
    print(
        f"  apply {name:20} {_wall(by_perfctl):6.2f} s  {_peak(by_perfctl):4.0f} MB;"
        f" psql -f {_wall(by_psql):6.2f} s  {_peak(by_psql):4.0f} MB; ratio {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f}; target {target:.2f})",
        flush=True,
    )


def verify_many(server: PostgresServer, many: int, rounds: int) -> None:
    """Verify of thousands of indexes, and how many statements it sends."""
    dsn = _database(server, "many")
    tables = max(1, many // len(FORMS))
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(dsn, autocommit=True) as conn:
        migration = Path(folder) / "001_many.sql"
        lines = []
        for number in range(tables):
            conn.execute(
                f"CREATE TABLE t{number} (id bigint PRIMARY KEY, a int, b text, c timestamptz, d jsonb, e numeric,"
                " f text, g int, h int, j int)"
            )
            lines += [
                f"CREATE INDEX CONCURRENTLY t{number}_x{k} ON public.t{number} {form};" for k, form in enumerate(FORMS)
            ]
        migration.write_text("\n".join(lines))
        for line in lines:
            conn.execute(line.replace(" CONCURRENTLY", ""))
        samples = [
            run([sys.executable, "-m", "perfctl", "indexes", "verify", str(migration)], dsn) for _ in range(rounds)
        ]
        print(f"{len(lines)} indexes on {tables} tables:")
        print(
            f"  perfctl indexes verify  {_wall(samples):6.2f} s  {_peak(samples):4.0f} MB "
            f" {_statements(server, dsn, migration)} statements (target: under 5 s, a handful)"
        )


def run(command: list[str], dsn: str, *, findings: bool = False) -> Sample:
    """One process from start to end. A failed one ends the benchmark; ``findings`` takes exit code 1 as well."""
    environment = {**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, cwd="/")
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in ((0, 1) if findings else (0,)):
            errors.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}: {errors.read().decode()}")
    return Sample(wall_s, _megabytes(usage))


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def _statements(server: PostgresServer, dsn: str, migration: Path) -> int:
    """How many messages with SQL one verify sends, by the server's own log."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET log_statement = 'all'")
        conn.execute("ALTER SYSTEM SET log_line_prefix = '%a|'")
        conn.execute("SELECT pg_reload_conf()")
        before = len(_sent(server))
        run([sys.executable, "-m", "perfctl", "indexes", "verify", str(migration)], dsn, findings=True)
        sent = len(_sent(server)) - before
        conn.execute("ALTER SYSTEM RESET ALL")
        conn.execute("SELECT pg_reload_conf()")
    return sent


def _sent(server: PostgresServer) -> list[str]:
    lines = server.log_tail(1_000_000).splitlines()
    return [line for line in lines if line.startswith("perfctl/") and ("statement:" in line or "execute" in line)]


def _database(server: PostgresServer, name: str) -> str:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    return server.dsn(name)


def _wall(samples: list[Sample]) -> float:
    return statistics.median(sample.wall_s for sample in samples)


def _peak(samples: list[Sample]) -> float:
    return max(sample.peak_mb for sample in samples)


if __name__ == "__main__":
    main()
