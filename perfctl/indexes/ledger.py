"""The journal: what perfctl did in a database, kept in that database, in schema ``perfctl``.

A line is written before its statement is sent and finished after the catalogue was looked at again, so a run
that dies at any instant leaves a trace of what it was doing.
"""

from __future__ import annotations

import getpass
import os
import socket

from perfctl import __version__
from perfctl.indexes.model import Outcome, Step
from perfctl.servers.postgres import Postgres

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


class Ledger:
    """Writes one run's lines. ``open`` it first."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg
        self.run_id = 0

    def open(self, command: str, target: str | None, *, exists: bool) -> int:
        """Begin a run and return its number; the tables are made where they are not there yet."""
        if not exists:
            with self._pg.transaction():
                self._pg.execute(_CREATE)
        ((self.run_id,),) = self._pg.values(
            "INSERT INTO perfctl.run (command, target, perfctl_version, origin) VALUES (%s, %s, %s, %s) RETURNING id",
            (command, target, __version__, _origin()),
        )
        return self.run_id

    def start(self, step: Step, oid: int | None) -> int:
        """Write down what is about to be sent; returns the line's number."""
        ((line,),) = self._pg.values(
            "INSERT INTO perfctl.step (run_id, kind, schema, name, table_schema, table_name, migration,"
            " migration_number, migration_sha256, statement, undo, object_oid, canonical, comment, table_bytes,"
            " estimated_s, undoes, state) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
            " 'started') RETURNING id",
            (
                self.run_id,
                step.kind,
                step.name.schema,
                step.name.name,
                step.table.schema if step.table else None,
                step.table.name if step.table else None,
                step.migration,
                step.migration_number,
                step.migration_sha256,
                step.sql,
                step.undo,
                oid,
                step.canonical,
                step.comment,
                step.table_bytes,
                round(step.estimate.base_s, 3) if step.estimate else None,
                step.undoes,
            ),
        )
        return int(line)

    def note_oid(self, line: int, oid: int) -> None:
        """Write down what a statement is making as soon as it shows: a run that dies now can be told from others."""
        self._pg.execute("UPDATE perfctl.step SET object_oid = %s WHERE id = %s", (oid, line))

    def finish(self, line: int, outcome: Outcome) -> None:
        """Write down what became of it."""
        self._pg.execute(
            "UPDATE perfctl.step SET state = %s, object_oid = coalesce(%s, object_oid), detail = %s, build_s = %s,"
            " wait_s = %s, size_bytes = %s, ended_at = pg_catalog.clock_timestamp() WHERE id = %s",
            (
                "failed" if outcome.result == "failed" else "done",
                outcome.oid,
                outcome.detail or None,
                round(outcome.build_s, 3),
                round(outcome.wait_s, 3),
                outcome.size_bytes,
                line,
            ),
        )

    def close(self, outcome: str) -> None:
        """End the run."""
        self._pg.execute(
            "UPDATE perfctl.run SET ended_at = pg_catalog.clock_timestamp(), outcome = %s WHERE id = %s",
            (outcome, self.run_id),
        )


def _origin() -> str:
    """Who and where, as an operator would look for it: user@host, and the CI job where there is one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's uid often has no name.
        user = str(os.getuid())
    job = os.environ.get("CI_JOB_URL") or os.environ.get("GITHUB_RUN_ID")
    return f"{user}@{socket.gethostname()}" + (f" ci:{job}" if job else "")
