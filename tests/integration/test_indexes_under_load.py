"""The 27 go onto a database that is in use, and nobody notices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.fix_perfctl import Project, new_project, until, with_the_27
from tests.fix_servers import REFERENCE, Cluster, Database
from tests.fix_sessions import send

CLIENTS = 8
SCALE = "0.05"
#: a client's statement fails that waits longer for a lock; how long it takes otherwise is the machine's business
LOCK_TIMEOUT = "1s"
#: what a client sends again and again: writes and reads on tables of all three schemas
STATEMENTS = (
    "INSERT INTO production.analysis_sessions (user_id, project_id, metadata)"
    """ SELECT id, 1, '{"git": {"commit": "x"}}' FROM auth.users LIMIT 1""",
    "INSERT INTO production.jobs (queue, payload) VALUES ('analysis', '{}')",
    "INSERT INTO auth.audit_log (actor_id, action, object_type, object_id) VALUES ('a', 'read', 'x', 1)",
    "UPDATE production.jobs SET status = 'running' WHERE id = (SELECT max(id) - 20 FROM production.jobs)",
    "UPDATE production.reviews SET summary = 'seen' WHERE id = (SELECT 1 + pg_backend_pid() % 50)",
    "UPDATE projects.repositories SET last_synced_at = now() WHERE id = (SELECT 1 + pg_backend_pid() % 50)",
    "SELECT * FROM production.analysis_sessions ORDER BY seq DESC LIMIT 50",
    "SELECT * FROM production.jobs WHERE id > (SELECT max(id) - 100 FROM production.jobs) AND status = 'pending'",
    "SELECT * FROM projects.pull_requests WHERE repository_id = 1",
    "DELETE FROM auth.audit_log WHERE id = (SELECT max(id) - 100 FROM auth.audit_log)",
)


@dataclass(slots=True)
class Client:
    """One client; what it has seen is read once its thread has ended."""

    database: Database
    stop: threading.Event
    sent: int = 0
    failed: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Send statements until it is stopped."""
        with self.database.connect(application_name="client", options=f"-c lock_timeout={LOCK_TIMEOUT}") as connection:
            while not self.stop.is_set():
                statement = STATEMENTS[self.sent % len(STATEMENTS)]
                try:
                    connection.execute(statement.encode())
                except psycopg.Error as error:
                    self.failed.append(f"{statement}: {error}")
                self.sent += 1


@pytest.fixture
def busy(pg_server: Cluster) -> Iterator[Database]:
    """A copy of the reference system that is large enough for builds to take their time."""
    with pg_server.fresh() as database:
        with database.connect() as connection:
            connection.execute(f"SET perfctl.scale = '{SCALE}'".encode())
            for file in ("schema.sql", "data.sql"):
                connection.execute((REFERENCE / file).read_text(encoding="utf-8").encode())
        send(database, "ANALYZE")
        yield database


@pytest.fixture
def clients(busy: Database) -> Iterator[list[Client]]:
    """Eight clients at work; at the end they are stopped."""
    stop = threading.Event()
    clients = [Client(busy, stop) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    until(lambda: all(client.sent >= len(STATEMENTS) for client in clients))
    yield clients
    stop.set()
    for thread in threads:
        thread.join()


def code_beside_the_clients(process: Project, *arguments: str) -> int:
    """The exit code of a command that runs beside the clients."""
    return process.start(*arguments).wait(300).code


def test_no_statement_fails_or_waits_for_a_lock_while_the_27_are_built_and_taken_off(
    busy: Database, clients: list[Client], tmp_path: Path
) -> None:
    project = with_the_27(new_project(tmp_path, busy))
    before = sum(client.sent for client in clients)
    assert code_beside_the_clients(project, "apply", "--yes") == 0
    assert code_beside_the_clients(project, "verify") == 0
    assert code_beside_the_clients(project, "rollback", "--yes") == 0
    assert sum(client.sent for client in clients) > before
    assert [failure for client in clients for failure in client.failed] == []
