"""Queries that only look, one a file. Each file's head says what it is for, what it takes and what it needs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load(name: str, server_major: int) -> str:
    """The text of query ``name`` for a server: ``name.16.sql`` serves 16 and newer, ``name.sql`` the others.

    Raises FileNotFoundError for a name that has no file.
    """
    folder = files(__package__)
    newer = [
        int(file.name.split(".")[1])
        for file in folder.iterdir()
        if file.name.startswith(f"{name}.") and file.name.count(".") == 2
    ]
    fitting = max((major for major in newer if major <= server_major), default=None)
    file = f"{name}.sql" if fitting is None else f"{name}.{fitting}.sql"
    return (folder / file).read_text(encoding="utf-8")


def names() -> list[str]:
    """Every query's name, for the test that each has a caller."""
    return sorted({file.name.split(".")[0] for file in files(__package__).iterdir() if file.name.endswith(".sql")})
