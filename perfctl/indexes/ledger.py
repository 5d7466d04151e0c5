"""The journal: what perfctl did in a database, kept in that database, in schema ``perfctl``.

A line is written before its statement is sent and finished after the catalogue was looked at again, so a run
that dies at any instant leaves a trace of what it was doing.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perfctl import __version__
from perfctl.indexes.model import Step
from perfctl.indexes.running import Outcome

_CREATE = """
CREATE SCHEMA IF NOT EXISTS perfctl;
COMMENT ON SCHEMA perfctl IS 'journal of perfctl: what it built here, and how to take it off again';
CREATE TABLE IF NOT EXISTS perfctl.run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command text NOT NULL,
    target text,
    perfctl_version text NOT NULL,
    role text NOT NULL DEFAULT current_user,
    client_address inet DEFAULT pg_catalog.inet_client_addr(),
    origin text,
    backend_pid integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at timestamptz,
    outcome text
);
CREATE TABLE IF NOT EXISTS perfctl.step (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES perfctl.run (id),
    kind text NOT NULL,
    schema text,
    name text NOT NULL,
    table_schema text,
    table_name text,
    migration text,
    migration_number bigint,
    migration_sha256 text,
    statement text NOT NULL,
    undo text,
    object_oid oid,
    canonical text,
    comment text,
    state text NOT NULL CHECK (state IN ('started', 'done', 'failed')),
    detail text,
    build_s numeric(12, 3),
    wait_s numeric(12, 3),
    size_bytes bigint,
    table_bytes bigint,
    estimated_s numeric(12, 3),
    undoes bigint REFERENCES perfctl.step (id),
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at timestamptz
);
CREATE INDEX IF NOT EXISTS step_run_id ON perfctl.step (run_id);
CREATE INDEX IF NOT EXISTS step_undoes ON perfctl.step (undoes) WHERE undoes IS NOT NULL;
"""


class Sends(Protocol):
    """What the journal needs of a session."""

    def values(
        self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Send one statement and return its rows."""
        ...

    def execute(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> int:
        """Send one statement."""
        ...


class Journal(Protocol):
    """Where a run writes down what it does."""

    run_id: int

    def open(self, command: str, target: str | None) -> int:
        """Begin a run and return its number."""
        ...

    def start(self, step: Step, oid: int | None) -> int:
        """Write down what is about to be sent; returns the line's number."""
        ...

    def note_oid(self, line: int, oid: int) -> None:
        """Write down what a statement is making as soon as it shows."""
        ...

    def finish(self, line: int, outcome: Outcome) -> None:
        """Write down what became of it."""
        ...

    def renamed(self, step: Step, made_as: str, oid: int, drop: Step) -> int:
        """Write down that what was made under another name has taken the place of ``drop``'s index.

        The line of its build is done and has no undo any more; the new line has it, and the build's figures.
        Returns the line of the drop that is still to come.
        """
        ...

    def close(self, outcome: str) -> None:
        """End the run."""
        ...


class DatabaseJournal:
    """The journal in schema ``perfctl`` of the database itself."""

    def __init__(self, pg: Sends, *, exists: bool, run_id: int = 0) -> None:
        self._pg = pg
        self._exists = exists
        self.run_id = run_id

    def through(self, pg: Sends) -> DatabaseJournal:
        """The same journal, written from another session: what it writes is part of that one's transaction."""
        return DatabaseJournal(pg, exists=True, run_id=self.run_id)

    def open(self, command: str, target: str | None) -> int:
        """Begin a run and return its number; the tables are made where they are not there yet."""
        if not self._exists:
            # One message is one transaction.
            self._pg.execute(_CREATE)
        ((self.run_id,),) = self._pg.values(
            "INSERT INTO perfctl.run (command, target, perfctl_version, origin) VALUES (%s, %s, %s, %s) RETURNING id",
            (command, target, __version__, origin()),
        )
        return self.run_id

    def start(self, step: Step, oid: int | None) -> int:
        """Write down what is about to be sent; returns the line's number.

        A step that finishes what an earlier run began goes on with that run's line.
        """
        if step.line is not None:
            return step.line
        fields = line_of(step, oid)
        ((line,),) = self._pg.values(
            f"INSERT INTO perfctl.step (run_id, state, {', '.join(fields)})"
            f" VALUES (%s, 'started', {', '.join(['%s'] * len(fields))}) RETURNING id",
            (self.run_id, *fields.values()),
        )
        return int(line)

    def note_oid(self, line: int, oid: int) -> None:
        """Write down what a statement is making as soon as it shows: a run that dies now can be told from others."""
        self._pg.execute("UPDATE perfctl.step SET object_oid = %s WHERE id = %s", (oid, line))

    def finish(self, line: int, outcome: Outcome) -> None:
        """Write down what became of it."""
        fields = end_of(outcome)
        self._pg.execute(
            f"UPDATE perfctl.step SET {', '.join(f'{name} = %s' for name in fields)},"
            " object_oid = coalesce(%s, object_oid), ended_at = pg_catalog.clock_timestamp() WHERE id = %s",
            (*fields.values(), outcome.oid, line),
        )

    def renamed(self, step: Step, made_as: str, oid: int, drop: Step) -> int:
        """As ``Journal.renamed``. The drop's line comes before the build's: a rollback undoes them the other way."""
        line = self.start(drop, drop.oid)
        # The build ended well, and there is nothing of its name to take back any more. A run that was killed early has
        # not noted its OID.
        built = self._pg.values(
            "UPDATE perfctl.step SET state = 'done', detail = %s, undo = NULL"
            " WHERE kind = 'create_index' AND name = %s AND schema = %s"
            " AND (object_oid = %s OR object_oid IS NULL AND state = 'started')"
            " RETURNING build_s, wait_s, size_bytes",
            (renamed_to(step), made_as, step.name.schema, oid),
        )
        build_s, wait_s, size_bytes = built[-1] if built else (None, None, None)
        fields = {**line_of(step, oid), "build_s": build_s, "wait_s": wait_s, "size_bytes": size_bytes}
        self._pg.execute(
            f"INSERT INTO perfctl.step (run_id, state, ended_at, {', '.join(fields)})"
            f" VALUES (%s, 'done', pg_catalog.clock_timestamp(), {', '.join(['%s'] * len(fields))})",
            (self.run_id, *fields.values()),
        )
        return line

    def close(self, outcome: str) -> None:
        """End the run."""
        self._pg.execute(
            "UPDATE perfctl.run SET ended_at = pg_catalog.clock_timestamp(), outcome = %s WHERE id = %s",
            (outcome, self.run_id),
        )


class NoJournal:
    """Nothing is written down: no rollback knows afterwards what this run made."""

    run_id = 0

    def open(self, command: str, target: str | None) -> int:  # noqa: ARG002 - as Journal has it
        """Begin a run that has no number."""
        return 0

    def start(self, step: Step, oid: int | None) -> int:  # noqa: ARG002
        """Nothing."""
        return 0

    def note_oid(self, line: int, oid: int) -> None:
        """Nothing."""

    def finish(self, line: int, outcome: Outcome) -> None:
        """Nothing."""

    def renamed(self, step: Step, made_as: str, oid: int, drop: Step) -> int:  # noqa: ARG002
        """Nothing."""
        return 0

    def close(self, outcome: str) -> None:
        """Nothing."""


def line_of(step: Step, oid: int | None) -> dict[str, Any]:
    """A step as the columns of its line."""
    return {
        "kind": step.journal_kind,
        "schema": step.name.schema,
        "name": step.name.name,
        "table_schema": step.table.schema if step.table else None,
        "table_name": step.table.name if step.table else None,
        "migration": step.migration,
        "migration_number": step.migration_number,
        "migration_sha256": step.migration_sha256,
        "statement": step.sql,
        "undo": step.undo,
        "object_oid": oid,
        "canonical": step.canonical,
        "comment": step.comment,
        "table_bytes": step.table_bytes,
        "estimated_s": round(step.estimate.base_s, 3) if step.estimate else None,
        "undoes": step.undoes,
    }


def renamed_to(step: Step) -> str:
    """What the line of a build says once the index bears the name of another."""
    return f"renamed to {step.name.name}"


def end_of(outcome: Outcome) -> dict[str, Any]:
    """What became of a step, as the columns of its line; ``object_oid`` apart."""
    return {
        "state": "failed" if outcome.result == "failed" else "done",
        "detail": outcome.detail or None,
        "build_s": round(outcome.build_s, 3),
        "wait_s": round(outcome.wait_s, 3),
        "size_bytes": outcome.size_bytes,
    }


def origin() -> str:
    """Who and where, as an operator would look for it: user@host, and the CI job where there is one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's uid often has no name.
        user = str(os.getuid())
    job = os.environ.get("CI_JOB_URL") or os.environ.get("GITHUB_RUN_ID")
    return f"{user}@{socket.gethostname()}" + (f" ci:{job}" if job else "")
