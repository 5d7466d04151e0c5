"""Addresses that may hold a password: what is wrong with one, and how to show it.

libpq and redis-py quote a malformed address in their messages, password included. So an address is
looked at here first, and no message made here holds a part of it.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import NamedTuple
from urllib.parse import quote

MASK = "***"
_ENCODE = 'in a URL, percent-encode "@", "/", "?", "#" and "%" in a user name or password (%40 %2F %3F %23 %25)'

_POSTGRES = re.compile(r"(postgres(?:ql)?)(?:\+[a-z0-9_]+)?://")
_KEYWORDS = re.compile(r"\s*[a-z_]+\s*=")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_SECRET_KEYWORDS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
#: what other libraries read from the query of a URL that is otherwise libpq's
_FOREIGN = re.compile(
    r"[?&](schema|pgbouncer|connection_limit|pool_timeout|ssl|socket_timeout|sslaccept|async_fallback)="
)
#: the form of user:password@
CREDENTIALS = re.compile(r":[^\s@]*@")


class Fault(NamedTuple):
    """What is wrong with an address, and the cure. Neither holds a part of the address."""

    text: str
    cure: str = ""


def dsn_fault(dsn: str) -> Fault | None:
    """What is wrong with a PostgreSQL DSN as far as its form goes, None when nothing is."""
    scheme = _POSTGRES.match(dsn)
    if scheme is None:
        if _KEYWORDS.match(dsn):
            return None
        return Fault('not a PostgreSQL address: expected postgresql://user@host/database or "host=… dbname=…"')
    rest = dsn[scheme.end() :]
    authority, _, path = rest.partition("/")
    path = path.partition("?")[0]
    user, at, hosts = authority.rpartition("@")
    return _authority_fault(user, at + hosts.partition("?")[0], path, rest)


def url_fault(url: str, schemes: tuple[str, ...]) -> Fault | None:
    """What is wrong with a URL as far as its form goes, None when nothing is."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in schemes:
        return Fault("expected an address that begins with " + ", ".join(f"{each}://" for each in schemes))
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    user, at, hosts = authority.rpartition("@")
    if not hosts and scheme != "unix":
        return Fault("the address names no host")
    return _authority_fault(user, at + hosts, path, rest)


def _authority_fault(user: str, hosts: str, path: str, rest: str) -> Fault | None:
    if "@" in user or "@" in path:
        return Fault('not a readable address: an "@" where none can be', _ENCODE)
    if _BAD_PERCENT.search(rest):
        return Fault('not a readable address: a "%" that is not followed by two hexadecimal digits', _ENCODE)
    if not all(_HOST_AND_PORT.fullmatch(each) for each in hosts.removeprefix("@").split(",")):
        return Fault("not a readable address: expected host or host:port, the port a number", _ENCODE)
    return None


def parse_dsn(dsn: str) -> dict[str, str] | Fault:
    """libpq's keywords in a DSN, or what is wrong with it."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    if fault := dsn_fault(dsn):
        return fault
    try:
        # "postgresql+asyncpg://" is SQLAlchemy's spelling; libpq knows the part before the plus sign
        return {key: str(value) for key, value in conninfo_to_dict(_POSTGRES.sub(r"\1://", dsn, count=1)).items()}
    except (ProgrammingError, ValueError):
        foreign = sorted(set(_FOREIGN.findall(dsn)))
    if foreign:
        names = ", ".join(f'"{name}"' for name in foreign)
        return Fault(f"libpq does not know the parameter {names}", "it belongs to another library; leave it out")
    return Fault("not a DSN that libpq can read", _ENCODE)


def mask_dsn(dsn: str) -> str:
    """The DSN with every secret as ``***``; only ``***`` when it cannot be read."""
    found = parse_dsn(dsn)
    if isinstance(found, Fault):
        return MASK
    shown = {key: MASK if key in _SECRET_KEYWORDS else value for key, value in sorted(found.items())}
    if _POSTGRES.match(dsn):
        return _as_uri(shown)
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **shown)


def _as_uri(params: dict[str, str]) -> str:
    rest = dict(params)
    user, password = rest.pop("user", ""), rest.pop("password", "")
    hosts, ports = rest.pop("host", "").split(","), rest.pop("port", "").split(",")
    login = quote(user, safe="") + (f":{MASK}" if password else "")
    where = ",".join(
        (f"[{host}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")
        for host, port in zip_longest(hosts, ports, fillvalue="")
    )
    query = "&".join(f"{key}={quote(value, safe='/*')}" for key, value in rest.items() if key != "dbname")
    database = quote(rest.get("dbname", ""), safe="")
    return f"postgresql://{login}{'@' if login else ''}{where}/{database}{'?' if query else ''}{query}"


def mask_url(url: str) -> str:
    """The URL with its password and the values of its query as ``***``; only ``***`` when it cannot be read."""
    scheme, _, rest = url.partition("://")
    if url_fault(url, (scheme.lower(),)):
        return MASK
    head, mark, query = rest.partition("#")[0].partition("?")
    authority, slash, path = head.partition("/")
    user, at, host = authority.rpartition("@")
    login = f"{user.partition(':')[0]}:{MASK}@" if ":" in user else f"{MASK}@" if at else ""
    values = re.sub(r"=[^&]*", f"={MASK}", query) if "=" in query else MASK if query else ""
    return f"{scheme}://{login}{host}{slash}{path}{mark}{values}"
