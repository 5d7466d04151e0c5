"""The settings that a configuration file can hold, typed, frozen, with what each is for.

The names in Python carry units (``wait_budget_s``); the alias is the key in the file (``wait_budget``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from perfctl.config import kinds as t
from perfctl.config.database import Database, PgBouncer, Server
from perfctl.config.problem import nearest
from perfctl.config.section import Section, as_written, read_password

VERSION = 1


class Cache(Section):
    """Redis or Valkey."""

    url: t.RedisUrl = Field(
        description="redis://host:6379/0, rediss:// for TLS, unix:///path/to.sock, redis+sentinel://host:26379/NAME/0"
    )
    prefix: t.Text = Field("", description="What the application's keys begin with")
    password_file: t.SecretFile = Field(
        None, description="File whose first line is the password; mode 0600. Relative to this file's folder"
    )

    def password(self) -> str | None:
        """The password file's, None when there is no such file. Raises ConfigError."""
        return read_password(self.password_file) if self.password_file else None


class App(Section):
    """What the application tells about itself."""

    pool_metrics: t.OptionalHttpUrl = Field(None, description="URL of its connection pool's metrics")
    cache_metrics: t.OptionalHttpUrl = Field(None, description="URL of its cache's metrics")


class Target(Section):
    """One place to work on: a database, and what stands around it."""

    protected: t.Switch = Field(False, description="Whoever changes it has to type its name")
    database: Database | None = Field(None, description="PostgreSQL")
    pgbouncer: PgBouncer | None = Field(None, description="PgBouncer in front of it")
    cache: Cache | None = Field(None, description="Redis or Valkey")
    app: App | None = Field(None, description="The application")

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The key under ``targets``."""
        return self._name

    def know(self, name: str, where: Mapping[tuple[str, ...], str]) -> None:
        """Tells the target its name, and its servers what to say before a mistake in their addresses."""
        self._name = name
        for key in ("database", "pgbouncer"):
            server: Server | None = getattr(self, key)
            if server is not None:
                server._where = where.get(("targets", name, key, "dsn")) or f"targets.{name}.{key}.dsn"

    @model_validator(mode="after")
    def _reaches_something(self) -> Target:
        if self.database is None and self.cache is None and self.pgbouncer is None and self.app is None:
            raise t.complain("the target reaches nothing", "give it a database or a cache")
        return self


class Indexes(Section):
    """How indexes are put on and taken off."""

    migrations: t.Folder = Field(
        as_written("sql/migrations"), description="Folder of migrations, relative to this file's"
    )
    wait_budget_s: t.Duration = Field(
        as_written("15m"),
        alias="wait_budget",
        description="How long one statement may wait for others, before it is sent and in each of its phases",
    )
    lock_timeout_s: t.OptionalDuration = Field(
        None,
        alias="lock_timeout",
        description="How long one try for a table's lock may take; else the server's deadlock_timeout and 1s more",
    )
    blocker_age_s: t.Duration = Field(
        as_written("10s"),
        alias="blocker_age",
        description="Transactions older than this are waited for before a build, not after it",
    )
    jobs: t.Count = Field(None, description="Builds at once, on a table each; else half of the server's cores")
    max_replica_lag_s: t.Duration = Field(
        as_written("1m"),
        alias="max_replica_lag",
        description="No build starts while a replica replays later than this; 0s looks at none",
    )
    min_free_bytes: t.Size = Field(
        as_written("0B"),
        alias="min_free",
        description="To stay free on the server's disk, where it is known",
    )
    kill_blockers: tuple[t.Allowed, ...] = Field(
        (), description="Whose sessions may be ended when they block: role=GLOB or application=GLOB"
    )
    client_connection_check_interval_s: t.Duration = Field(
        as_written("0s"),
        alias="client_connection_check_interval",
        description="0s lets a build outlive its client, to be adopted by the next apply; else it dies with its client",
    )
    journal: t.JournalPlace = Field(
        as_written("database"), description="database, file:PATH or none: where is written down what was done"
    )


class InlineQuery(Section):
    """A query that stands in this file."""

    name: t.Text = Field(description="Its name")
    sql: t.Text = Field(description="One statement; parameters as :name or %(name)s")
    purpose: t.Text = Field("", description="What it is for")
    params: dict[str, Any] = Field({}, description="name: value, or name: {type: bigint, value: 42}")
    sets: dict[str, dict[str, Any]] = Field({}, description="Further values to plan with, by the set's name")
    rules: tuple[dict[str, Any], ...] = Field((), strict=False, description="What its plans have to hold to")
    override: dict[str, t.Text] = Field({}, description="Rules of all queries that it puts aside, each with a reason")


class Queries(Section):
    """The queries that have to stay fast."""

    dir: t.Folder = Field(as_written("sql/queries"), description="Folder of .sql files, relative to this file's")
    inline: tuple[InlineQuery, ...] = Field((), strict=False, description="Queries that stand here")
    rules: tuple[dict[str, Any], ...] = Field((), strict=False, description="What the plans of all have to hold to")
    baselines: t.Folder = Field(
        as_written("sql/baselines"), description="Folder of the accepted plans, relative to this file's"
    )
    generic: t.Switch = Field(True, description="Look at the plan for any value of the parameters too")
    analyze: t.Switch = Field(False, description="Run the queries that may be run: EXPLAIN ANALYZE")
    timeout_s: t.SomeDuration = Field(as_written("10s"), alias="timeout", description="For one EXPLAIN")
    lock_timeout_s: t.SomeDuration = Field(
        as_written("1s"), alias="lock_timeout", description="For a table that is locked against readers"
    )


class CacheCriteria(Section):
    """What the cache has to hold to."""

    hit_ratio_min: t.Ratio = Field(None, description="Least share of reads that hit, 0 to 1")


class PoolCriteria(Section):
    """What the connection pool has to hold to."""

    size: t.Count = Field(None, description="Connections that the pool is meant to have")


class ApiCriteria(Section):
    """What the application's answers have to hold to."""

    url: t.HttpUrl = Field(description="URL to measure")
    p95_max_s: t.OptionalDuration = Field(None, alias="p95_max", description="95 of 100 answers come within this")


class Criteria(Section):
    """What `perfctl verify` holds the system to."""

    cache: CacheCriteria | None = Field(None, description="Cache")
    pool: PoolCriteria | None = Field(None, description="Connection pool")
    api: ApiCriteria | None = Field(None, description="Application")


class Settings(Section):
    """perfctl's configuration."""

    version: Literal[1] = Field(description="Version of this format")
    targets: dict[t.TargetName, Target] = Field({}, description="Places to work on, by name")
    default_target: t.OptionalText = Field(None, description="The target of a command that names none")
    indexes: Indexes = Field(as_written({}), description="Indexes")
    queries: Queries = Field(as_written({}), description="Hot queries")
    criteria: Criteria = Field(as_written({}), description="What perfctl verify holds the system to")

    @field_validator("targets")
    @classmethod
    def _named(cls, targets: dict[str, Target], info: ValidationInfo) -> dict[str, Target]:
        for name, target in targets.items():
            target.know(name, (info.context or {}).get("where", {}))
        return targets

    @field_validator("default_target")
    @classmethod
    def _known(cls, name: str | None, info: ValidationInfo) -> str | None:
        # Also when a target is wrong in itself, its name is known.
        targets = info.data.get("targets", (info.context or {}).get("names"))
        if name is not None and targets is not None and name not in targets:
            near = nearest(name, targets)
            raise t.complain("no such target", f'did you mean "{near}"?' if near else "known: " + ", ".join(targets))
        return name
