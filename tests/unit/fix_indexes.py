"""Small records for tests of decisions: what a server would show, made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfctl.indexes.model import Blocker, Build, Canonical, Entry, Index, Server, Snapshot, Statistics, Table, Wanted
from perfctl.migrations.files import from_text
from perfctl.migrations.model import Migration

SERVER = Server(
    database="app",
    database_oid=5,
    role="me",
    version="18.2",
    version_num=180002,
    in_recovery=False,
    search_path=["public"],
    search_path_setting='"$user", public',
    may_create_schema=True,
    may_create_temporary=True,
    may_see_others=True,
    may_end_others=True,
    has_journal_schema=False,
    has_journal=False,
    may_use_journal_schema=False,
    may_write_journal=False,
    maintenance_work_mem_kb=65536,
    max_parallel_maintenance_workers=2,
    max_parallel_workers=8,
    shared_buffers_kb=131072,
    deadlock_timeout_s=1.0,
    data_directory=None,
    block_size=8192,
    extensions=[],
)
TABLE = Table(
    oid=100,
    schema="public",
    name="t",
    relkind="r",
    persistence="p",
    pages=10,
    rows=1000.0,
    size_bytes=81920,
    owner="me",
    owned=True,
    may_create=True,
    columns="a integer, b integer",
)
DEFINITION = "CREATE INDEX i ON public.t USING btree (a)"
INDEX = Index(
    oid=200,
    schema="public",
    name="i",
    table_oid=100,
    table_schema="public",
    table_name="t",
    relkind="i",
    is_unique=False,
    is_valid=True,
    is_ready=True,
    is_live=True,
    is_usable=True,
    definition=DEFINITION,
    method="btree",
    owner="me",
    owned=True,
    size_bytes=16384,
    tablespace=None,
    constraint_name=None,
    parent_oid=None,
    scans=3,
    comment=None,
    predicate=None,
    marks=[],
)
BUILD = Build(
    pid=42,
    table_oid=100,
    index_oid=200,
    command="CREATE INDEX CONCURRENTLY",
    phase="building index",
    lockers_total=0,
    lockers_done=0,
    current_locker_pid=None,
    blocks_total=10,
    blocks_done=5,
    tuples_total=0,
    tuples_done=0,
    role="other",
    application="psql",
)
BLOCKER = Blocker(
    pid=7,
    role="app",
    application="web",
    state="idle in transaction",
    age_s=12.0,
    query="SELECT 1",
    table_oid=100,
    reason="writer",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    is_client=True,
    is_wraparound=False,
)
ENTRY = Entry(
    id=1,
    run_id=1,
    kind="create_index",
    schema="public",
    name="i",
    table_schema="public",
    table_name="t",
    migration="1_a",
    migration_number=1,
    migration_sha256="0",
    statement='CREATE INDEX CONCURRENTLY "i" ON "public"."t" (a)',
    undo='DROP INDEX CONCURRENTLY "public"."i"',
    object_oid=200,
    canonical="USING btree (a)",
    comment=None,
    state="done",
    detail=None,
    build_s=0.1,
    wait_s=0.0,
    size_bytes=16384,
    table_bytes=81920,
    estimated_s=None,
    undoes=None,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    role="me",
    origin="me@here",
)


def migration(text: str, name: str = "1_a", rollback: str | None = None) -> Migration:
    """A migration of that text."""
    undo = from_text(Path(f"{name}_rollback.sql"), rollback, "1") if rollback is not None else None
    return from_text(Path(f"{name}.sql"), text, "0", undo)


def table(name: str = "t", **facts: Any) -> Table:
    """A table like TABLE."""
    return replace(TABLE, **{"name": name, **facts})


def index(name: str = "i", definition: str | None = None, **facts: Any) -> Index:
    """An index like INDEX; its definition follows from its name unless it is given."""
    return replace(
        INDEX,
        **{"name": name, "definition": definition or f"CREATE INDEX {name} ON public.t USING btree (a)", **facts},
    )


def entry(**facts: Any) -> Entry:
    """A line of the journal like ENTRY."""
    return replace(ENTRY, **facts)


def statistics(definition: str = "CREATE STATISTICS public.s ON a, b FROM t", **facts: Any) -> Statistics:
    """Extended statistics on TABLE."""
    return replace(Statistics(300, "public", "s", 100, definition), **facts)


def seen(
    *indexes: Index,
    migrations: tuple[Migration, ...] = (),
    tables: tuple[Table, ...] = (TABLE,),
    server: Mapping[str, Any] | None = None,
    canonical: Mapping[str, str | None] | None = None,
    **facts: Any,
) -> Snapshot:
    """What a server would show; ``canonical`` gives the server's text for an index or statistics, by name.

    Without it the text of every wanted index is what PostgreSQL prints for ``(a)``: "USING btree (a)".
    """
    texts = dict(canonical or {})
    places = {
        statement.place: Canonical(
            texts.get(statement.name.name, "USING btree (a)"),
            "the server's reason" if texts.get(statement.name.name, "") is None else None,
        )
        for each in migrations
        for statement in each.indexes
    }
    return Snapshot(
        server=replace(SERVER, **(server or {})),
        system_identifier="1",
        tables={each.full_name: each for each in tables},
        indexes=indexes,
        canonical=places,
        **facts,
    )


def wanted(migrations: tuple[Migration, ...], snapshot: Snapshot) -> list[Wanted]:
    """The indexes of the migrations, their tables found."""
    return [
        Wanted(s, m.name, m.number, m.sha256, snapshot.tables.get(snapshot.resolve(s.table)))
        for m in migrations
        for s in m.indexes
    ]
