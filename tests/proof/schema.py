"""The tables, the indexes that perfctl puts on them, and what the writers do meanwhile."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLIENTS = 4
TABLES = ("accounts", "events", "notes")
MIGRATION = "001_proof"

#: ``{rows}`` is the number of accounts, of events and of notes; client c owns the rows whose number is c modulo 4.
#: The row -1 of each table is nobody's: whoever stands in the way of a build writes that.
SETUP = """
CREATE TABLE accounts (
    id int PRIMARY KEY, client int NOT NULL, serial int NOT NULL, name text NOT NULL,
    state text NOT NULL DEFAULT 'live', amount int NOT NULL, touched int NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE SEQUENCE event_ids;
CREATE TABLE events (
    client int, id bigint DEFAULT nextval('event_ids'), kind text NOT NULL, done boolean NOT NULL DEFAULT false,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), body jsonb NOT NULL, PRIMARY KEY (client, id)
);
CREATE TABLE notes (id int PRIMARY KEY, owner int NOT NULL, title text NOT NULL, body jsonb NOT NULL);
INSERT INTO accounts (id, client, serial, name, amount)
    SELECT i, i % 4, i, 'a' || i, i * 7919 % 100000 FROM generate_series(-1, {rows} - 1) AS i;
INSERT INTO events (client, kind, body)
    SELECT i % 4, 'k' || i % 9, jsonb_build_object('tag', i % 50) FROM generate_series(0, {rows} - 1) AS i;
INSERT INTO events (client, id, kind, body) VALUES (-1, -1, 'none', '{{}}');
INSERT INTO notes
    SELECT i, i % 4, 'Note ' || i, jsonb_build_object('tag', i % 50, 'words', ARRAY['w' || i % 13, 'w' || i % 7])
    FROM generate_series(-1, {rows} - 1) AS i;
CREATE INDEX notes_by_hand ON notes (owner);
"""

PARTITIONED_SETUP = """
CREATE TABLE parts (id int PRIMARY KEY, value int NOT NULL) PARTITION BY HASH (id);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO parts SELECT i, i % 97 FROM generate_series(0, {rows} - 1) AS i;
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One index of the migration."""

    name: str
    #: what stands behind ``ON``
    on: str
    unique: bool = False

    @property
    def statement(self) -> str:
        """As the migration has it."""
        return f"CREATE {'UNIQUE ' if self.unique else ''}INDEX CONCURRENTLY {self.name} ON {self.on};"


WANTED = (
    Wanted("accounts_amount", "accounts (amount)"),
    Wanted("accounts_serial", "accounts (client, serial)", unique=True),
    Wanted("accounts_live_name", "accounts (name) WHERE state = 'live'", unique=True),
    Wanted("accounts_client", "accounts (client) INCLUDE (amount)"),
    Wanted("events_recent", "events (client, at DESC, id DESC)"),
    Wanted("events_open", "events (kind) WHERE NOT done"),
    Wanted("events_kind", "events USING hash (kind)"),
    Wanted("notes_title", "notes (lower(title))"),
    Wanted("notes_body", "notes USING gin (body jsonb_path_ops)"),
)
PARTITIONED_WANTED = (Wanted("parts_value", "parts (value)"),)

#: What only one index can answer, for the access methods that amcheck does not know on every server:
#: index, table, column that names a row, condition.
PROBES = (
    ("events_kind", "events", "id", "kind = 'k3'"),
    ("notes_body", "notes", "id", """body @> '{"tag": 7}'"""),
)

#: What somebody writes who leaves a transaction open.
OPEN_WRITES = {
    "accounts": "UPDATE accounts SET amount = amount + 1, name = name || '.' WHERE id = -1",
    "events": "UPDATE events SET at = clock_timestamp(), kind = 'k3' WHERE client = -1",
    "notes": "UPDATE notes SET title = title || '.', body = '{\"tag\": 7}' WHERE id = -1",
}


@dataclass(frozen=True, slots=True)
class Script:
    """A transaction of the writers in pgbench's spelling: ``:client_id``, its row ``:id``, a number ``:n``."""

    name: str
    weight: int
    statements: tuple[str, ...]

    def as_pgbench(self, rows: int) -> str:
        """A script file for pgbench."""
        head = f"\\set id :client_id + {CLIENTS} * random(0, {rows // CLIENTS - 1})\n\\set n random(1, 1000000)\n"
        return head + "".join(f"{statement};\n" for statement in self.statements)

    def with_values(self, client: int, row: int, number: int) -> list[str]:
        """The statements with their values in place."""
        values = {"client_id": client, "id": row, "n": number}
        return [re.sub(r"(?<!:):(client_id|id|n)\b", lambda m: str(values[m[1]]), s) for s in self.statements]


_INSERT = (
    "INSERT INTO accounts (id, client, serial, name, amount) VALUES (:id, :client_id, :id, 'a' || :id || '.' || :n, :n)"
)
_RENAME = (
    "UPDATE accounts SET amount = :n, name = 'a' || id || '.' || :n,"
    " state = CASE state WHEN 'live' THEN 'gone' ELSE 'live' END WHERE id = :id"
)
_DESCRIBE = "UPDATE notes SET title = 'Note ' || :n, body = jsonb_build_object('tag', :n % 50) WHERE id = :id"
_OLDEST = "SELECT min(id) FROM events WHERE client = :client_id"

#: No client ever touches another's rows or keys, so that none of this can fail or wait for another client.
SCRIPTS = (
    Script(
        "hot",
        4,
        (
            "BEGIN",
            "UPDATE accounts SET touched = touched + 1 WHERE id = :id",
            "SAVEPOINT a",
            "UPDATE accounts SET amount = :n WHERE id = :id",
            "ROLLBACK TO a",
            "UPDATE accounts SET touched = touched + 1 WHERE id = :id",
            "COMMIT",
        ),
    ),
    Script("rename", 3, (_RENAME, _DESCRIBE)),
    Script(
        "replace",
        3,
        (
            "BEGIN",
            "DELETE FROM accounts WHERE id = :id",
            "SAVEPOINT a",
            _INSERT,
            "ROLLBACK TO a",
            "SAVEPOINT b",
            _INSERT,
            "RELEASE b",
            "COMMIT",
        ),
    ),
    Script(
        "events",
        3,
        (
            "BEGIN",
            "INSERT INTO events (client, kind, body)"
            " VALUES (:client_id, 'k' || :n % 9, jsonb_build_object('tag', :n % 50))",
            "SAVEPOINT a",
            f"UPDATE events SET done = NOT done WHERE client = :client_id AND id = ({_OLDEST})",
            "RELEASE a",
            f"DELETE FROM events WHERE client = :client_id AND id = ({_OLDEST})",
            "COMMIT",
        ),
    ),
    Script(
        "prepared",
        2,
        ("BEGIN", _RENAME, _DESCRIBE, "PREPARE TRANSACTION 'writer :client_id'", "COMMIT PREPARED 'writer :client_id'"),
    ),
    Script(
        "prepared_back",
        1,
        (
            "BEGIN",
            "DELETE FROM accounts WHERE id = :id",
            _INSERT,
            "PREPARE TRANSACTION 'writer :client_id'",
            "ROLLBACK PREPARED 'writer :client_id'",
        ),
    ),
)
