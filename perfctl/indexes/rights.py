"""Every right that a run lacks, before its first statement: the fourteenth index is a bad place to find out."""

from __future__ import annotations

from collections.abc import Sequence

from perfctl.indexes.model import Refusal, Server, Snapshot, Step, quoted
from perfctl.migrations.model import Name

#: CREATE INDEX and CREATE STATISTICS need CREATE on the schema as well as the table's ownership.
_CREATING = frozenset({"create_index", "create_statistics"})


def missing_rights(steps: Sequence[Step], seen: Snapshot, *, journal: bool = True) -> list[Refusal]:
    """One refusal for each missing right, with the GRANT that gives it; ``journal`` is written in the database."""
    if not steps:
        return []
    return [*_on_tables(steps, seen), *_on_schemas(steps, seen), *(_on_journal(seen) if journal else ())]


def unseen(steps: Sequence[Step], server: Server) -> list[str]:
    """What a role does without that may not see other roles' sessions, with the GRANT that mends it."""
    if server.may_see_others or not any(step.kind == "create_index" and step.concurrent for step in steps):
        return []
    return [
        f'note: role "{server.role}" may not see what other roles\' sessions do: a build is begun without waiting for'
        " their old transactions first, and may then have to wait for them in its end"
        f" (GRANT pg_read_all_stats TO {quoted(server.role)})"
    ]


def unended(server: Server) -> list[str]:
    """Whom a role may not end although it is to end who blocks, with the GRANT that mends it."""
    grants = [
        grant
        # Who may not see what a session is may not tell it from a process of the server, and leaves it alone.
        for grant, given in (("pg_read_all_stats", server.may_see_others), ("pg_signal_backend", server.may_end_others))
        if not given
    ]
    if not grants:
        return []
    return [
        f'note: --kill-blockers: role "{server.role}" can end sessions of its own roles only'
        f" (GRANT {', '.join(grants)} TO {quoted(server.role)})"
    ]


def no_temporary(server: Server) -> Refusal:
    """A wanted definition is compared by the server's own text of it, which a temporary copy of the table gives."""
    return _deny(
        Name(None, server.database),
        f'role "{server.role}" may not create temporary tables, with which definitions are compared',
        f"GRANT TEMPORARY ON DATABASE {quoted(server.database)} TO {quoted(server.role)}",
    )


def _deny(name: Name, why: str, remedy: str) -> Refusal:
    return Refusal(name, why, remedy, denied=True)


def _on_tables(steps: Sequence[Step], seen: Snapshot) -> list[Refusal]:
    role = seen.server.role
    parts = {partition.full_name: partition for partition in seen.partitions}
    owners: dict[Name, tuple[str, bool]] = {}
    for step in steps:
        table = seen.tables.get(step.table) or parts.get(step.table) if step.table else None
        index = seen.by_name.get(step.name)
        if table is not None:
            owners[table.full_name] = table.owner, table.owned
        elif index is not None:
            # The table of an index that is only dropped or commented on is not looked at; an index has its owner.
            owners[Name(index.table_schema, index.table_name)] = index.owner, index.owned
    return [
        _deny(
            name,
            f'role "{role}" does not own table "{name}"',
            f"GRANT {quoted(owner)} TO {quoted(role)}",
        )
        for name, (owner, owned) in owners.items()
        if not owned
    ]


def _on_schemas(steps: Sequence[Step], seen: Snapshot) -> list[Refusal]:
    role = seen.server.role
    tables = [seen.tables[s.table] for s in steps if s.kind in _CREATING and s.table and s.table in seen.tables]
    return [
        _deny(
            Name(None, schema),
            f'role "{role}" may not create in schema "{schema}"',
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)}",
        )
        for schema in sorted({table.schema for table in tables if not table.may_create})
    ]


def _on_journal(seen: Snapshot) -> list[Refusal]:
    server = seen.server
    role = quoted(server.role)
    if not server.has_journal_schema and not server.may_create_schema:
        return [
            _deny(
                Name(None, "perfctl"),
                f'role "{server.role}" may not create schema "perfctl" for the journal'
                " (--journal file:PATH keeps it elsewhere, --journal none does without)",
                f"GRANT CREATE ON DATABASE {quoted(server.database)} TO {role}",
            )
        ]
    if server.has_journal_schema and not (
        server.may_write_journal if server.has_journal else server.may_use_journal_schema
    ):
        return [
            _deny(
                Name(None, "perfctl"),
                f'role "{server.role}" may not write the journal in schema "perfctl"',
                f"GRANT USAGE ON SCHEMA perfctl TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA perfctl TO {role};"
                f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA perfctl TO {role}",
            )
        ]
    return []
