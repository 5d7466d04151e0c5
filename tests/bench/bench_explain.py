"""What a check of many queries costs beside psql that sends the same statements. Ratios of one run; run it as

python -m tests.bench.bench_explain [--queries 1000] [--scale 1] [--rounds 5] [--pg 18]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql

from perfctl import __version__
from perfctl.embedded import PostgresServer, find_postgres, start_postgres
from perfctl.explain.observe import Limits, Request
from perfctl.hotqueries import files
from perfctl.hotqueries.model import HotQuery
from tests.bench.bench_indexes import ROOT, Sample, run

QUERIES = ROOT / "sql" / "queries"
MIGRATION = ROOT / "sql" / "migrations" / "003_performance_indexes.sql"
TARGET = 1.3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--scale", type=float, default=1.0, help="scale of the reference system")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each command")
    parser.add_argument("--pg", type=int, default=18)
    options = parser.parse_args()
    installation = find_postgres(options.pg)
    psql = shutil.which("psql", path=f"{installation.bindir}{os.pathsep}{os.environ['PATH']}")
    if psql is None:
        sys.exit("no psql on this machine")
    settings = {"shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off", "jit": "off"}
    with start_postgres(installation, settings=settings) as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = _reference(server, options.scale)
        _write_queries(folder / "queries", options.queries)
        print(
            f"perfctl {__version__}, Python {platform.python_version()}, PostgreSQL {installation.version},"
            f" {os.cpu_count()} cores; {options.queries} queries, scale {options.scale:g};"
            f" medians of {options.rounds}, whole processes in turn"
        )
        for generic in (False, True):
            _pair(folder, dsn, psql, generic=generic, count=options.rounds)


def _pair(folder: Path, dsn: str, psql: str, *, generic: bool, count: int) -> None:
    """psql and perfctl in turn on the same statements; the first round warms the caches."""
    config = folder / "perfctl.yaml"
    config.write_text(
        f"version: 1\ntargets: {{bench: {{database: {{dsn: '{dsn}'}}}}}}\n"
        f"queries: {{dir: '{folder / 'queries'}', generic: {str(generic).lower()}}}\n"
    )
    script = folder / "same.sql"
    statements = _script(folder / "queries", generic=generic)
    script.write_text("".join(f"{each};\n" for each in statements))
    by_psql = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", str(script)]
    by_perfctl = [sys.executable, "-m", "perfctl", "explain", "check", "--quiet", "--config", str(config)]
    ones: list[Sample] = []
    others: list[Sample] = []
    for number in range(count + 1):
        one, other = run(by_psql, dsn), run(by_perfctl, dsn)
        if number:
            ones.append(one)
            others.append(other)
    ratios = [other.wall_s / one.wall_s for one, other in zip(ones, others, strict=True)]
    print(
        f"  {'values and generic plan' if generic else 'values only':24} {_wall(others):6.2f} s"
        f"  {max(each.peak_mb for each in others):4.0f} MB; psql -f {_wall(ones):6.2f} s; ratio"
        f" {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; target {TARGET:.2f});"
        f" {sum('EXPLAIN' in each for each in statements)} EXPLAINs",
        flush=True,
    )


def _wall(samples: list[Sample]) -> float:
    return statistics.median(sample.wall_s for sample in samples)


def _reference(server: PostgresServer, scale: float) -> str:
    """The reference system with its 27 indexes."""
    dsn = server.dsn()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"SET perfctl.scale = '{scale}'")
        for name in ("schema", "data"):
            connection.execute((ROOT / "sql" / "reference" / f"{name}.sql").read_bytes())
        connection.execute(MIGRATION.read_text().replace(" CONCURRENTLY", "").encode())
        connection.execute("VACUUM (ANALYZE)")
    return dsn


def _write_queries(folder: Path, count: int) -> None:
    """The reference queries again and again, each time under another name and with other values."""
    folder.mkdir()
    texts = [path.read_text() for path in sorted(QUERIES.glob("*.sql"))]
    for number in range(count):
        text = texts[number % len(texts)]
        name = text.split("\n", 1)[0].removeprefix("-- name: ")
        again = number // len(texts)
        lines = [_varied(line, again) for line in text.split("\n")]
        lines[0] = f"-- name: {name}_{again:03}"
        (folder / f"{name}_{again:03}.sql").write_text("\n".join(lines))


def _varied(line: str, again: int) -> str:
    """A text value with a digit changed, so that it is another one of the same form."""
    if not again or not line.startswith("-- param: ") or " text = '" not in line or not line[-2].isdigit():
        return line
    return f"{line[:-2]}{(int(line[-2]) + again) % 10}'"


def _script(folder: Path, *, generic: bool) -> list[str]:
    """The very statements of a check, for psql: each EXPLAIN with its values as constants."""
    queries = files.load(folder).queries
    limits = [f"SET LOCAL {name} = '{value}'" for name, value in Limits().settings().items()]
    found = ["BEGIN READ ONLY", *limits]
    for query in queries:
        found += [_bound(text, query) for text, _ in Request(query, query.bound(query.sets[0])).statements()]
    if generic:
        found.append("SET LOCAL plan_cache_mode = 'force_generic_plan'")
        for query in queries:
            if query.parameters:
                found += [text for text, _ in Request(query, None).statements()]
    return [*found, "ROLLBACK"]


def _bound(text: str, query: HotQuery) -> str:
    values = query.bound(query.sets[0])
    for place in range(len(values), 0, -1):
        text = text.replace(f"${place}", sql.Literal(values[place - 1]).as_string(None))
    return text


if __name__ == "__main__":
    main()
