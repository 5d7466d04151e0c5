"""What must hold of a database, whatever happened to perfctl and to the server: each check returns what does not."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from tests.fix_servers import Database
from tests.proof.schema import PROBES

_GONE_WITHIN_S = 30.0

_INDEXES = """
SELECT
    n.nspname || '.' || c.relname AS name, i.indexrelid::int8 AS oid, c.relkind::text, am.amname::text,
    i.indisvalid, i.indisready, i.indislive, pg_get_indexdef(i.indexrelid)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_am AS am ON am.oid = c.relam
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'
ORDER BY 1
"""
_SESSIONS = """
SELECT pid::text || ' (' || application_name || ', ' || coalesce(state, '?') || '): ' || left(query, 120)
FROM pg_stat_activity
WHERE application_name LIKE 'perfctl/%' AND datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One index of the catalogue."""

    name: str
    oid: int
    relkind: str
    method: str
    valid: bool
    ready: bool
    live: bool
    definition: str

    @property
    def good(self) -> bool:
        """Whether queries use it and writers keep it up."""
        return self.valid and self.ready and self.live


def entries(database: Database) -> dict[str, Entry]:
    """Every index of the user's schemas and of the journal, by its full name."""
    with database.connect() as connection:
        return {row[0]: Entry(*row) for row in connection.execute(_INDEXES.encode())}


def public(found: dict[str, Entry]) -> dict[str, str]:
    """The definitions of the indexes that are not the journal's, by name."""
    return {name: entry.definition for name, entry in found.items() if name.startswith("public.")}


def flags(database: Database) -> list[str]:
    """Every index is valid, ready and live."""
    return [
        f"{entry.name} is broken: valid {entry.valid}, ready {entry.ready}, live {entry.live}"
        for entry in entries(database).values()
        if not entry.good
    ]


def names(database: Database, expected: dict[str, str]) -> list[str]:
    """The indexes are those, with those definitions."""
    have = public(entries(database))
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - have.keys())]
    wrong += [f"{name} should not be there" for name in sorted(have.keys() - expected.keys())]
    return wrong + [
        f"{name} is {have[name]}, not {expected[name]}"
        for name in sorted(have.keys() & expected.keys())
        if have[name] != expected[name]
    ]


def sessions(database: Database, within_s: float = _GONE_WITHIN_S) -> list[str]:
    """No session of perfctl is left; the server is given time to notice that a killed one is gone."""
    deadline = time.monotonic() + within_s
    with database.connect() as connection:
        while left := [text for (text,) in connection.execute(_SESSIONS.encode())]:
            if time.monotonic() > deadline:
                return [f"a session of perfctl is left: {text}" for text in left]
            time.sleep(0.05)
    return []


def leftovers(database: Database) -> list[str]:
    """No prepared transaction but the writers', and no temporary table."""
    prepared = (
        "SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts"
        " WHERE database = current_database() AND gid NOT LIKE 'writer %'"
    )
    temporary = "SELECT 'temporary relation ' || oid::regclass FROM pg_class WHERE relpersistence = 't'"
    with database.connect() as connection:
        found = connection.execute(f"{prepared} UNION ALL {temporary}".encode())
        return [f"{text} is left" for (text,) in found]


def has_amcheck(database: Database) -> bool:
    """Whether amcheck could be installed."""
    with database.connect() as connection:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        except psycopg.errors.FeatureNotSupported:
            return False
    return True


def amcheck(database: Database) -> tuple[int, list[str]]:
    """How many indexes amcheck read, and what it said: every row has its entry, and no key is there twice."""
    read, wrong = 0, []
    with database.connect() as connection:
        major = connection.info.server_version // 10000
        for entry in entries(database).values():
            statement = _amcheck_statement(entry, major)
            if statement is None:
                continue
            read += 1
            try:
                connection.execute(statement.encode(), [entry.oid])
            except psycopg.Error as error:
                wrong.append(f"amcheck of {entry.name}: {' '.join(str(error).split())}")
    return read, wrong


def _amcheck_statement(entry: Entry, major: int) -> str | None:
    if entry.relkind != "i" or not entry.good:
        return None
    if entry.method == "btree":
        unique = ", checkunique => true" if major >= 17 else ""
        return f"SELECT bt_index_check(%s::oid::regclass, heapallindexed => true{unique})"
    if entry.method == "gin" and major >= 18:
        return "SELECT gin_index_check(%s::oid::regclass)"
    return None


def probes(database: Database) -> list[str]:
    """Hash and GIN give the rows that a read of the whole table gives, in one snapshot."""
    there = entries(database)
    wrong = []
    for index, table, key, condition in PROBES:
        if f"public.{index}" not in there:
            continue
        query = f"SELECT array_agg({key} ORDER BY {key}) FROM {table} WHERE {condition}"
        with database.connect(autocommit=False) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SET LOCAL enable_seqscan = off")
            by_index = connection.execute(query.encode()).fetchone()
            connection.execute("SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off")
            connection.execute("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off")
            by_table = connection.execute(query.encode()).fetchone()
            connection.rollback()
        if by_index != by_table:
            wrong.append(f"public.{index} does not give the rows of {table} where {condition}")
    return wrong


def duplicates(database: Database) -> list[str]:
    """The keys that are to be unique are unique in the table itself."""
    queries = {
        "accounts (client, serial)": "SELECT FROM accounts GROUP BY client, serial HAVING count(*) > 1",
        "accounts (name), live": "SELECT FROM accounts WHERE state = 'live' GROUP BY name HAVING count(*) > 1",
    }
    with database.connect() as connection:
        # An index that lacks a row would hide it.
        connection.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
        found = {name: connection.execute(query.encode()).rowcount for name, query in queries.items()}
    return [f"{name} has {count} keys more than once" for name, count in found.items() if count]


def evidence(database: Database) -> str:
    """What the catalogue and the journal hold."""
    lines = [f"  {entry}" for entry in entries(database).values() if entry.name.startswith("public.")]
    with database.connect() as connection:
        lines += [f"  session {text}" for (text,) in connection.execute(_SESSIONS.encode())]
        row = connection.execute("SELECT to_regclass('perfctl.step') IS NOT NULL").fetchone()
        if row is not None and row[0]:
            query = (
                "SELECT s.id, s.run_id, r.command, s.kind, s.name, s.state, s.object_oid, s.undoes, s.detail"
                " FROM perfctl.step AS s JOIN perfctl.run AS r ON r.id = s.run_id ORDER BY s.id DESC LIMIT 40"
            )
            lines += [f"  step {step}" for step in reversed(connection.execute(query).fetchall())]
    return "\n".join(lines)
