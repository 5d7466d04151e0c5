"""Settings that reach PostgreSQL, and what libpq makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr, ValidationInfo, field_validator

from perfctl.config import kinds as t
from perfctl.config.address import MASK, Fault, parse_dsn
from perfctl.config.section import Section, as_written, read_password
from perfctl.errors import ConfigError


class Server(Section):
    """Settings that reach a PostgreSQL server, or a PgBouncer that speaks its protocol."""

    dsn: t.OptionalDsn = Field(None, description="postgresql://user@host:5432/database, or libpq's key=value form")
    password_file: t.SecretFile = Field(
        None, description="File whose first line is the password; mode 0600. Relative to this file's folder"
    )
    connect_timeout_s: t.SomeDuration = Field(
        as_written("5s"), alias="connect_timeout", description="How long to wait for each host to answer"
    )

    _where: str = PrivateAttr("dsn")
    _environ: Mapping[str, str] = PrivateAttr(default_factory=dict)

    #: the fields that are libpq's own, name for name
    libpq: ClassVar[tuple[str, ...]] = ()

    def model_post_init(self, context: Any) -> None:
        """Keeps the PG* variables that libpq reads by itself, the password masked."""
        environ = (context or {}).get("environ", {})
        found = {name: environ[name] for name in PG_VARIABLES.values() if environ.get(name)}
        self._environ = {name: MASK if name == "PGPASSWORD" else value for name, value in found.items()}

    @property
    def environ(self) -> Mapping[str, str]:
        """The PG* variables that were set, the password masked."""
        return self._environ

    def named(self) -> dict[str, str]:
        """libpq's keywords as the settings give them, a password file not yet read.

        A keyword of its own wins over the same one in the dsn. Raises ConfigError, which says where
        the dsn stands and holds no part of it, when libpq cannot read the dsn.
        """
        found = parse_dsn(self.dsn.get_secret_value()) if self.dsn else {}
        if isinstance(found, Fault):
            raise ConfigError(f"{self._where}: {found.text}", hint=found.cure or None)
        for key in self.libpq:
            if (value := getattr(self, key)) is not None:
                found[key] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return found

    def inherited(self) -> dict[str, str]:
        """Keyword → PG* variable, for what the settings leave open and libpq takes from the environment."""
        shut = {*self.named()}
        if "host" in shut:
            shut.add("hostaddr")
        if self.password_file:
            shut.add("password")
        if "connect_timeout_s" in self.model_fields_set:
            shut.add("connect_timeout")
        return {key: name for key, name in PG_VARIABLES.items() if name in self._environ and key not in shut}

    @property
    def own_timeout(self) -> bool:
        """Whether connect_timeout_s holds: given as a key, or given neither in the dsn nor by PGCONNECT_TIMEOUT."""
        if "connect_timeout_s" in self.model_fields_set:
            return True
        return "PGCONNECT_TIMEOUT" not in self._environ and "connect_timeout" not in self._dsn_keywords()

    def conninfo(self) -> dict[str, str]:
        """Keywords for ``psycopg.connect(**…)``. Raises ConfigError for a bad dsn or password file."""
        found = self.named()
        if self.password_file:
            found["password"] = read_password(self.password_file)
        if "host" in found and {"PGHOSTADDR", "PGSERVICE"} & self._environ.keys():
            # Else libpq connects to the address that the environment gives, in place of the host named here.
            found.setdefault("hostaddr", "")
        if self.own_timeout:
            found["connect_timeout"] = str(max(1, math.ceil(self.connect_timeout_s)))
        return found

    def _dsn_keywords(self) -> dict[str, str]:
        found = parse_dsn(self.dsn.get_secret_value()) if self.dsn else {}
        return {} if isinstance(found, Fault) else found


class PgBouncer(Server):
    """PgBouncer's admin console."""

    dsn: t.Dsn = Field(description="Address of the admin console: postgresql://user@host:6432/pgbouncer")


class Database(Server):
    """The database: a dsn, or libpq's keywords one by one; what is left open libpq takes from PG* and .pgpass."""

    schemas: tuple[t.Text, ...] = Field((), strict=False, description="Schemas to look at; none = all but system's")
    service: t.OptionalText = Field(None, description="Name of a service in pg_service.conf")
    host: t.Host = Field(None, description="Host name, socket folder, or several: host1,host2")
    hostaddr: t.OptionalText = Field(None, description="IP address to connect to in place of looking host up")
    port: t.Port = Field(None, description="Port, or one for each host: 5432,5433")
    dbname: t.OptionalText = Field(None, description="Database")
    user: t.OptionalText = Field(None, description="Role to connect as")
    password: t.Secret = Field(None, description="Better: password_file, ${VAR}, passfile or ~/.pgpass")
    passfile: t.LibpqPath = Field(None, description="Password file in .pgpass's format, mode 0600")
    require_auth: t.OptionalText = Field(None, description="Methods that may be used to log in: scram-sha-256")
    channel_binding: t.Requirement = Field(None, description="Bind the login to the TLS connection")
    sslmode: t.SslMode = Field(None, description="verify-full proves that the server is the one that is meant")
    sslnegotiation: t.SslNegotiation = Field(None, description="direct starts TLS at once; PostgreSQL 17 or later")
    sslrootcert: t.LibpqPath = Field(None, description="Certificates to trust: a file, or system")
    sslcert: t.LibpqPath = Field(None, description="Client certificate")
    sslkey: t.LibpqPath = Field(None, description="Key of the client certificate")
    sslcrl: t.LibpqPath = Field(None, description="Certificates that are revoked")
    gssencmode: t.Requirement = Field(None, description="Kerberos encryption")
    krbsrvname: t.OptionalText = Field(None, description="Kerberos service name")
    requirepeer: t.OptionalText = Field(None, description="System user that has to own the server at a socket")
    target_session_attrs: t.SessionAttrs = Field(None, description="Which of several hosts will do: read-write")
    load_balance_hosts: t.LoadBalance = Field(None, description="random tries several hosts in random order")
    options: t.OptionalText = Field(None, description="Options for the server: -c statement_timeout=0")

    libpq: ClassVar[tuple[str, ...]] = (
        "service", "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "require_auth",
        "channel_binding", "sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl", "gssencmode",
        "krbsrvname", "requirepeer", "target_session_attrs", "load_balance_hosts", "options",
    )  # fmt: skip

    @field_validator("password")
    @classmethod
    def _one_password(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and info.data.get("password_file") is not None:
            raise t.complain("password and password_file are both given")
        return value


#: keyword → the variable that libpq reads when the keyword is left open
PG_VARIABLES: dict[str, str] = {
    **{key: f"PG{key.upper().replace('_', '')}" for key in Database.libpq},
    "dbname": "PGDATABASE",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
