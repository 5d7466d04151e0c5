"""Throw-away PostgreSQL and Valkey servers for the demo, the tests and CI."""

from __future__ import annotations

from perfctl.embedded.failures import MissingServer, NotStarted
from perfctl.embedded.find import Installation, find_postgres, find_valkey, postgres_installations
from perfctl.embedded.kept import Kept, kept_servers, stop_kept
from perfctl.embedded.postgres import PostgresServer, start_postgres
from perfctl.embedded.valkey import ValkeyServer, start_valkey

__all__ = [
    "Installation",
    "Kept",
    "MissingServer",
    "NotStarted",
    "PostgresServer",
    "ValkeyServer",
    "find_postgres",
    "find_valkey",
    "kept_servers",
    "postgres_installations",
    "start_postgres",
    "start_valkey",
    "stop_kept",
]
