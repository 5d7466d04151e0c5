"""perfctl itself for tests: in this process where that is enough, as a process where signals and streams matter.

``project``: a folder with a configuration for a fresh empty database on each major version in turn; ``project18``:
on 18 only. ``reference_project``: for a fresh copy of the reference system, with the 27 indexes as its migration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from perfctl.cli.app import application
from perfctl.render.json import schema
from tests.fix_servers import Database

ROOT = Path(__file__).parents[1]
#: What would lead libpq or perfctl elsewhere than the test's own configuration.
FOREIGN = ("PG", "PERFCTL_", "DATABASE_URL", "REDIS_URL", "NO_COLOR", "FORCE_COLOR")
KEPT = ("PERFCTL_REQUIRE_PG", "PERFCTL_REQUIRE_REDIS", "PERFCTL_POSTGRES", "PERFCTL_VALKEY")


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command left: its exit code and its two streams, apart."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """The one object on stdout, which must fit the schema."""
        found: dict[str, Any] = json.loads(self.stdout)
        jsonschema.validate(found, schema())
        assert found["exit_code"] == self.code
        return found

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        """The report's items by name; of several with one name, the last."""
        return {item["name"]: item for item in self.report["items"]}

    @property
    def statuses(self) -> dict[str, str]:
        """The report's statuses by name."""
        return {name: item["status"] for name, item in self.items.items()}

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of JSON on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ran:
    """Run a command in this process."""
    result = CliRunner().invoke(application(arguments[0]), list(arguments), env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True, slots=True)
class Process:
    """A command that runs as a process of its own."""

    popen: subprocess.Popen[str]

    def wait(self, within_s: float = 60.0) -> Ran:
        """What it left once it has ended."""
        try:
            stdout, stderr = self.popen.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            stdout, stderr = self.popen.communicate()
            pytest.fail(f"perfctl did not end\n{stdout}\n{stderr}")
        return Ran(self.popen.returncode, stdout, stderr)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with perfctl.yaml and a folder of migrations, for one database."""

    folder: Path
    dsn: str

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "perfctl.yaml"

    @property
    def migrations(self) -> Path:
        """The folder of migrations."""
        return self.folder / "migrations"

    def configure(self, text: str) -> None:
        """Write another configuration; {dsn} stands for the database's address."""
        self.config.write_text(text.replace("{dsn}", self.dsn), encoding="utf-8")

    def migration(self, name: str, text: str) -> Path:
        """Write one migration file."""
        path = self.migrations / f"{name}.sql"
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, *arguments: str) -> Ran:
        """Run a command of ``perfctl indexes`` in this process; its result as JSON."""
        return run("indexes", *arguments, "--config", str(self.config), "--format", "json")

    def text(self, *arguments: str) -> Ran:
        """The same, its result as text."""
        return run("indexes", *arguments, "--config", str(self.config))

    def apply(self, *arguments: str) -> Ran:
        """Apply without being asked."""
        return self.run("apply", "--yes", *arguments)

    def rollback(self, *arguments: str) -> Ran:
        """Roll back without being asked."""
        return self.run("rollback", "--yes", *arguments)

    def start(self, *arguments: str, form: str = "json") -> Process:
        """Run a command of ``perfctl indexes`` as a process; its result as JSON unless ``form`` says otherwise."""
        argv = [sys.executable, "-m", "perfctl", "indexes", *arguments, "--config", str(self.config)]
        return Process(
            subprocess.Popen(
                [*argv, "--format", form],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )


def for_cache(folder: Path, url: str) -> Path:
    """The configuration, written to ``folder``, of a target "test" that has a cache and nothing else."""
    path = folder / "perfctl.yaml"
    path.write_text(f"version: 1\ntargets: {{test: {{cache: {{url: '{url}', prefix: 'cache:'}}}}}}\n")
    return path


def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Wait until the condition holds; fail when it does not come to hold."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("what was waited for did not happen")
        time.sleep(0.02)


def new_project(folder: Path, database: Database) -> Project:
    """A project for a database, without migrations."""
    project = Project(folder, database.dsn)
    project.migrations.mkdir()
    # However slow the machine, a build begins: what a test holds it up with is not to be waited for before.
    project.configure(
        "version: 1\ntargets:\n  test:\n    database: {dsn: '{dsn}'}\n"
        "indexes: {migrations: migrations, blocker_age: 2h}\n"
    )
    return project


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN) and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A project for a fresh empty database, on each major version in turn."""
    return new_project(tmp_path, database)


@pytest.fixture
def project18(tmp_path: Path, database18: Database) -> Project:
    """A project for a fresh empty database on PostgreSQL 18."""
    return new_project(tmp_path, database18)


def with_the_27(project: Project) -> Project:
    """The project with the reference system's migration and its rollback."""
    for file in (ROOT / "sql" / "migrations").glob("*.sql"):
        project.migration(file.stem, file.read_text(encoding="utf-8"))
    return project


@pytest.fixture
def reference_project(tmp_path: Path, reference_db: Database) -> Project:
    """A project for a copy of the reference system with the 27 indexes to come, on each major version in turn."""
    return with_the_27(new_project(tmp_path, reference_db))


@pytest.fixture
def reference_project18(tmp_path: Path, reference_db18: Database) -> Project:
    """A project for a copy of the reference system with the 27 indexes to come, on PostgreSQL 18."""
    return with_the_27(new_project(tmp_path, reference_db18))
