"""A perfctl that runs while the test does something else, and what it says as it goes, event by event."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fix_perfctl import Process, Project, Ran, until
from tests.fix_servers import Database

Event = dict[str, Any]


@dataclass(slots=True)
class Heard:
    """A run whose events are read while it goes on; its ``--wait-budget`` bounds how long that takes."""

    process: Process
    events: list[Event] = field(default_factory=list)

    def until(self, kind: str, name: str | None = None, saying: str = "") -> Event:
        """The next event of that kind, about that index, whose detail or blocker holds those words."""
        assert self.process.popen.stdout is not None
        for line in self.process.popen.stdout:
            event: Event = json.loads(line)
            self.events.append(event)
            said = f"{event.get('detail')} {event.get('blocker')}"
            if event["event"] == kind and name in (None, event.get("name")) and saying in said:
                return event
        pytest.fail(f"{kind} of {name} was not heard: {self.events} {self._stderr()}")

    def end(self) -> Event:
        """The report; the run has ended then."""
        with self.process.popen:
            report = self.until("report")
            self._stderr()
        return report

    def statuses(self) -> dict[str, str]:
        """The report's statuses by name, once it was heard."""
        return {item["name"]: item["status"] for item in self.events[-1]["items"]}

    def _stderr(self) -> str:
        assert self.process.popen.stderr is not None
        return self.process.popen.stderr.read()


def heard(project: Project, *arguments: str) -> Heard:
    """An apply whose events can be heard."""
    return Heard(project.start("apply", "--yes", "--wait-budget", "60s", *arguments, form="ndjson"))


def order(events: Iterable[Event], kind: str) -> list[str]:
    """The names of the events of one kind, in the order in which they were heard."""
    return [event["name"].removeprefix("public.") for event in events if event["event"] == kind]


@contextmanager
def meanwhile(project: Project, *arguments: str) -> Iterator[Future[Ran]]:
    """An apply in a thread of this process: it need not be loaded anew, and it ends before the block does."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit(project.apply, "--wait-budget", "60s", *arguments)


def until_it_has_waited(database: Database, seconds: float, ran: Future[Ran]) -> None:
    """Wait until a statement of perfctl's that waits for others is that old, or perfctl has ended."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%%' AND wait_event_type = 'Lock'"
        " AND datname = current_database() AND clock_timestamp() - query_start > make_interval(secs => %s)"
    )
    with database.connect() as connection:
        until(lambda: ran.done() or connection.execute(query, [seconds]).rowcount > 0)


def until_it_holds_back(database: Database, ran: Future[Ran]) -> None:
    """Wait until perfctl has looked around before a step and sent nothing since, or has ended."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%' AND datname = current_database()"
        " AND query ~ '^-- (The standbys|Whether autovacuum has work)' AND clock_timestamp() - query_start > '100ms'"
    )
    with database.connect() as connection:
        until(lambda: ran.done() or connection.execute(query).rowcount > 0)
