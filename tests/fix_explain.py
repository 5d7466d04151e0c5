"""Hot queries for tests: a folder with a configuration and query files for one database."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fix_perfctl import ROOT, Process, Ran, run
from tests.fix_servers import Database

#: enough rows for an index to be chosen, on more pages than a small table has
TABLE = (
    "CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL, c text)",
    "INSERT INTO t SELECT i, i % 500, repeat('x', 50) FROM generate_series(1, 20000) AS i",
    "CREATE INDEX t_b ON t (b)",
    "ANALYZE t",
)


@dataclass(frozen=True, slots=True)
class Hot:
    """A folder with perfctl.yaml and a folder of hot queries."""

    folder: Path
    dsn: str

    @property
    def queries(self) -> Path:
        """The folder of query files."""
        return self.folder / "queries"

    def configure(self, queries: str = "dir: queries") -> None:
        """Write the configuration; ``queries`` is what stands below that key, in YAML's flow style."""
        text = f"version: 1\ntargets:\n  test:\n    database: {{dsn: '{self.dsn}'}}\nqueries: {{{queries}}}\n"
        (self.folder / "perfctl.yaml").write_text(text, encoding="utf-8")

    def query(self, name: str, text: str) -> Path:
        """Write one query file, named for its query."""
        path = self.queries / f"{name}.sql"
        path.write_text(text, encoding="utf-8")
        return path

    def _arguments(self, command: str, *arguments: str) -> list[str]:
        return ["explain", command, *arguments, "--config", str(self.folder / "perfctl.yaml")]

    def check(self, *arguments: str) -> Ran:
        """Run ``perfctl explain check`` in this process; its result as JSON."""
        return run(*self._arguments("check", *arguments), "--format", "json")

    def text(self, command: str, *arguments: str) -> Ran:
        """Run a command of ``perfctl explain`` in this process; its result as text."""
        return run(*self._arguments(command, *arguments))

    def start(self, *arguments: str) -> Process:
        """Run ``perfctl explain check`` as a process; its result as JSON."""
        argv = [sys.executable, "-m", "perfctl", *self._arguments("check", *arguments), "--format", "json"]
        return Process(
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )


def new_hot(folder: Path, database: Database) -> Hot:
    """A folder without queries for a database."""
    hot = Hot(folder, database.dsn)
    hot.queries.mkdir()
    hot.configure()
    return hot


def execute(database: Database, *statements: str) -> list[Any]:
    """Send statements one by one as the superuser; the last one's rows, if it gives any."""
    with database.connect() as connection:
        cursor = None
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor is not None and cursor.description else []


@pytest.fixture
def hot(tmp_path: Path, database: Database) -> Hot:
    """Hot queries for a fresh database with the table t, on each major version in turn."""
    execute(database, *TABLE)
    return new_hot(tmp_path, database)


@pytest.fixture
def hot18(tmp_path: Path, database18: Database) -> Hot:
    """Hot queries for a fresh database with the table t, on PostgreSQL 18."""
    execute(database18, *TABLE)
    return new_hot(tmp_path, database18)
