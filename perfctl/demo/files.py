"""Where the reference system's SQL lies."""

from __future__ import annotations

from pathlib import Path

from perfctl.errors import UsageError


def sql_folder() -> Path:
    """The folder with reference, migrations and queries: in the package or, in a checkout, beside it.

    Raises UsageError when it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_sql", package.parent / "sql"):
        if (folder / "reference" / "schema.sql").is_file():
            return folder
    raise UsageError(
        "the reference system's SQL is not in this installation", hint="pip install --force-reinstall perfctl"
    )
