"""TPC-H's 22 queries held to rules while ANALYZE samples the tables anew: none may turn red without a change. Run it as

python -m tests.proof.tpch [--scale 0.2] [--rounds 20] [--pg 18]

The data comes from tpchgen-cli, the queries are in ``tpch/queries``, their rules in their heads.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import psycopg
from psycopg import sql

from perfctl.embedded import find_postgres, start_postgres
from tests.fix_perfctl import run

HERE = Path(__file__).parent / "tpch"
QUERIES = HERE / "queries"
TABLES = ("region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem")
#: Autovacuum would analyze at random; the rest is what a server of this size would have.
SETTINGS = {"autovacuum": "off", "shared_buffers": "512MB", "max_wal_size": "4GB", "jit": "off"}


def generator() -> str | None:
    """The program that makes the data, None where it is not installed."""
    return shutil.which("tpchgen-cli", path=f"{Path(sys.executable).parent}") or shutil.which("tpchgen-cli")


def load(dsn: str, program: str, scale: float) -> None:
    """Make the tables, fill them, and add keys and indexes."""
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(dsn, autocommit=True) as connection:
        subprocess.run([program, "-s", str(scale), f"--output-dir={folder}"], check=True, capture_output=True)
        connection.execute((HERE / "schema.sql").read_bytes())
        for table in TABLES:
            copy = sql.SQL("COPY {} FROM STDIN (DELIMITER '|')").format(sql.Identifier(table))
            with (Path(folder) / f"{table}.tbl").open("rb") as file, connection.cursor().copy(copy) as target:
                for piece in _without_last_bar(file):
                    target.write(piece)
        connection.execute((HERE / "indexes.sql").read_bytes())
        connection.execute("VACUUM (ANALYZE)")


def _without_last_bar(file: BinaryIO) -> Iterator[bytes]:
    """The file with ``|`` at the end of each line left out, for COPY takes it for one more column."""
    held = b""
    while piece := file.read(1 << 20):
        piece = held + piece
        held = b"|" if piece.endswith(b"|") else b""
        yield piece.removesuffix(held).replace(b"|\n", b"\n")


@dataclass(slots=True)
class Found:
    """What came of some rounds: how often each query was what, and what was said of those that were not ok."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)

    @property
    def red(self) -> dict[str, int]:
        """The queries that turned red or could not be looked at, and in how many rounds."""
        found = {name: each["finding"] + each["unknown"] for name, each in self.statuses.items()}
        return {name: count for name, count in found.items() if count}

    @property
    def unsure(self) -> dict[str, int]:
        """The queries of which nothing could be told, and in how many rounds."""
        return {name: each["skipped"] for name, each in self.statuses.items() if each["skipped"]}


def rounds(dsn: str, count: int) -> Found:
    """So often ANALYZE without any change, and a check after each."""
    found = Found()
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(dsn, autocommit=True) as connection:
        config = Path(folder) / "perfctl.yaml"
        config.write_text(
            f"version: 1\ntargets: {{tpch: {{database: {{dsn: '{dsn}'}}}}}}\nqueries: {{dir: '{QUERIES}'}}\n"
        )
        for _ in range(count):
            connection.execute("ANALYZE")
            started = time.perf_counter()
            ran = run("explain", "check", "--config", str(config), "--format", "json")
            found.took_s.append(time.perf_counter() - started)
            for name, item in ran.items.items():
                found.statuses.setdefault(name, Counter())[item["status"]] += 1
                if item["status"] != "ok":
                    found.details[name] = item["detail"]
    return found


def main() -> None:
    """Print the figures; ends with 1 when a query turned red."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pg", type=int, default=18)
    options = parser.parse_args()
    program = generator()
    if program is None:
        sys.exit("no tpchgen-cli on this machine: pip install tpchgen-cli")
    installation = find_postgres(options.pg)
    with start_postgres(installation, settings=SETTINGS) as server:
        load(server.dsn(), program, options.scale)
        found = rounds(server.dsn(), options.rounds)
    median = sorted(found.took_s)[len(found.took_s) // 2]
    print(
        f"PostgreSQL {installation.version}, TPC-H at scale {options.scale:g}, {len(found.statuses)} queries,"
        f" {options.rounds} rounds of ANALYZE and check ({median:.2f} s a check): {len(found.red)} red,"
        f" {len(found.unsure)} not to be told"
    )
    for name, count in {**found.red, **found.unsure}.items():
        print(f"  {name}: {count} of {options.rounds} rounds: {found.details[name]}")
    sys.exit(1 if found.red else 0)


if __name__ == "__main__":
    main()
