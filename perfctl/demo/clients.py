"""``python -m perfctl.demo.clients``: clients that live an application's day until their input ends.

The order comes as one line of JSON on stdin; then "ready" is said on stdout and, at the end, what was met. The end
of stdin is the sign to stop, which a parent gives also by being killed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perfctl.errors import PerfctlError
from perfctl.servers import postgres

#: An application thinks between two requests; without it, it would be the load and not the builds that stalls it.
PAUSE_S = 0.005
#: A request that takes this long has failed: nothing may wait for ever.
TIMEOUT_S = 10.0

#: One day: each request with the name under which its first column is remembered for those after it. Every table
#: that gets an index is written to, and nothing is shared with another client, who could be waited for.
DAY: tuple[tuple[str, str], ...] = (
    ("INSERT INTO auth.users (id, email, display_name) VALUES (%(u)s, %(u)s || '@demo.example.org', 'Demo')"
     " RETURNING id", "user"),
    ("INSERT INTO auth.sessions (user_id, token_hash) VALUES (%(user)s, %(u)s) RETURNING id", "session"),
    ("SELECT id, plan, is_active FROM auth.users WHERE id = %(user)s", ""),
    ("INSERT INTO auth.api_keys (user_id, label, key_hash) VALUES (%(user)s, 'demo', %(u)s) RETURNING id", "key"),
    ("INSERT INTO projects.projects (owner_id, slug, name) VALUES (%(user)s, %(u)s, 'Demo') RETURNING id", "project"),
    ("INSERT INTO projects.members (project_id, user_id, role) VALUES (%(project)s, %(user)s, 'owner')"
     " RETURNING project_id", "project"),
    ("INSERT INTO projects.repositories (project_id, provider, full_name) VALUES (%(project)s, 'github', %(u)s)"
     " RETURNING id", "repository"),
    ("INSERT INTO projects.pull_requests (repository_id, number, author_id, title, head_sha)"
     " VALUES (%(repository)s, 1, %(user)s, 'Demo', %(u)s) RETURNING id", "pull_request"),
    ("SELECT title, state FROM projects.pull_requests WHERE id = %(pull_request)s", ""),
    ("INSERT INTO production.jobs (queue, dedupe_key) VALUES ('demo', %(u)s) RETURNING id", "job"),
    ("UPDATE production.jobs SET status = 'running', worker = 'demo' WHERE id = %(job)s RETURNING id", "job"),
    ("INSERT INTO production.analysis_sessions (user_id, project_id, pull_request_id, metadata)"
     " VALUES (%(user)s, %(project)s, %(pull_request)s, '{\"pipeline\": {\"trigger\": \"demo\"}}')"
     " RETURNING seq", "seq"),
    ("SELECT id FROM production.analysis_sessions WHERE seq = %(seq)s", "analysis"),
    ("INSERT INTO production.model_runs (analysis_id, model, latency_ms) VALUES (%(analysis)s, 'demo', 10)"
     " RETURNING id", "run"),
    ("INSERT INTO production.findings (analysis_id, project_id, rule, severity, file_path, line, fingerprint)"
     " VALUES (%(analysis)s, %(project)s, 'demo', 3, 'demo.py', 1, %(u)s) RETURNING id", "finding"),
    ("UPDATE production.analysis_sessions SET status = 'completed', finished_at = now() WHERE seq = %(seq)s"
     " RETURNING seq", "seq"),
    ("UPDATE production.jobs SET status = 'done', finished_at = now() WHERE id = %(job)s RETURNING id", "job"),
    ("INSERT INTO production.reviews (pull_request_id, reviewer_id) VALUES (%(pull_request)s, %(user)s)"
     " RETURNING id", "review"),
    ("INSERT INTO production.comments (review_id, author_id, body) VALUES (%(review)s, %(user)s, 'Demo')"
     " RETURNING id", "comment"),
    ("UPDATE production.reviews SET verdict = 'approved', submitted_at = now() WHERE id = %(review)s"
     " RETURNING id", "review"),
    ("UPDATE projects.pull_requests SET state = 'merged', updated_at = now() WHERE id = %(pull_request)s"
     " RETURNING id", "pull_request"),
    ("INSERT INTO auth.audit_log (actor_id, action, object_type, object_id)"
     " VALUES (%(user)s, 'merge', 'pull_request', %(pull_request)s) RETURNING id", "entry"),
    ("SELECT action, created_at FROM auth.audit_log WHERE id = %(entry)s", ""),
)  # fmt: skip


@dataclass(slots=True)
class Client:
    """One connection's life, and what it met."""

    conninfo: Mapping[str, str]
    number: int
    served: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    longest_s: float = 0.0
    errors: list[str] = field(default_factory=list)

    def live(self, stop: threading.Event) -> None:
        """Days on end, until ``stop``; after a failure a new day on a new connection."""
        day = 0
        while not stop.is_set():
            try:
                pg = postgres.connect(self.conninfo, application="demo/application", statement_timeout_s=TIMEOUT_S)
                try:
                    while not stop.is_set():
                        day += 1
                        self._day(pg, f"demo-{self.number}-{day}-{time.monotonic_ns()}", stop)
                finally:
                    pg.close()
            except PerfctlError as error:
                self.errors.append(error.message)
                stop.wait(0.1)

    def _day(self, pg: postgres.Postgres, unique: str, stop: threading.Event) -> None:
        known: dict[str, Any] = {"u": unique}
        for statement, name in DAY:
            if stop.is_set():
                return
            self.requests += 1
            began = time.perf_counter()
            try:
                rows = pg.values(statement, known)
            finally:
                self.longest_s = max(self.longest_s, time.perf_counter() - began)
            if name:
                known[name] = rows[0][0]
            self.served.set()
            stop.wait(PAUSE_S)


def main() -> None:
    """Read the order, live, tell."""
    order = json.loads(sys.stdin.readline())
    clients = [Client(order["conninfo"], number) for number in range(order["clients"])]
    stop = threading.Event()
    threads = [threading.Thread(target=client.live, args=(stop,), daemon=True) for client in clients]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for client in clients:
        client.served.wait(TIMEOUT_S)
    _tell("ready")
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
    facts = {
        "clients": len(clients),
        "requests": sum(client.requests for client in clients),
        "failed": sum(len(client.errors) for client in clients),
        "longest_stall_ms": round(max(client.longest_s for client in clients) * 1000, 1),
        "duration_s": round(time.monotonic() - began, 3),
        "errors": [error for client in clients for error in client.errors][:5],
    }
    _tell(json.dumps(facts))


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
