"""Asks the server for plans, many in one breath, in read-only transactions that are always rolled back.

Each statement goes by the extended protocol, which takes one statement and no more: ``EXPLAIN a; b`` is an error
there (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from perfctl.errors import BadQuery, Busy, ConnectionLost, PerfctlError, StatementFailed, Unreachable
from perfctl.explain.model import Catalogue, IndexFacts, Plan, Relation, TableFacts
from perfctl.explain.plan import read
from perfctl.explain.reach import words
from perfctl.hotqueries.model import HotQuery
from perfctl.servers.postgres import Postgres

#: EXPLAINs of one transaction, whose locks on tables are held until its end
_AT_ONCE = 50

#: the prepared statement whose plan is asked for
_GENERIC = "perfctl_generic"

#: A plan that is measured is one that does not depend on how many workers were free, nor on compiling.
SERIAL = {"max_parallel_workers_per_gather": "0", "jit": "off"}

#: how long to wait for a table that was waited for in vain before
_AGAIN_S = 0.01

#: tables that may be locked one after the other while their sizes are asked for
_LOCKED_MEANWHILE = 3

_DEALLOCATE = f"DEALLOCATE {_GENERIC}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an EXPLAIN may take."""

    statement_timeout_s: float = 10.0
    lock_timeout_s: float = 1.0

    def settings(self) -> dict[str, str]:
        """As settings of a transaction."""
        return {
            "statement_timeout": _milliseconds(self.statement_timeout_s),
            "lock_timeout": _milliseconds(self.lock_timeout_s),
        }


def _milliseconds(seconds: float) -> str:
    """As a setting; 0 would be no limit."""
    return f"{max(1, round(seconds * 1000))}ms"


@dataclass(frozen=True, slots=True)
class Request:
    """One plan to ask for."""

    query: HotQuery
    #: the values of ``$1`` …; None asks for the plan for any value
    values: tuple[str | None, ...] | None
    #: settings to plan with
    settings: Mapping[str, str] = field(default_factory=dict)
    run: bool = False

    def statements(self) -> list[tuple[str, tuple[str | None, ...]]]:
        """What is sent for it, in order, each text with its values; the one that begins with EXPLAIN gives the plan."""
        if self.run:
            options = "ANALYZE, BUFFERS, TIMING OFF, VERBOSE, SETTINGS, FORMAT JSON"
        else:
            options = "VERBOSE, SETTINGS, SUMMARY, FORMAT JSON"
        if self.values is not None:
            return [(f"EXPLAIN ({options}) {self.query.sql}", self.values)]
        # EXPLAIN (GENERIC_PLAN) takes no values, and this protocol none without values.
        nulls = ", ".join(["NULL"] * len(self.query.parameters))
        return [
            (f"PREPARE {_GENERIC} AS {self.query.sql}", ()),
            (f"EXPLAIN ({options}) EXECUTE {_GENERIC}({nulls})", ()),
            (_DEALLOCATE, ()),
        ]

    def all_settings(self) -> dict[str, str]:
        """The settings of its transaction, beside the limits."""
        found = dict(self.settings)
        if self.run:
            found = {**SERIAL, **found}
        if self.values is None:
            found["plan_cache_mode"] = "force_generic_plan"
        return found


def plans(pg: Postgres, requests: Sequence[Request], limits: Limits) -> list[Plan | PerfctlError]:
    """A plan, or why there is none, for each request, in their order. Raises ConnectionLost."""
    answers: dict[int, Plan | PerfctlError] = {}
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(tuple(sorted(request.all_settings().items())), []).append(place)
    left = [place for places in groups.values() for place in places]
    lockers: list[Locker] = []
    while left:
        # A run may take long, and its locks are not to last longer than it does.
        now = left[: 1 if requests[left[0]].run else _AT_ONCE]
        within = limits
        if _held(requests[now[0]], lockers):
            # It was waited for in vain already; one that is free by now is still got.
            now, within = now[:1], replace(limits, lock_timeout_s=_AGAIN_S)
        elif lockers:
            # In the same transaction it would be waited for in full.
            now = now[: next((n for n, place in enumerate(now) if _held(requests[place], lockers)), None)]
        done = _transaction(pg, [requests[place] for place in now], within)
        answers |= dict(zip(now, done, strict=False))
        if done and isinstance(busy := done[-1], Busy):
            place = now[len(done) - 1]
            if _held(requests[place], lockers) is None:
                with no_query():
                    lockers = pg.fetch("plan_lockers", Locker)
            if (locker := _held(requests[place], lockers)) is not None:
                answers[place] = Busy(f"{locker}: {busy.message.partition(': ')[2]}", hint=_END_IT)
        # After a failure the transaction is over: what was behind it is asked for in another one.
        left = left[len(done) :]
    return [answers[place] for place in range(len(requests))]


@dataclass(frozen=True, slots=True)
class Locker:
    """A session that holds a table locked against readers."""

    schema: str
    name: str
    #: the partitioned table that it is of
    root_name: str | None
    #: of a prepared transaction there is none
    pid: int | None
    usename: str | None
    application: str | None
    age_s: float | None

    def is_in(self, sql: str) -> bool:
        """The text may read the table."""
        return not words(sql).isdisjoint({self.name, self.root_name})

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "a prepared transaction"
        facts = [self.usename, self.application, f"for {self.age_s:.0f} s" if self.age_s is not None else None]
        known = ", ".join(filter(None, facts))
        return f"{self.schema}.{self.name} is locked against readers by {who}{f' ({known})' if known else ''}"


