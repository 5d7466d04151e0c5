"""A database into a Snapshot: a handful of catalogue queries, however many indexes there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from perfctl.errors import Denied, StatementFailed
from perfctl.indexes import canonical
from perfctl.indexes.model import (
    Blocker,
    Build,
    Canonical,
    Entry,
    Index,
    Partition,
    Server,
    Snapshot,
    Statistics,
    Table,
    Wanted,
)
from perfctl.migrations.model import (
    Analyze,
    CommentOnIndex,
    CreateExtension,
    CreateIndex,
    CreateStatistics,
    DropIndex,
    Migration,
    Name,
    Place,
)
from perfctl.servers.postgres import Postgres


def snapshot(
    pg: Postgres,
    migrations: Sequence[Migration] = (),
    *,
    scope: Sequence[str] = (),
    estimate: bool = False,
    journal: Callable[[Server, str | None], tuple[Entry, ...]] | None = None,
) -> Snapshot:
    """What the migrations touch, with the state of the server and the journal.

    ``scope`` names schemas whose broken indexes are wanted too; ``estimate`` asks the planner how many rows
    partial indexes hold, and how many cores the server has. ``journal`` reads one that is kept outside the database.
    Raises Unreachable or Denied.
    """
    # The session's own path says what unqualified names mean; what the server prints must not depend on it.
    pg.execute("RESET search_path")
    server = pg.fetch_one("server", Server)
    paths = _search_paths(pg, migrations)
    pg.setting("search_path", "pg_catalog")
    identifier = _system_identifier(pg)
    entries = _journal(pg, server) if journal is None else journal(server, identifier)
    wanted_tables, wanted_indexes = _names(migrations, entries)
    everywhere = list(dict.fromkeys([*server.search_path, *(s for path in paths.values() for s in path)]))
    schemas, names = _pairs([*wanted_tables, *wanted_indexes], everywhere)
    relations = {table.full_name: table for table in pg.fetch("tables", Table, {"schemas": schemas, "names": names})}
    scope = tuple(scope) or tuple(sorted({t.schema for t in relations.values()}))
    indexable = [t.oid for t in relations.values() if t.relkind in "rmp"]
    whole = [t.oid for t in relations.values() if t.relkind == "p"]
    partitions = tuple(pg.fetch("partitions", Partition, {"tables": whole})) if whole else ()
    seen = Snapshot(
        server=server,
        system_identifier=identifier,
        tables=relations,
        indexes=tuple(
            pg.fetch(
                "indexes",
                Index,
                {
                    "tables": sorted(
                        {t.oid for t in relations.values() if t.relkind in "rmpt"} | {p.oid for p in partitions}
                    ),
                    "schemas": schemas,
                    "names": names,
                    "scope": list(scope),
                },
            )
        ),
        statistics=_statistics(pg, migrations, everywhere),
        builds=tuple(pg.fetch("builds", Build)),
        blockers=tuple(pg.fetch("blockers", Blocker, {"tables": indexable + [p.oid for p in partitions], "own": []})),
        journal=entries,
        partitions=partitions,
        cores=_cores(pg) if estimate else None,
        scope=scope,
        search_paths=paths,
    )
    return replace(seen, canonical=_canonical(pg, seen, migrations, estimate=estimate))


def wanted(migrations: Sequence[Migration], seen: Snapshot) -> list[Wanted]:
    """Every CREATE INDEX of the migrations with its table, in order."""
    return [
        Wanted(
            statement,
            migration.name,
            migration.number,
            migration.sha256,
            seen.tables.get(
                seen.resolve(statement.table, statement.search_path),
            ),
        )
        for migration in migrations
        for statement in migration.indexes
    ]


def _journal(pg: Postgres, server: Server) -> tuple[Entry, ...]:
    if not (server.has_journal and server.may_use_journal_schema):
        return ()
    try:
        return tuple(pg.fetch("journal", Entry))
    except Denied:
        # Who may not read the journal may still look at the indexes; writing is checked before an apply.
        return ()


def _search_paths(pg: Postgres, migrations: Sequence[Migration]) -> dict[str, tuple[str, ...]]:
    texts = {
        statement.search_path
        for migration in migrations
        for statement in migration.statements
        if statement.search_path is not None
    }
    found = {}
    for path in texts:
        with pg.transaction(rollback=True):
            pg.values("SELECT set_config('search_path', %s, true)", (path,))
            ((schemas,),) = pg.values("SELECT pg_catalog.current_schemas(false)::text[]")
        found[path] = tuple(schemas)
    return found


def _names(migrations: Sequence[Migration], journal: Iterable[Entry]) -> tuple[list[Name], list[Name]]:
    """The tables and the indexes that the migrations and the journal name."""
    tables: dict[Name, None] = {}
    indexes: dict[Name, None] = {}
    for migration in migrations:
        for statement in migration.statements:
            match statement:
                case CreateIndex():
                    tables[statement.table] = None
                    indexes[Name(statement.table.schema, statement.name.name)] = None
                case CreateStatistics() | Analyze():
                    tables[statement.table] = None
                case DropIndex() | CommentOnIndex():
                    indexes[statement.name] = None
    for entry in journal:
        if entry.table_schema and entry.table_name:
            tables[Name(entry.table_schema, entry.table_name)] = None
        if entry.schema and entry.kind.endswith("index"):
            indexes[entry.full_name] = None
    return list(tables), list(indexes)


def _pairs(names: Iterable[Name], search_path: Sequence[str]) -> tuple[list[str], list[str]]:
    """Schemas and names side by side; a name without a schema stands once for each schema of the path."""
    pairs = dict.fromkeys(
        (schema, name.name) for name in names for schema in ([name.schema] if name.schema else search_path)
    )
    return [schema for schema, _ in pairs], [name for _, name in pairs]


def _cores(pg: Postgres) -> int | None:
    """The server's processor cores. SQL does not tell; Linux does, to a role that may read the server's files."""
    try:
        ((text,),) = pg.values("SELECT pg_catalog.pg_read_file('/proc/cpuinfo', 0, 10000000, true)")
    except (Denied, StatementFailed):
        return None
    return text.count("\nprocessor\t") + text.startswith("processor\t") if text else None


def _system_identifier(pg: Postgres) -> str | None:
    try:
        ((identifier,),) = pg.values("SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
    except (Denied, StatementFailed):
        # Some managed services do not allow it; the database's OID and name still bind a plan.
        return None
    return str(identifier)


def _statistics(pg: Postgres, migrations: Sequence[Migration], search_path: Sequence[str]) -> tuple[Statistics, ...]:
    names = [s.name for m in migrations for s in m.statements if isinstance(s, CreateStatistics)]
    if not names:
        return ()
    schemas, plain = _pairs(names, search_path)
    return tuple(pg.fetch("statistics", Statistics, {"schemas": schemas, "names": plain}))


def _canonical(
    pg: Postgres, seen: Snapshot, migrations: Sequence[Migration], *, estimate: bool
) -> dict[Place, Canonical]:
    indexes = wanted(migrations, seen)
    if seen.server.in_recovery:
        return _from_journal(seen, indexes, "a standby cannot build the definition to compare it")
    if not seen.server.may_create_temporary:
        reason = (
            f'role "{seen.server.role}" may not create temporary tables:'
            f' GRANT TEMPORARY ON DATABASE "{seen.server.database}" TO "{seen.server.role}"'
        )
        return _from_journal(seen, indexes, reason)
    statistics = [
        (s, table)
        for m in migrations
        for s in m.statements
        if isinstance(s, CreateStatistics) and (table := seen.tables.get(seen.resolve(s.table, s.search_path)))
    ]
    extensions = [
        s
        for m in migrations
        for s in m.statements
        if isinstance(s, CreateExtension) and s.name not in (seen.server.extensions or [])
    ]
    texts = canonical.build(pg, indexes, statistics, extensions, search_path=seen.server.search_path_setting)
    if estimate:
        for place, rows in canonical.partial_rows(pg, indexes, texts).items():
            texts[place] = replace(texts[place], rows=rows)
    return texts


def _from_journal(seen: Snapshot, indexes: Sequence[Wanted], reason: str) -> dict[Place, Canonical]:
    """The canonical text that an earlier apply of the very same statement wrote down."""
    recorded = {
        (entry.full_name, entry.statement): entry.canonical
        for entry in seen.journal
        if entry.canonical and entry.kind == "create_index"
    }
    return {
        w.place: Canonical(found) if (found := recorded.get((w.name, w.sql()))) else Canonical(None, reason)
        for w in indexes
        if w.table
    }


def amcheck(pg: Postgres, indexes: Sequence[Wanted], seen: Snapshot) -> dict[int, str | None] | None:
    """What amcheck says of each good B-tree (and, from PostgreSQL 18, GIN) index; None without the extension.

    By OID; None is "sound". ``heapallindexed`` proves that every row of the table has its entry
    (https://www.postgresql.org/docs/current/amcheck.html). It takes no lock that blocks reads or writes.
    """
    if "amcheck" not in (seen.server.extensions or []):
        return None
    ((schema,),) = pg.values(
        "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension AS e"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'"
    )
    ((has_gin,),) = pg.values(
        "SELECT pg_catalog.to_regprocedure(%s) IS NOT NULL", (f"{schema}.gin_index_check(regclass)",)
    )
    found: dict[int, str | None] = {}
    for w in indexes:
        index = seen.by_name.get(w.name)
        if index is None or not index.is_good or index.relkind != "i":
            continue
        try:
            if index.method == "btree":
                pg.values(f"SELECT {schema}.bt_index_check(%s::regclass, true)", (index.oid,))
            elif index.method == "gin" and has_gin:
                pg.values(f"SELECT {schema}.gin_index_check(%s::regclass)", (index.oid,))
            else:
                continue
            found[index.oid] = None
        except (StatementFailed, Denied) as error:
            found[index.oid] = error.message
    return found
