"""The configuration: found, read, typed, frozen, with the origin of every value.

Importing this loads pydantic and pyyaml, which is slow: only a command that needs the configuration does.
"""

from perfctl.config.address import mask_dsn, mask_url
from perfctl.config.database import Database, PgBouncer
from perfctl.config.load import find, load
from perfctl.config.loaded import Loaded, Origin
from perfctl.config.model import App, Cache, Criteria, Indexes, Queries, Settings, Target
from perfctl.config.problem import nearest
from perfctl.config.schema import json_schema
from perfctl.config.units import format_duration, parse_duration, parse_size

__all__ = [
    "App",
    "Cache",
    "Criteria",
    "Database",
    "Indexes",
    "Loaded",
    "Origin",
    "PgBouncer",
    "Queries",
    "Settings",
    "Target",
    "find",
    "format_duration",
    "json_schema",
    "load",
    "mask_dsn",
    "mask_url",
    "nearest",
    "parse_duration",
    "parse_size",
]
