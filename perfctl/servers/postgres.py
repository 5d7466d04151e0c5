"""One PostgreSQL session: connected, tagged, its errors translated. The only place that names ``psycopg.Error``."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import kwargs_row

from perfctl import queries
from perfctl.errors import (
    ConfigError,
    ConnectionLost,
    Denied,
    NoAnswer,
    PerfctlError,
    Refused,
    StatementFailed,
    Unreachable,
)

# Its warnings about pipelines of a connection that broke would stand between perfctl's own lines.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

Record = TypeVar("Record")

#: Told of each statement, without its parameters, and the seconds that it took.
Trace = Callable[[str, float], None]

#: The oldest server whose catalogue and progress views perfctl reads.
OLDEST_SERVER = 130000

#: An hour of index build is an hour of silence on the wire: without probes a NAT or load balancer
#: forgets the connection and the client waits for ever.
KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "6",
    # Keepalives are not sent while data is on its way: this bounds how long that may go unacknowledged.
    "tcp_user_timeout": "90000",
}

#: Limits that a role or database may set and that would end a long statement or a session that waits for one; each
#: with the version that it came with.
TIME_LIMITS = {
    "statement_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 14,
    "transaction_timeout": 17,
}

#: SQLSTATEs of a server that ends a session: told to by somebody, or by one of those limits
_ENDED = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")

#: Statements by which two connections through a pooler show whether they share: on a busy one a single pair may not.
_POOLER_TRIES = 8
_POOLER_ANSWERS_S = 5.0

# libpq does not hand on the SQLSTATE of a failed start-up, so its English text is all there is.
_DENIED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role \".*\" does not exist"
    r"|not permitted to log in|permission denied for database|certificate authentication failed",
    re.IGNORECASE,
)
_NO_DATABASE = re.compile(r"database \"(.*)\" does not exist")
_NO_SERVICE = re.compile(r"definition of service \"(.*)\" not found")


class Postgres:
    """A session in autocommit; every statement is its own transaction unless ``transaction()`` is open."""

    def __init__(self, conn: psycopg.Connection[Any], label: str, trace: Trace | None = None) -> None:
        self._conn = conn
        self.label = label
        self._trace = trace
        #: the server process that runs the statements; behind a pooler not the one that the start-up message names
        self.pid: int = conn.info.backend_pid
        #: the connection is given up when a statement has no answer after so long; None waits for ever
        self.answer_within_s: float | None = None
        self._prepares = False

    @property
    def version_num(self) -> int:
        """The server's version as a number: 150020 for 15.20."""
        return self._conn.info.server_version

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.version_num // 10000

    @property
    def version(self) -> str:
        """The server's version as people write it: 15.20."""
        return f"{self.version_num // 10000}.{self.version_num % 10000}"

    @property
    def closed(self) -> bool:
        """True once the connection is closed or broken."""
        return self._conn.closed

    def fetch(self, name: str, record: type[Record], parameters: Mapping[str, Any] | None = None) -> list[Record]:
        """Run the query file ``name``; each row becomes a ``record`` whose fields are the columns."""
        text = queries.load(name, self.major)
        with self._traced(text), self._conn.cursor(row_factory=kwargs_row(record)) as cursor:
            cursor.execute(text.encode(), parameters, prepare=self._prepares)
            return cursor.fetchall()

    def keep_plans(self) -> None:
        """Plan each query file once: for a session that asks the same few again and again.

        Planning takes most of a catalogue query's time, and with a transaction pooler in between there is no session.
        """
        self.setting("plan_cache_mode", "force_generic_plan")
        self._prepares = True

    def fetch_one(self, name: str, record: type[Record], parameters: Mapping[str, Any] | None = None) -> Record:
        """The single row of the query file ``name``."""
        return self.fetch(name, record, parameters)[0]

    def execute(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> int:
        """Send one statement; returns the number of rows that it touched (-1 where that has no meaning).

        Raises StatementFailed, Denied or ConnectionLost.
        """
        with self._traced(statement), self._conn.cursor() as cursor:
            cursor.execute(statement.encode(), parameters)
            return cursor.rowcount

    def values(
        self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Send one statement and return its rows as tuples."""
        with self._traced(statement), self._conn.cursor() as cursor:
            cursor.execute(statement.encode(), parameters)
            return cursor.fetchall()

    def numbered(self, statement: str, values: Sequence[str | None]) -> list[tuple[Any, ...]]:
        """Send one statement whose parameters stand as ``$1`` …, and return its rows as tuples."""
        with self._traced(statement), psycopg.RawCursor(self._conn) as cursor:
            cursor.execute(statement.encode(), values or None)
            return cursor.fetchall()

    def rolled_back(self, statements: Sequence[str], after: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Send statements as one message, in a transaction that is rolled back; returns the last one's rows.

        One round trip however many there are; ``after`` is sent with it and stays. Raises as ``execute``; the session
        is usable afterwards.
        """
        script = ";\n".join(["BEGIN", *statements, "ROLLBACK", *after])
        try:
            with self._traced(script), self._conn.cursor() as cursor:
                cursor.execute(script.encode())
                rows: list[tuple[Any, ...]] = []
                while True:
                    if cursor.description is not None:
                        rows = cursor.fetchall()
                    if not cursor.nextset():
                        return rows
        except PerfctlError:
            # A connection that is gone has rolled back already, and the first error is the one that counts.
            with suppress(psycopg.Error):
                self._conn.rollback()
            raise

    def read_only(
        self, statements: Sequence[tuple[str, Sequence[str | None]]], settings: Mapping[str, str]
    ) -> list[list[tuple[Any, ...]] | PerfctlError]:
        """Send statements in one READ ONLY transaction that is rolled back, without waiting for each one's answer.

        Each goes by the extended protocol, so a text with two statements is an error. Returns their rows; the first
        failure is the last answer, for what is behind it was not looked at. ``settings`` hold in the transaction.
        """
        names = [word for pair in settings.items() for word in pair]
        calls = ", ".join(f"set_config(${n}, ${n + 1}, true)" for n in range(1, len(names), 2))
        head = [("BEGIN READ ONLY", ()), (f"SELECT {calls}", names)]
        sent = [(psycopg.RawCursor(self._conn), *statement) for statement in (*head, *statements)]
        error: PerfctlError | None = None
        try:
            with self._traced("; ".join(text for text, _ in statements)), self._conn.pipeline() as pipeline:
                try:
                    for cursor, text, values in sent:
                        cursor.execute(text.encode(), values or None)
                    pipeline.sync()
                except psycopg.Error as failed:
                    error = translate(failed)
                    # What stood behind it is answered too, that it was passed over; unless nobody answers any more.
                    for _ in sent:
                        with suppress(psycopg.Error):
                            pipeline.sync()
        except PerfctlError as failed:
            error = error or failed
        finally:
            # A connection that is gone has rolled back already, and its error is the one that counts.
            with suppress(psycopg.Error):
                self._conn.rollback()
        answers: list[list[tuple[Any, ...]] | PerfctlError] = []
        for cursor, _, _ in sent[len(head) :]:
            if cursor.pgresult is None:
                break
            answers.append(cursor.fetchall() if cursor.description else [])
        return answers if error is None else [*answers, error]

    @contextmanager
    def _traced(self, statement: str) -> Iterator[None]:
        started = time.monotonic()
        alarm = None
        if self.answer_within_s is not None:
            alarm = threading.Timer(self.answer_within_s, self.hang_up)
            alarm.daemon = True
            alarm.start()
        try:
            with translated():
                yield
        finally:
            if alarm is not None:
                alarm.cancel()
            if self._trace is not None:
                self._trace(statement, time.monotonic() - started)

    @contextmanager
    def transaction(self, *, rollback: bool = False) -> Iterator[None]:
        """A transaction around the block; with ``rollback`` nothing in it ever becomes visible."""
        with translated(), self._conn.transaction(force_rollback=rollback):
            yield

    def setting(self, name: str, value: str) -> None:
        """``SET name = value`` for this session."""
        self.values("SELECT set_config(%s, %s, false)", (name, value))

    def settings(self, wanted: Mapping[str, str | None]) -> None:
        """Several settings for this session in one round trip; None goes back to the session's default."""
        if wanted:
            self.execute(settings_sql(wanted))

    def lift_time_limits(self) -> None:
        """Let a statement, and this session, last as long as they take."""
        self.settings({name: "0" for name, since in TIME_LIMITS.items() if self.major >= since})

    def current(self, names: Sequence[str]) -> dict[str, str]:
        """What some settings are now, by name."""
        rows = self.values(
            "SELECT name, pg_catalog.current_setting(name) FROM unnest(%s::text[]) AS name", (list(names),)
        )
        return dict(rows)

    def hang_up(self) -> None:
        """Cut the connection under whoever waits for an answer on it: a network that went deaf tells nobody.

        Safe to call from another thread; the waiting statement ends with ConnectionLost. The server goes on with
        what it was sent.
        """
        # Already closed: there is nothing left to cut.
        with suppress(psycopg.OperationalError, OSError), socket.socket(fileno=os.dup(self._conn.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        """Ask the server to cancel what this session runs; safe to call from another thread."""
        with translated():
            self._conn.cancel_safe(timeout=5.0)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._conn.close()


def connect(
    conninfo: Mapping[str, str],
    *,
    application: str,
    connect_timeout_s: float = 5.0,
    statement_timeout_s: float | None = None,
    trace: Trace | None = None,
) -> Postgres:
    """A new session in autocommit, or Unreachable, Denied or ConfigError.

    ``application`` is what ``pg_stat_activity`` shows. ``conninfo`` holds libpq's keywords; what it leaves
    open comes from PG* variables, the service file and .pgpass, as libpq does it.
    """
    label = describe(conninfo)
    try:
        conn = psycopg.connect(
            make_conninfo(
                **{
                    **KEEPALIVES,
                    **conninfo,
                    "application_name": application,
                    "connect_timeout": str(max(2, round(connect_timeout_s))),
                }
            ),
            autocommit=True,
            # The plan of a query that is sent once is not worth a round trip, and poolers dislike prepared statements.
            prepare_threshold=None,
        )
    except psycopg.ProgrammingError:
        # libpq quotes the malformed connection string, password and all.
        raise ConfigError(
            "the database's connection string is malformed",
            hint="write it as postgresql://user@host:5432/dbname, special characters percent-encoded",
        ) from None
    except psycopg.OperationalError as error:
        raise _refused_connection(error, label) from None
    pg = Postgres(conn, describe_session(conn), trace)
    if statement_timeout_s is not None:
        pg.setting("statement_timeout", f"{round(statement_timeout_s * 1000)}ms")
    return pg


def settings_sql(wanted: Mapping[str, str | None]) -> str:
    """The statements that set some settings for a session; None is RESET."""
    texts = [
        sql.SQL("RESET {}").format(sql.Identifier(name))
        if value is None
        else sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in wanted.items()
    ]
    return sql.SQL("; ").join(texts).as_string(None)


def describe(conninfo: Mapping[str, str]) -> str:
    """Where a connection goes, without its password: ``user@host:port/dbname`` of what is given."""
    where = conninfo.get("service") and f"service {conninfo['service']}"
    host = conninfo.get("host") or conninfo.get("hostaddr") or ""
    port = conninfo.get("port") or ""
    user = conninfo.get("user") or ""
    named = f"{user}{'@' if user else ''}{host}{':' if port else ''}{port}/{conninfo.get('dbname') or ''}"
    return where or named


def describe_session(conn: psycopg.Connection[Any]) -> str:
    """Where a live connection went, as libpq resolved it."""
    info = conn.info
    return f"{info.user}@{info.host or 'localhost'}:{info.port}/{info.dbname}"


def own_session(pg: Postgres, other: Callable[[], Postgres] | None) -> bool:
    """Find the server process behind a session; raise Refused where it is not the same for every statement.

    A direct connection is served by the process that the start-up names. PgBouncer invents another number, and then
    ``other``, a second connection, shows what it shares: with session pooling each keeps a process of its own, else
    they get whichever is free. Returns whether a pooler is in between; None for ``other`` takes its kind as known.
    """
    if other is None:
        # The pool may have lent out its last one.
        pg.answer_within_s = _POOLER_ANSWERS_S
    try:
        mine = _process_of(pg)
    except ConnectionLost as lost:
        if other is None:
            raise _pool_too_small(pg) from lost
        raise
    pg.answer_within_s = None
    started_as, pg.pid = pg.pid, mine
    if mine == started_as:
        return False
    if other is None:
        return True
    refusal = Refused(
        f"{pg.label} is a pooler that lends a connection for a transaction at a time: session settings and locks"
        " would reach other clients",
        hint="give the target's database a direct connection to PostgreSQL (usually port 5432), or pool_mode = session",
    )
    second = other()
    # With every connection lent out it would wait for one for as long as the pooler lets it.
    second.answer_within_s = _POOLER_ANSWERS_S
    try:
        for _ in range(_POOLER_TRIES):
            if _process_of(second) == mine or _process_of(pg) != mine:
                raise refusal
    except ConnectionLost as lost:
        raise _pool_too_small(pg) from lost
    finally:
        second.close()
    return True


def _pool_too_small(pg: Postgres) -> Refused:
    return Refused(
        f"{pg.label} is a pooler that gave no further connection within {_POOLER_ANSWERS_S:.0f} s",
        hint="perfctl needs one and one more for each job: give its role a larger pool, or a direct connection",
    )


def _process_of(pg: Postgres) -> int:
    ((pid,),) = pg.values("SELECT pg_catalog.pg_backend_pid()")
    return int(pid)


def refuse_old(pg: Postgres) -> None:
    """Raise Refused below PostgreSQL 13."""
    if pg.version_num < OLDEST_SERVER:
        raise Refused(
            f"{pg.label} runs PostgreSQL {pg.version_num / 10000:.0f}; perfctl needs 13 or newer",
            hint="upgrade the server: https://www.postgresql.org/support/versioning/",
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into perfctl's, the original chained."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> PerfctlError:
    """The perfctl error that says what the driver's error means."""
    state = error.sqlstate
    message = (error.diag.message_primary or str(error)).strip()
    if state == "42501":
        return Denied(message, hint=error.diag.message_hint)
    if state is None or state[:2] == "08" or state in _ENDED:
        return ConnectionLost(f"the connection was lost: {message.splitlines()[0]}")
    if state == "53300":
        return Unreachable(message)
    if state == "57014":
        return NoAnswer(message, hint="give it longer with --timeout")
    if state == "25006":
        return Refused(message, hint="point the target at a primary, and at a role that may write")
    position = error.diag.statement_position
    return StatementFailed(
        message,
        sqlstate=state,
        detail=error.diag.message_detail,
        position=int(position) if position else None,
        hint=error.diag.message_hint,
    )


def _refused_connection(error: psycopg.OperationalError, label: str) -> PerfctlError:
    text = " ".join(str(error).split())
    if missing := _NO_DATABASE.search(text):
        return ConfigError(
            f'{label}: database "{missing[1]}" does not exist',
            hint=f"createdb {missing[1]}, or mend the target's dbname",
        )
    if missing := _NO_SERVICE.search(text):
        return ConfigError(
            f'service "{missing[1]}" is not defined',
            hint="look at ~/.pg_service.conf or at the file that PGSERVICEFILE names",
        )
    if _DENIED.search(text):
        return Denied(
            f"{label}: {text}",
            hint="check user and password; a .pgpass file is only read with mode 0600 (chmod 600 ~/.pgpass)",
        )
    return Unreachable(
        f"{label}: {text}",
        hint="is the server up, and do host, port and sslmode fit? perfctl config show tells what is in force",
    )
