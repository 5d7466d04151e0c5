"""What happens while a run goes on: what is looked at, waited for, and told. Plain values, no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from perfctl.errors import PerfctlError
from perfctl.figures import human_seconds
from perfctl.indexes.model import Blocker, Step, one_line


class WaitedTooLong(PerfctlError):
    """another transaction did not end in time"""

    exit_code = 6


@dataclass(frozen=True, slots=True)
class Allowed:
    """Whose sessions may be ended when they stand in the way: a role or an application, by glob."""

    by: str
    glob: str

    def covers(self, blocker: Blocker) -> bool:
        """True for a client's session that the list names; never for a server process or a prepared transaction."""
        if not blocker.pid or not blocker.is_client:
            return False
        return fnmatchcase((blocker.role if self.by == "role" else blocker.application) or "", self.glob)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a run may wait, and how much it may take."""

    #: for other transactions, in one phase of a statement, and before one is sent
    wait_budget_s: float = 900.0
    #: for a table's lock, at one try; None is the server's deadlock_timeout and a second more
    lock_timeout_s: float | None = None
    #: for other transactions, to drop what a failed build left
    cleanup_budget_s: float = 30.0
    #: for another perfctl to finish
    runner_wait_s: float = 10.0
    #: for a lost server to come back
    reconnect_s: float = 20.0
    #: for an answer to a look, before the connection is taken for lost
    answer_within_s: float = 30.0
    #: older transactions are waited for before a build, younger ones by the build itself
    blocker_age_s: float = 10.0
    #: statements under way at once
    jobs: int = 1
    #: what fails or is stuck ends its own table's work and no other's
    go_on: bool = False
    #: no build starts while a replica replays later than this; None looks at none
    max_replica_lag_s: float | None = 60.0
    #: bytes that have to stay free on the server's disk
    min_free_bytes: int = 0
    #: no build starts that would end later
    not_after: datetime | None = None
    #: whose sessions may be ended when they block
    kill: tuple[Allowed, ...] = ()
    #: before a session on that list is ended
    kill_after_s: float = 5.0
    #: client_connection_check_interval of a building session; 0 lets a build outlive its client
    connection_check_s: float = 0.0

    def lock_timeout(self, deadlock_timeout_s: float) -> float:
        """Seconds to wait for a table's lock; an autovacuum yields after ``deadlock_timeout``, not before."""
        return deadlock_timeout_s + 1.0 if self.lock_timeout_s is None else self.lock_timeout_s


@dataclass(frozen=True, slots=True)
class Live:
    """One index as it is at this moment: what is looked at right before and right after a statement."""

    oid: int
    table_oid: int
    relkind: str
    is_unique: bool
    is_valid: bool
    is_ready: bool
    is_live: bool
    definition: str
    size_bytes: int
    parent_oid: int | None
    builder_pid: int | None
    builder_application: str | None

    @property
    def is_good(self) -> bool:
        """Queries use it and writes maintain it."""
        return self.is_valid and self.is_ready and self.is_live

    @property
    def rejects_writes(self) -> bool:
        """No query uses it, and an application's write fails all the same when it repeats a key."""
        return self.is_unique and self.is_ready and not self.is_valid


