"""The keys that keep a unique index from being built: PostgreSQL names the first that it met."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfctl.errors import PerfctlError
from perfctl.indexes.model import Step, full, quoted
from perfctl.migrations.model import Name
from perfctl.servers.postgres import Postgres

MOST = 5
#: a whole scan and a sort: worth waiting for, not worth a lock that is held for long
_WITHIN = "30s"


@dataclass(frozen=True, slots=True)
class Keys:
    """What a unique index holds apart."""

    schema: str
    table: str
    keys: list[str]
    predicate: str | None
    nulls_are_equal: bool

    @property
    def sql(self) -> str:
        """The query for the keys that stand more than once, most often first; its parts are the server's own text."""
        keys = ", ".join(f"({key})" for key in self.keys)
        conditions = [f"({self.predicate})"] if self.predicate else []
        if not self.nulls_are_equal:
            conditions += [f"({key}) IS NOT NULL" for key in self.keys]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        words = ", ".join(f"coalesce(({key})::text, 'NULL')" for key in self.keys)
        return (
            f"SELECT pg_catalog.concat_ws(', ', {words}),"
            f" count(*) FROM ONLY {full(Name(self.schema, self.table))}{where}"
            f" GROUP BY {keys} HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT {MOST + 1}"
        )


def keys_of(pg: Postgres, step: Step) -> Keys | None:
    """What the index of a build holds apart, of which a plain build leaves nothing; None when it cannot be had.

    The server reads the definition off an empty copy of the table, of which nothing stays.
    """
    if step.table is None or step.table.schema is None:
        return None
    copy = f"pg_temp.{quoted(step.table.name)}"
    try:
        with pg.transaction(rollback=True):
            pg.execute(f"CREATE TEMPORARY TABLE {quoted(step.table.name)} (LIKE {full(step.table)})")
            pg.execute(step.sql.replace(f" ON {full(step.table)} ", f" ON {copy} ", 1))
            ((oid,),) = pg.values(
                "SELECT indexrelid::bigint FROM pg_catalog.pg_index WHERE indrelid = %s::regclass", (copy,)
            )
            found = pg.fetch("keys", Keys, {"oid": oid})
    except PerfctlError:
        # As below: the server's own message names one key already.
        return None
    return replace(found[0], schema=step.table.schema, table=step.table.name) if found else None


def repeated_keys(pg: Postgres, keys: Keys) -> str:
    """The keys that stand more than once, with how often, in words; empty when they could not be had in time."""
    try:
        rows = pg.rolled_back([f"SET LOCAL statement_timeout = '{_WITHIN}'", "SET TRANSACTION READ ONLY", keys.sql])
    except PerfctlError:
        # It is a service to the reader; the server's own message names one key already.
        return ""
    words = [f"({key}) {count} times" for key, count in rows[:MOST]]
    return ", ".join(words) + (" and more" if len(rows) > MOST else "")
