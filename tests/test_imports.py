"""What a command loads before it does anything: shells ask for the version and for help all the time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fix_perfctl import ROOT

#: slow to load, or of no use before a server is met
HEAVY = {
    "psycopg", "psycopg_binary", "redis", "hiredis", "pydantic", "pydantic_core", "yaml", "postgast", "google", "rich",
    "prometheus_client", "sqlalchemy", "asyncio", "httpx",
}  # fmt: skip
SCRIPT = """
import sys
before = set(sys.modules)
from perfctl.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write("\\n".join(set(sys.modules) - before))
"""


def loaded(*arguments: str) -> set[str]:
    """The modules that a command has loaded by its end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout
    return set(done.stderr.split())


def tops(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


def test_version_loads_no_library_at_all() -> None:
    modules = loaded("--version")
    assert tops(modules) & (HEAVY | {"typer", "click"}) == set()
    assert len(modules) < 30


@pytest.mark.parametrize("arguments", [("--help",), ("indexes", "--help"), ("indexes", "apply", "--help")])
def test_help_loads_no_driver_parser_or_rich(arguments: tuple[str, ...]) -> None:
    modules = loaded(*arguments)
    assert tops(modules) & HEAVY == set()
    assert len(modules) < 300


def test_help_of_the_root_names_every_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perfctl", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    words = " ".join(done.stdout.split())
    assert all(f"{code} " in words for code in (0, 1, 2, 3, 4, 5, 6, 7, 70))
    assert "130/143" in words


def test_version_says_the_version() -> None:
    from perfctl import __version__

    argv = [sys.executable, "-m", "perfctl", "--version"]
    assert (
        subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True).stdout == f"perfctl {__version__}\n"
    )