#: what the wait events of a session that shows no phase mean
_WAITS = {
    "relation": "waiting for the table's lock",
    "virtualxid": "waiting for those who use the table",
    "transactionid": "waiting for another transaction",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a session that builds or drops an index is doing now."""

    pid: int
    application: str | None
    state: str | None
    idle_s: float | None
    index_oid: int | None
    phase: str | None
    lockers_total: int
    lockers_done: int
    blocks_total: int
    blocks_done: int
    tuples_total: int
    tuples_done: int
    #: transactions back to the oldest row version that it keeps from being vacuumed away; None while it keeps none
    xmin_age: int | None
    wait_lock: str | None
    blocker_pid: int | None
    blocker_role: str | None
    blocker_application: str | None
    blocker_state: str | None
    blocker_age_s: float | None
    blocker_query: str | None
    blocker_started_at: datetime | None
    blocker_is_client: bool
    prepared: str | None

    @property
    def is_waiting(self) -> bool:
        """True while it waits for a lock or for another transaction's end."""
        return self.wait_lock is not None

    @property
    def waits_for_table(self) -> bool:
        """True while it has not got its table: nothing of it is in the catalogue yet."""
        return self.wait_lock == "relation"

    @property
    def wait_phase(self) -> str:
        """What a budget is kept for: the phase that the server names, or the lock that is waited for."""
        return self.phase or _WAITS.get(self.wait_lock or "", "waiting for a lock")

    @property
    def fraction(self) -> float | None:
        """How much of this phase is done, 0 to 1; None in a phase that has no measure."""
        if self.tuples_total:
            return min(1.0, self.tuples_done / self.tuples_total)
        if self.blocks_total:
            return min(1.0, self.blocks_done / self.blocks_total)
        return None

    @property
    def blocking(self) -> Blocker | None:
        """Who is waited for; None when nobody is."""
        if self.blocker_pid is None:
            return None
        prepared = f"prepared transaction {self.prepared}" if self.prepared else "a prepared transaction"
        return Blocker(
            pid=self.blocker_pid or None,
            role=self.blocker_role,
            application=self.blocker_application if self.blocker_pid else prepared,
            state=self.blocker_state,
            age_s=self.blocker_age_s,
            query=self.blocker_query,
            table_oid=None,
            reason="lock",
            started_at=self.blocker_started_at,
            is_client=self.blocker_is_client,
            is_wraparound=False,
        )

    @property
    def blocker(self) -> str | None:
        """Who is waited for, in a few words; None when nobody is."""
        return str(self.blocking) if self.blocking else None


@dataclass(frozen=True, slots=True)
class TableLoad:
    """A table between two builds: whether autovacuum has work there that builds keep it from."""

    oid: int
    dead_rows: int
    #: autovacuum comes beyond this many; None where it is switched off
    dead_rows_limit: float | None
    vacuum_pid: int | None
    #: autovacuum_naptime: it comes round this often
    naptime_s: float


@dataclass(frozen=True, slots=True)
class HeldUp:
    """A client that a statement of this run keeps waiting."""

    pid: int
    role: str | None
    application: str | None
    waits_s: float | None
    query: str | None
    by_pid: int

    def __str__(self) -> str:
        who = ", ".join(fact for fact in (self.role, self.application) if fact)
        return f"pid {self.pid} ({who}): {one_line(self.query)}"


@dataclass(frozen=True, slots=True)
class Replica:
    """A standby that follows this server; its lag is None where it has none or the role may not see it."""

    application: str | None
    address: str | None
    state: str | None
    replay_lag_s: float | None

    def __str__(self) -> str:
        return f"replica {self.application or '?'} ({self.address or 'local'})"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What else goes on in the database, as of one look."""

    blockers: Sequence[Blocker] = ()
    loads: Sequence[TableLoad] = ()
    replicas: Sequence[Replica] = ()
    #: bytes free where the data is; None where it cannot be known
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a step is not sent now. ``final``: waiting does not help."""

    why: str
    hint: str | None = None
    final: bool = False
    #: goes away for the one table only, so others may go on
    of_table: bool = False
    #: it is manners, not need: after this many seconds the step is sent all the same
    at_most_s: float | None = None
    blockers: tuple[Blocker, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run; ``number`` of ``total`` is the step."""

    kind: str
    step: Step
    number: int
    total: int
    elapsed_s: float = 0.0
    progress: Progress | None = None
    detail: str = ""
    #: steps that have come to their end
    finished: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step, as the catalogue shows it afterwards."""

    step: Step
    result: str
    detail: str = ""
    build_s: float = 0.0
    wait_s: float = 0.0
    size_bytes: int | None = None
    oid: int | None = None


@dataclass(slots=True)
class Timing:
    """Seconds that a statement took, and how many of them it waited for other transactions."""

    total_s: float = 0.0
    wait_s: float = 0.0
    #: who was ended to let it through
    killed: tuple[str, ...] = ()

    @property
    def build_s(self) -> float:
        """Seconds of work."""
        return max(0.0, self.total_s - self.wait_s)


def waited(seconds: float, phase: str, blockers: Sequence[Blocker]) -> WaitedTooLong:
    """The error for a spent budget, which names everybody who is in the way."""
    names = "; ".join(each.named() for each in blockers) or "another transaction"
    return WaitedTooLong(
        f"{phase}: waited {human_seconds(seconds)} for {names}",
        hint="end that transaction, or give more time with --wait-budget",
    )
