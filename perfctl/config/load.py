"""Finds the configuration, reads it, and says everything that is wrong with it in one error."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfctl.config.address import dsn_fault, url_fault
from perfctl.config.document import Document, read
from perfctl.config.kinds import REDIS_SCHEMES
from perfctl.config.loaded import Loaded, Origin
from perfctl.config.model import VERSION
from perfctl.config.problem import dotted
from perfctl.config.schema import Place, is_secret
from perfctl.config.translate import settings_from
from perfctl.errors import ConfigError

FILE_NAME = "perfctl.yaml"
#: without a file, any of these says which database is meant
_POINTS_AT_A_DATABASE = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER")


def load(explicit: Path | None, environ: Mapping[str, str], cwd: Path) -> Loaded:
    """The configuration that is in force in a folder, with its origins.

    The first that is there: ``explicit``, ``PERFCTL_CONFIG``, ``perfctl.yaml`` in the folder or above
    it, the user's own, else ``DATABASE_URL`` and its like as a target named ``env``. Files are not
    merged. Raises ConfigError, whose message holds every mistake, and no secret.
    """
    path = find(explicit, environ, cwd)
    if path is None:
        return _from_environment(environ, cwd)
    label = _label(path, cwd.absolute())
    document = read(label, _text(path, label, by_variable=explicit is None and "PERFCTL_CONFIG" in environ), environ)
    _check_version(document)
    return _loaded(document, environ, path)


def find(explicit: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file to read, absolute; None when there is none. A file that was asked for need not exist."""
    cwd = cwd.absolute()
    asked = explicit or (Path(environ["PERFCTL_CONFIG"]) if environ.get("PERFCTL_CONFIG") else None)
    if asked is not None:
        return cwd / asked
    home = environ.get("XDG_CONFIG_HOME") or (Path(environ["HOME"], ".config") if environ.get("HOME") else "")
    places = [folder / FILE_NAME for folder in (cwd, *cwd.parents)]
    if home:
        places.append(Path(home, "perfctl", "config.yaml"))
    return next((place for place in places if os.path.lexists(place)), None)


def _label(path: Path, cwd: Path) -> str:
    return str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)


def _text(path: Path, label: str, *, by_variable: bool) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        cure = "PERFCTL_CONFIG names it" if by_variable else "the README shows one to copy"
        raise ConfigError(f"{label}: error: {reason[0].lower()}{reason[1:]}", hint=cure) from None
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(
            f"{label}:1:1: error: the file begins with a byte order mark",
            hint=f"run: sed -i '1s/^\\xef\\xbb\\xbf//' {label}",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    raise ConfigError(f"{label}:{line}:{column}: error: not UTF-8", hint="save the file as UTF-8")


def _check_version(document: Document) -> None:
    """A later version may know other keys: nothing else is said about it."""
    data = document.data
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        document.problems.clear()
        document.add(
            ("version",),
            f"version {version} is not known to this perfctl, which reads version {VERSION}",
            "a newer perfctl reads it: pip install --upgrade perfctl",
        )
        raise ConfigError(document.message())


def _loaded(document: Document, environ: Mapping[str, str], path: Path) -> Loaded:
    if document.data is None and not document.problems:
        raise ConfigError(f"{document.label}:1:1: error: the file holds nothing", hint="the README shows one to copy")
    settings = None
    if document.data is not None:
        settings = settings_from(document, _context(document, environ, path.parent))
    if settings is None or document.problems:
        raise ConfigError(document.message())
    origins = {dotted(place): _origin(document, place) for place in document.keys}
    return Loaded(settings, path, origins, tuple(_warnings(document)))


def _context(document: Document, environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    where = {
        place: f"{document.label}:{span.line + 1}:{span.column + 1}: error: {dotted(place)}"
        for place, span in document.values.items()
    }
    return {"folder": folder, "environ": environ, "where": where}


def _origin(document: Document, place: Place) -> Origin:
    names = document.used.get(place, ())
    return Origin(document.where(place) + (f", environment {', '.join(names)}" if names else ""))


def _warnings(document: Document) -> list[str]:
    """Passwords that are written in the file, where everybody who reads the repository reads them."""
    found = []
    for place, text in document.written.items():
        if is_secret(place) and _holds_password(str(place[-1]), text):
            found.append(
                f"{document.where(place)}: a password is written in the file; use password_file, ${{VAR}}, or ~/.pgpass"
            )
    return found


def _holds_password(key: str, written: str) -> bool:
    """Whether a password is there in so many words, and not by reference."""
    if key == "password":
        return bool(written) and "${" not in written
    literal = re.sub(r"\$\{\w+(:\?[^{}]*|:-)?\}", "", written)
    return re.search(r"://[^:@/]*:[^@]+@|password\s*=\s*[^\s&]", literal) is not None


def _from_environment(environ: Mapping[str, str], cwd: Path) -> Loaded:
    """One target named ``env``, made of what applications and libpq read from the environment."""
    target: dict[str, Any] = {}
    origins = {"targets.env": Origin("environment")}
    faults = []
    if dsn := environ.get("DATABASE_URL"):
        target["database"] = {"dsn": dsn}
        origins["targets.env.database.dsn"] = Origin("environment DATABASE_URL")
        faults.append(("DATABASE_URL", dsn_fault(dsn)))
    elif any(environ.get(name) for name in _POINTS_AT_A_DATABASE):
        target["database"] = {}
    if url := environ.get("REDIS_URL"):
        target["cache"] = {"url": url}
        origins["targets.env.cache.url"] = Origin("environment REDIS_URL")
        faults.append(("REDIS_URL", url_fault(url, REDIS_SCHEMES)))
    if not target:
        raise ConfigError(
            f"no configuration: no {FILE_NAME} here or above, and no DATABASE_URL",
            hint="write one (the README shows how), name one with --config, or set DATABASE_URL",
        )
    if wrong := [(f"environment {name}: error: {fault.text}", fault.cure) for name, fault in faults if fault]:
        raise ConfigError("\n\n".join(text for text, _ in wrong), hint=wrong[0][1] or None)
    context = {
        "folder": cwd,
        "environ": environ,
        "where": {("targets", "env", "database", "dsn"): "environment DATABASE_URL: error"},
    }
    document = Document("environment", [], {"version": VERSION, "targets": {"env": target}})
    settings = settings_from(document, context)
    if settings is None:
        raise ConfigError(document.message())
    return Loaded(settings, None, origins)
