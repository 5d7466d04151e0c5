"""What was seen of a cache's servers and of a sample of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perfctl.errors import PerfctlError, exit_code_of

#: Upper ends of the TTL histogram, in milliseconds, and the names of its buckets; the first is for keys without TTL.
TTL_ENDS_MS = (10_000, 60_000, 300_000, 3_600_000, 86_400_000)
TTL_BUCKETS = ("none", "10s", "1m", "5m", "1h", "1d", "longer")


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read, and why."""

    what: str
    message: str
    hint: str | None
    exit_code: int
    error_class: str

    @classmethod
    def of(cls, what: str, error: PerfctlError) -> Unread:
        """Of the error that stood in the way."""
        return cls(what, error.message, error.hint, exit_code_of(error), type(error).__name__)


@dataclass(frozen=True, slots=True)
class Vitals:
    """What INFO of one server tells; None where it does not tell. Counters count since the start, or since a reset."""

    server: str
    run_id: str
    uptime_s: int | None
    #: CONFIG RESETSTAT was called since the start; the server does not tell when
    was_reset: bool
    hits: int | None
    misses: int | None
    commands: int | None
    used_bytes: int | None
    peak_bytes: int | None
    #: 0 where there is no limit
    limit_bytes: int | None
    overhead_bytes: int | None
    dataset_bytes: int | None
    fragmentation: float | None
    fragmentation_bytes: int | None
    allocator_fragmentation: float | None
    policy: str | None
    evicted: int | None
    expired: int | None
    #: the share of keys with TTL that have expired and still take memory, as the server estimates it
    stale_share: float | None
    clients: int | None
    blocked: int | None
    max_clients: int | None
    rejected: int | None
    #: of the database that was asked about
    keys: int | None
    #: it does as another server says
    replica: bool = False


@dataclass(frozen=True, slots=True)
class SlowCommand:
    """An entry of the slow log, without the command's arguments."""

    command: str
    took_ms: float
    #: seconds since 1970
    at_s: int
    #: of its first key, where it has one
    family: bytes | None = None


@dataclass(frozen=True, slots=True)
class SlowLog:
    """One server's slow log."""

    server: str
    length: int
    #: slowest first
    slowest: tuple[SlowCommand, ...]
    #: the newest entries, which were looked at; None for all
    newest: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the servers of a deployment tell of themselves."""

    vitals: tuple[Vitals, ...]
    slow: tuple[SlowLog, ...] = ()
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True)
class BigKey:
    """A large key; None where something is not known."""

    key: bytes
    size_bytes: int
    type: str | None
    #: -1 for a key that does not expire
    ttl_ms: int | None


@dataclass(frozen=True, slots=True)
class FamilyTally:
    """The keys of one family that were looked at in one place."""

    keys: int
    #: of how many the size is known, and the sum of those sizes
    sized: int
    size_bytes: int
    #: by TTL_BUCKETS
    ttls: tuple[int, ...]
    types: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that were looked at together, and may be alike: those of one server, or of one hash slot."""

    name: str
    #: keys that there are, and how many of them were looked at
    held: int
    read: int
    families: Mapping[bytes, FamilyTally]


@dataclass(frozen=True, slots=True)
class Stratum:
    """Groups of which some were looked at."""

    groups: tuple[Group, ...]
    #: groups that there are, and keys in all of them
    of_groups: int
    held: int

    @property
    def certain(self) -> bool:
        """Whether no group was left out."""
        return len(self.groups) == self.of_groups


@dataclass(frozen=True, slots=True)
class Sample:
    """Keys that were looked at, and what they stand for."""

    strata: tuple[Stratum, ...]
    #: every key was looked at
    complete: bool
    #: largest first
    biggest: tuple[BigKey, ...]
    seconds: float
    unread: tuple[Unread, ...] = ()
    #: keys by server
    servers: Mapping[str, int] = field(default_factory=dict)
    #: reads that the look itself added to the servers' counters, as hits
    counted_reads: int = 0

    @property
    def keys(self) -> int:
        """All keys."""
        return sum(each.held for each in self.strata)

    @property
    def read(self) -> int:
        """How many of them were looked at."""
        return sum(group.read for each in self.strata for group in each.groups)
