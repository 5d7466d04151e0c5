"""The reference system's database, made and filled on a server of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perfctl.errors import UsageError
from perfctl.hotqueries import files
from perfctl.hotqueries.model import HotQuery
from perfctl.servers import postgres

DATABASE = "ai_code_review"
SCHEMAS = ("production", "projects", "auth")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded."""

    tables: int
    rows: int
    size_bytes: int


def hot_queries(sql: Path) -> tuple[HotQuery, ...]:
    """The reference system's hot queries, in the order of their files.

    Raises UsageError with file and line for one that cannot be used.
    """
    found = files.load(sql / "queries")
    for problem in found.problems:
        raise UsageError(f"{problem.file}:{problem.line}: error: {problem.message}", hint=problem.hint)
    return found.queries


def load(conninfo: Mapping[str, str], sql: Path, scale: float) -> Loaded:
    """Create the database on the server that ``conninfo`` leads to, and fill it with a million rows times ``scale``."""
    server = postgres.connect({**conninfo, "dbname": "postgres"}, application="perfctl/demo")
    try:
        server.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        server.close()
    pg = postgres.connect({**conninfo, "dbname": DATABASE}, application="perfctl/demo")
    try:
        pg.setting("perfctl.scale", f"{scale:f}")
        for file in ("schema.sql", "data.sql"):
            pg.execute((sql / "reference" / file).read_text(encoding="utf-8"))
        # Sets the visibility map, without which no index can answer alone; then reltuples are right, too.
        pg.execute("VACUUM (ANALYZE)")
        ((tables, rows, size),) = pg.values(
            "SELECT count(*), sum(reltuples)::bigint, pg_catalog.pg_database_size(current_database())"
            " FROM pg_catalog.pg_class WHERE relkind = 'r' AND relnamespace = ANY (%s::regnamespace[])",
            [list(SCHEMAS)],
        )
    finally:
        pg.close()
    return Loaded(tables, rows, size)
