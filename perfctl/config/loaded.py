"""Settings together with where each of them comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, SecretStr

from perfctl.config.address import MASK, mask_dsn, mask_url
from perfctl.config.database import Server
from perfctl.config.model import Settings, Target
from perfctl.config.problem import nearest
from perfctl.config.units import format_duration
from perfctl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: ``perfctl.yaml:4``, ``environment DATABASE_URL``, ``default``."""

    text: str

    def __str__(self) -> str:
        return self.text


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in force."""

    settings: Settings
    #: the file, None when the environment alone says it all
    path: Path | None
    #: dotted key → origin, for every value that is not a default
    origins: Mapping[str, Origin] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def target(self, name: str | None = None) -> Target:
        """The target of that name; without one the default target, or the only one.

        Raises ConfigError when there is none of that name, or several to choose from.
        """
        targets = self.settings.targets
        wanted = name or self.settings.default_target
        if wanted in targets:
            return targets[wanted]
        known = ", ".join(f'"{each}"' for each in targets) or "none"
        if wanted:
            near = nearest(wanted, targets)
            hint = f'did you mean "{near}"?' if near else None
            raise ConfigError(f'unknown target "{wanted}"; the targets are: {known}', hint=hint)
        if len(targets) == 1:
            return next(iter(targets.values()))
        if not targets:
            raise ConfigError(f"{self.path} names no target", hint="add one under targets:")
        raise ConfigError(
            f"several targets to choose from: {known}", hint="name one with --target, or set default_target"
        )

    def secrets(self) -> tuple[str, ...]:
        """Every password and address that must not be printed, longest first; for a last look at messages."""
        found: set[str] = set()
        for target in self.settings.targets.values():
            for server in (target.database, target.pgbouncer):
                if server is None:
                    continue
                if server.dsn is not None:
                    found.add(server.dsn.get_secret_value())
                # A dsn that cannot be read has no keywords; its whole text is in the set already.
                with suppress(ConfigError):
                    found.add(server.conninfo().get("password", ""))
            if target.cache is not None:
                found |= {target.cache.url.get_secret_value(), target.cache.password() or ""}
        return tuple(sorted((each for each in found if len(each) > 3), key=len, reverse=True))

    def shown(self) -> list[tuple[str, str, str]]:
        """Dotted key, value with secrets masked, origin: for every value that is set or has a default."""
        return list(self._section(self.settings, ()))

    def _section(self, section: BaseModel, place: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
        for name, info in type(section).model_fields.items():
            inner = (*place, info.alias or name)
            if name == "connect_timeout_s" and isinstance(section, Server) and not section.own_timeout:
                continue
            yield from self._value(getattr(section, name), inner, name)
        if isinstance(section, Server):
            yield from _inherited(section, place)

    def _value(self, value: object, place: tuple[str, ...], name: str) -> Iterator[tuple[str, str, str]]:
        if isinstance(value, BaseModel):
            yield from self._section(value, place)
        elif isinstance(value, dict):
            for key, each in value.items():
                yield from self._value(each, (*place, key), key)
        elif value is not None and value != ():
            key = ".".join(place)
            yield key, _display(value, name), self.origins.get(key, DEFAULT).text


def _inherited(server: Server, place: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """What libpq takes from PG* variables because the target leaves it open."""
    try:
        given, taken = server.named(), server.inherited()
    except ConfigError:
        # The dsn cannot be read; it is shown as *** and said to be wrong where it is used.
        return
    by_service = "service" in given or "service" in taken
    for key, variable in taken.items():
        doubt = ", unless the service says otherwise" if by_service and key != "service" else ""
        yield ".".join((*place, key)), server.environ[variable], f"environment {variable}{doubt}"


def _display(value: object, name: str) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if name == "dsn":
            return mask_dsn(secret)
        return MASK if name == "password" else mask_url(secret)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and name.endswith("_s"):
        return format_duration(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)
