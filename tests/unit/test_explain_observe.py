"""What is sent for plans, and in how many transactions; a server that only writes down takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from perfctl.errors import BadQuery, Busy, ConnectionLost, PerfctlError, StatementFailed, Unreachable
from perfctl.explain.model import Plan
from perfctl.explain.observe import Limits, Request, plans
from perfctl.hotqueries.model import HotQuery, Parameter
from perfctl.servers.postgres import Postgres

ANSWER = json.dumps([{"Plan": {"Node Type": "Result"}}])
WITH = HotQuery("q", "SELECT $1", "q.sql", 1, parameters=(Parameter("x"), Parameter("y")))


class Writing:
    """Answers every EXPLAIN but those of a text that is to fail, after which it answers no more, as a server does."""

    def __init__(self, *bad: str, error: PerfctlError | None = None) -> None:
        self.bad = bad
        self.error = error or StatementFailed("no")
        self.sent: list[list[str]] = []
        self.settings: list[dict[str, str]] = []

    def fetch(self, _name: str, _record: type[Any]) -> list[Any]:
        """Nobody holds a lock."""
        return []

    def read_only(
        self, statements: Sequence[tuple[str, Sequence[str | None]]], settings: Mapping[str, str]
    ) -> list[list[tuple[Any, ...]] | PerfctlError]:
        self.sent.append([text for text, _ in statements])
        self.settings.append(dict(settings))
        answers: list[list[tuple[Any, ...]] | PerfctlError] = []
        for text, _ in statements:
            if any(bad in text for bad in self.bad):
                return [*answers, self.error]
            answers.append([(ANSWER,)] if text.startswith("EXPLAIN") else [])
        return answers


def ask(server: Writing, *requests: Request) -> list[bool]:
    """Which of them got a plan."""
    return [isinstance(found, Plan) for found in plans(cast(Postgres, server), requests, Limits(5.0, 0.5))]


def query(sql: str) -> HotQuery:
    return HotQuery(sql, sql, "q.sql", 1)


def test_a_plan_for_values_is_one_statement() -> None:
    options = "VERBOSE, SETTINGS, SUMMARY, FORMAT JSON"
    assert Request(WITH, ("1", None)).statements() == [(f"EXPLAIN ({options}) SELECT $1", ("1", None))]


def test_a_plan_for_any_value_is_that_of_a_prepared_statement() -> None:
    request = Request(WITH, None)
    assert [text for text, _ in request.statements()] == [
        "PREPARE perfctl_generic AS SELECT $1",
        "EXPLAIN (VERBOSE, SETTINGS, SUMMARY, FORMAT JSON) EXECUTE perfctl_generic(NULL, NULL)",
        "DEALLOCATE perfctl_generic",
    ]
    assert request.all_settings() == {"plan_cache_mode": "force_generic_plan"}


def test_a_run_counts_blocks_and_depends_on_no_worker() -> None:
    request = Request(WITH, ("1", "2"), {"work_mem": "1MB"}, run=True)
    assert request.statements()[0][0].startswith(
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, VERBOSE, SETTINGS, FORMAT JSON)"
    )
    assert request.all_settings() == {"max_parallel_workers_per_gather": "0", "jit": "off", "work_mem": "1MB"}


def test_requests_of_the_same_settings_go_together_and_come_back_in_order() -> None:
    server = Writing()
    one, two = Request(query("1"), ()), Request(query("2"), (), {"enable_seqscan": "off"})
    assert ask(server, one, two, one) == [True, True, True]
    explain, again, change, other = server.sent[0]
    assert (explain, change) == (again, "SELECT set_config($1, $2, true)")
    assert other.endswith(" 2")
    assert server.settings == [{"statement_timeout": "5000ms", "lock_timeout": "500ms"}]


def test_what_one_request_sets_is_not_there_for_the_next() -> None:
    server = Writing()
    one = Request(query("1"), (), {"enable_seqscan": "off"})
    ask(server, one, Request(query("2"), ()))
    assert server.settings[0]["enable_seqscan"] == "off"
    assert server.sent[0][1] == "SET LOCAL enable_seqscan TO DEFAULT"


def test_many_go_fifty_at_once_and_runs_alone() -> None:
    server = Writing()
    assert ask(server, *[Request(query("1"), ())] * 120) == [True] * 120
    assert [len(sent) for sent in server.sent] == [50, 50, 20]
    server = Writing()
    ask(server, *[Request(query("1"), (), run=True)] * 3)
    assert [len(sent) for sent in server.sent] == [1, 1, 1]


def test_what_stands_behind_a_failure_is_asked_for_again() -> None:
    server = Writing("bad")
    requests = [Request(query(sql), ()) for sql in ("1", "bad", "2", "bad", "3")]
    assert ask(server, *requests) == [True, False, True, False, True]
    assert [len(sent) for sent in server.sent] == [5, 3, 1]


def test_a_generic_plan_that_fails_leaves_no_prepared_statement() -> None:
    server = Writing("EXPLAIN")
    assert ask(server, Request(WITH, None), Request(WITH, None)) == [False, False]
    assert [sent[-1] for sent in server.sent] == ["DEALLOCATE perfctl_generic"] * 4
    assert [len(sent) for sent in server.sent] == [6, 1, 3, 1]


def test_what_was_never_prepared_is_not_taken_back() -> None:
    server = Writing("PREPARE perfctl_generic AS")
    assert ask(server, Request(WITH, None)) == [False]
    assert len(server.sent) == 1


def failed(request: Request, error: PerfctlError) -> PerfctlError:
    """What becomes of a server's error."""
    (found,) = plans(cast(Postgres, Writing("EXPLAIN", error=error)), [request], Limits())
    assert isinstance(found, PerfctlError)
    return found


def test_an_error_with_a_position_is_one_of_a_line_of_the_file() -> None:
    request = Request(HotQuery("q", "SELECT 1\nFROM nowhere", "q.sql", 7), ())
    prefix = len(request.statements()[0][0]) - len(request.query.sql)
    found = failed(request, StatementFailed("no such table", sqlstate="42P01", position=prefix + 15))
    assert (type(found), found.message) == (BadQuery, "q.sql:8: no such table")


def test_in_the_configuration_only_the_line_of_the_name_is_known() -> None:
    request = Request(HotQuery("q", "SELECT 1\nFROM nowhere", "perfctl.yaml", 7, inline=True), ())
    prefix = len(request.statements()[0][0]) - len(request.query.sql)
    found = failed(request, StatementFailed("no such table", sqlstate="42P01", position=prefix + 15))
    assert found.message == "perfctl.yaml:7: no such table"


def test_a_lock_and_a_server_without_memory_are_not_the_querys_fault() -> None:
    request = Request(query("1"), ())
    assert isinstance(failed(request, StatementFailed("lock timeout", sqlstate="55P03")), Busy)
    assert isinstance(failed(request, StatementFailed("out of memory", sqlstate="53200")), Unreachable)


def test_a_lost_connection_ends_the_look() -> None:
    with pytest.raises(ConnectionLost):
        failed(Request(query("1"), ()), ConnectionLost("gone"))
