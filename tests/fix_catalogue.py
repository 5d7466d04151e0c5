"""What a database holds, as plain values, for tests that compare it before and after."""

from __future__ import annotations

from typing import Any

from tests.fix_servers import Database

_INDEXES = """
SELECT n.nspname, c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indislive, i.indisunique,
    i.indisclustered, i.indisreplident, obj_description(i.indexrelid, 'pg_class'), c.reloptions, t.spcname
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_tablespace AS t ON t.oid = c.reltablespace
WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'perfctl')
ORDER BY 1, 2
"""
_REST = """
SELECT 'relation', n.nspname, c.relname, c.relkind::text, obj_description(c.oid, 'pg_class')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'perfctl', 'information_schema')
UNION ALL
SELECT 'statistics', n.nspname, s.stxname, pg_get_statisticsobjdef(s.oid), NULL
FROM pg_statistic_ext AS s JOIN pg_namespace AS n ON n.oid = s.stxnamespace
UNION ALL
SELECT 'extension', NULL, extname, NULL, NULL FROM pg_extension
ORDER BY 1, 2, 3
"""


def indexes(database: Database) -> list[tuple[Any, ...]]:
    """Every index with its definition, flags, comment, options and tablespace, perfctl's own journal apart."""
    with database.connect() as connection:
        return connection.execute(_INDEXES).fetchall()


def catalogue(database: Database) -> list[tuple[Any, ...]]:
    """Indexes, relations, statistics and extensions, perfctl's own journal apart."""
    with database.connect() as connection:
        return [*connection.execute(_INDEXES).fetchall(), *connection.execute(_REST).fetchall()]


def flags(database: Database, name: str) -> tuple[bool, bool, bool] | None:
    """Valid, ready and live of the index of that name; None without one."""
    query = "SELECT indisvalid, indisready, indislive FROM pg_index WHERE indexrelid = to_regclass(%s)"
    with database.connect() as connection:
        row = connection.execute(query, [name]).fetchone()
    return (row[0], row[1], row[2]) if row else None


def names(database: Database) -> set[str]:
    """The names of all indexes that are no constraint's."""
    query = (
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid"
        " WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)"
        " AND coalesce(c.relnamespace <> to_regnamespace('perfctl'), true)"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
    )
    with database.connect() as connection:
        return {name for (name,) in connection.execute(query)}


def journal(database: Database, columns: str = "kind, name, state") -> list[tuple[Any, ...]]:
    """The journal's lines, oldest first; none when there is no journal."""
    with database.connect() as connection:
        row = connection.execute("SELECT to_regclass('perfctl.step')").fetchone()
        if row is None or row[0] is None:
            return []
        return connection.execute(f"SELECT {columns} FROM perfctl.step ORDER BY id".encode()).fetchall()