@dataclass(frozen=True, slots=True)
class _Sent:
    """A statement of a transaction, and the request that it is for; to leave the one before is for none."""

    text: str
    values: tuple[str | None, ...]
    request: Request | None = None


def _transaction(pg: Postgres, requests: Sequence[Request], limits: Limits) -> list[Plan | PerfctlError]:
    """The answers up to and with the first failure. Raises ConnectionLost."""
    script = list(_script(requests))
    first = {**limits.settings(), **requests[0].all_settings()}
    answers = pg.read_only([(each.text, each.values) for each in script], first)
    found: list[Plan | PerfctlError] = []
    for sent, answer in zip(script, answers, strict=False):
        if isinstance(answer, ConnectionLost):
            raise answer
        if isinstance(answer, PerfctlError):
            if sent.request is None:
                raise _trouble(answer) if isinstance(answer, StatementFailed) else answer
            if f"EXECUTE {_GENERIC}" in sent.text:
                # A rollback leaves a prepared statement there, and the next one could not have its name.
                pg.read_only([(_DEALLOCATE, ())], limits.settings())
            found.append(_reason(sent, sent.request, answer))
        elif sent.request is not None and sent.text.startswith("EXPLAIN"):
            # What it was planned under by request is no setting of the server's.
            asked = {**limits.settings(), **sent.request.all_settings()}
            found.append(read(_parsed(answer[0][0]), asked=asked))
    return found


def _held(request: Request, lockers: Sequence[Locker]) -> Locker | None:
    """Who keeps the request from its tables."""
    return next((each for each in lockers if each.is_in(request.query.sql)), None)


def _script(requests: Sequence[Request]) -> Iterator[_Sent]:
    """The statements for some requests, with what changes the first one's settings to those of the next."""
    now = requests[0].all_settings()
    for request in requests:
        wanted = request.all_settings()
        for name in now.keys() - wanted.keys():
            yield _Sent(f"SET LOCAL {name} TO DEFAULT", ())
        for name, value in wanted.items():
            if now.get(name) != value:
                yield _Sent("SELECT set_config($1, $2, true)", (name, value), request)
        now = wanted
        for text, values in request.statements():
            yield _Sent(text, values, request)


#: SQLSTATE: a lock was not got in time
_NO_LOCK = "55P03"
_END_IT = "end that transaction, or raise queries.lock_timeout"
#: classes of SQLSTATE about the server, not about the query: no resources, an operator's doing, a bug
_OF_THE_SERVER = ("53", "57", "58", "XX")


def _reason(sent: _Sent, request: Request, error: PerfctlError) -> PerfctlError:
    """Why there is no plan, as the query's own trouble where it is that, with its line."""
    if not isinstance(error, StatementFailed):
        return error
    if error.sqlstate == _NO_LOCK or (error.sqlstate or "")[:2] in _OF_THE_SERVER:
        return _trouble(error)
    query = request.query
    offset = (error.position or 0) - 1 - (len(sent.text) - len(query.sql)) if query.sql in sent.text else 0
    message = f"{error.message}: {error.detail}" if error.detail else error.message
    return BadQuery(message, file=query.file, line=query.line_at(offset), hint=error.hint)


def _trouble(error: StatementFailed) -> PerfctlError:
    """The same failure where no query is to blame for it."""
    if error.sqlstate == _NO_LOCK:
        return Busy(
            f"a table of it is locked against readers: {error.message}",
            hint=_END_IT,
        )
    return Unreachable(error.message, hint=error.hint)


@contextmanager
def no_query() -> Iterator[None]:
    """Tell of a failure inside as the server's trouble: Busy or Unreachable in place of StatementFailed."""
    try:
        yield
    except StatementFailed as error:
        raise _trouble(error) from error


def _parsed(value: object) -> Mapping[str, object]:
    document = json.loads(value) if isinstance(value, (str, bytes)) else value
    assert isinstance(document, list)
    first: Mapping[str, object] = document[0]
    return first


def catalogue(pg: Postgres, relations: Iterable[Relation]) -> Catalogue:
    """What the catalogue says of these tables, in two statements however many there are.

    Raises what the server says: ConnectionLost, NoAnswer, Busy, Unreachable.
    """
    wanted = sorted(set(relations))
    if not wanted:
        return Catalogue()
    with no_query():
        for _ in range(_LOCKED_MEANWHILE):
            # One that is locked after the look at the locks: the next look knows of it.
            with suppress(Busy), no_query():
                return _catalogue(pg, wanted)
        return _catalogue(pg, wanted)


def _catalogue(pg: Postgres, wanted: Sequence[Relation]) -> Catalogue:
    named = {"schemas": [r.schema for r in wanted], "names": [r.name for r in wanted]}
    tables = pg.fetch("plan_tables", TableFacts, named)
    indexes = pg.fetch("plan_indexes", IndexFacts, {"tables": [table.oid for table in tables]})
    return Catalogue({table.relation: table for table in tables}, tuple(indexes))


def locked(relation: Relation) -> Busy:
    """Why nothing can be said of a query that reads the table."""
    return Busy(f"{relation} is locked against readers", hint=_END_IT)


@dataclass(frozen=True, slots=True)
class StatisticsHash:
    """What stands for all that ANALYZE has gathered about a table."""

    oid: int
    hash: str


def statistics(pg: Postgres, oids: Iterable[int]) -> dict[int, str]:
    """By table, a hash of what ANALYZE has gathered about it."""
    wanted = sorted(set(oids))
    with no_query():
        return {each.oid: each.hash for each in pg.fetch("plan_statistics", StatisticsHash, {"tables": wanted})}
