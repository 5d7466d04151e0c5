"""The kinds of value a setting can have: how each is read, what is said when it is wrong, its JSON Schema.

Every kind also takes what came out of ``${…}``, which is text whatever it stands for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from perfctl.config.address import dsn_fault, url_fault
from perfctl.config.expand import Expanded
from perfctl.config.units import (
    DURATION_EXPECTED,
    DURATION_PATTERN,
    SIZE_EXPECTED,
    SIZE_PATTERN,
    parse_duration,
    parse_size,
)

REDIS_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix", "redis+sentinel", "rediss+sentinel")
#: what an editor lets pass anywhere: a reference to the environment
_REFERENCE = {"type": "string", "pattern": r"\$\{"}
_DECIMAL = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def complain(text: str, hint: str = "") -> PydanticCustomError:
    """An error whose text is shown as it is; it must hold no part of a secret."""
    return PydanticCustomError("perfctl", "{text}", {"text": text, "hint": hint})


def _text(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    if value is None:
        return None
    scalar = isinstance(value, (bool, int, float))
    raise complain("expected text", "put the value in quotes" if scalar else "")


def _optional_text(value: object) -> object:
    """Empty text leaves a setting open, as libpq has it."""
    return _text(value) or None


def _switch(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, Expanded) and value in ("true", "false"):
        return value == "true"
    raise complain("expected true or false")


def _number(value: object) -> float | None:
    """The number that a value stands for; text in quotes stands for none."""
    if isinstance(value, Expanded) and _DECIMAL.fullmatch(value):
        return float(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _count(value: object) -> object:
    if value is None:
        return None
    number = _number(value)
    if number is None or not 1 <= number < 2**31 or number != int(number):
        raise complain("expected a whole number from 1 up, without quotes")
    return int(number)


def _ratio(value: object) -> object:
    if value is None:
        return None
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise complain("expected a number from 0 to 1, such as 0.7, without quotes")
    return float(number)


def _duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise complain(DURATION_EXPECTED)
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise complain(str(error)) from None


def _some_duration(value: object) -> object:
    if value is None:
        return None
    if seconds := _duration(value):
        return seconds
    raise complain("expected a duration longer than 0s")


def _size(value: object) -> object:
    if not isinstance(value, str):
        raise complain(SIZE_EXPECTED)
    try:
        return parse_size(value)
    except ValueError as error:
        raise complain(str(error)) from None


def _port(value: object) -> object:
    if value is None or value == "":
        return None
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if all(each.isascii() and each.isdigit() and 0 < int(each) < 65536 for each in text.split(",")):
        return text
    raise complain("expected a port from 1 to 65535, or one for each host: 5432,5433")


def _host(value: object) -> object:
    text = _optional_text(value)
    if isinstance(text, str) and not text.startswith(("/", "@")) and re.search(r"[@/\s]", text):
        raise complain("expected a host name, a socket's folder or host1,host2", "a whole address goes under dsn")
    return text


def _dsn(value: object) -> object:
    text = _text(value)
    if isinstance(text, str) and (fault := dsn_fault(text)):
        raise complain(*fault)
    return text


def _url(*schemes: str) -> Callable[[object], object]:
    def read(value: object) -> object:
        text = _optional_text(value)
        if isinstance(text, str) and (fault := url_fault(text, schemes)):
            raise complain(*fault)
        return text

    return read


def _path(value: object, info: ValidationInfo) -> object:
    text = _optional_text(value)
    if not isinstance(text, str):
        return None
    try:
        return Path((info.context or {}).get("folder", "."), Path(text).expanduser())
    except RuntimeError:
        raise complain("the path begins with the home of a user who does not exist") from None


def _libpq_path(value: object, info: ValidationInfo) -> object:
    """A path, or libpq's word "system" for the machine's own certificates."""
    return value if value == "system" else _path(value, info)


def _secret_file(value: object, info: ValidationInfo) -> object:
    path = _path(value, info)
    if not isinstance(path, Path):
        return None
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise complain(f"the password file cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise complain("the password file is not a file")
    if os.name == "posix" and mode & 0o077:
        raise complain(
            f"the password file can be read by others (mode {stat.S_IMODE(mode):04o})", f"run: chmod 600 {path}"
        )
    return path


def _choice(*words: str) -> Any:
    def read(value: object) -> object:
        text = _optional_text(value)
        if text is None or text in words:
            return text
        raise complain("expected one of " + ", ".join(words))

    return Annotated[
        str | None,
        BeforeValidator(read),
        WithJsonSchema({"anyOf": [{"enum": [*words]}, _REFERENCE]}),
    ]


def _kind(read: Callable[..., object], schema: dict[str, Any]) -> tuple[BeforeValidator, WithJsonSchema]:
    return BeforeValidator(read), WithJsonSchema(schema)


def _or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _REFERENCE]}


_TEXT_SCHEMA = {"type": "string"}
_SECRET_SCHEMA = {"type": "string", "writeOnly": True}
_DURATION_SCHEMA = _or_reference({"type": "string", "pattern": DURATION_PATTERN})
_SIZE_SCHEMA = _or_reference({"type": "string", "pattern": SIZE_PATTERN})
_PORT_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string"}]}
_HTTP = _url("http", "https")

Switch = Annotated[bool, *_kind(_switch, _or_reference({"type": "boolean"}))]
Count = Annotated[int | None, *_kind(_count, _or_reference({"type": "integer", "minimum": 1}))]
Ratio = Annotated[float | None, *_kind(_ratio, _or_reference({"type": "number", "minimum": 0, "maximum": 1}))]
Text = Annotated[str, *_kind(_text, _TEXT_SCHEMA)]
OptionalText = Annotated[str | None, *_kind(_optional_text, _TEXT_SCHEMA)]
Host = Annotated[str | None, *_kind(_host, _TEXT_SCHEMA)]
Port = Annotated[str | None, *_kind(_port, _PORT_SCHEMA)]
Duration = Annotated[float, *_kind(_duration, _DURATION_SCHEMA)]
SomeDuration = Annotated[float, *_kind(_some_duration, _DURATION_SCHEMA)]
OptionalDuration = Annotated[float | None, *_kind(_some_duration, _DURATION_SCHEMA)]
Size = Annotated[int, *_kind(_size, _SIZE_SCHEMA)]
Folder = Annotated[Path, *_kind(_path, _TEXT_SCHEMA)]
SecretFile = Annotated[Path | None, *_kind(_secret_file, _TEXT_SCHEMA)]
LibpqPath = Annotated[Path | str | None, *_kind(_libpq_path, _TEXT_SCHEMA)]
Secret = Annotated[SecretStr | None, *_kind(_optional_text, _SECRET_SCHEMA)]
Dsn = Annotated[SecretStr, *_kind(_dsn, _SECRET_SCHEMA)]
OptionalDsn = Annotated[SecretStr | None, *_kind(_dsn, _SECRET_SCHEMA)]
RedisUrl = Annotated[SecretStr, *_kind(_url(*REDIS_SCHEMES), _SECRET_SCHEMA)]
HttpUrl = Annotated[SecretStr, *_kind(_HTTP, _SECRET_SCHEMA)]
OptionalHttpUrl = Annotated[SecretStr | None, *_kind(_HTTP, _SECRET_SCHEMA)]


def _allowed(value: object) -> object:
    text = _text(value)
    if isinstance(text, str) and re.fullmatch(r"(role|application)=.+", text):
        return text
    raise complain("expected role=GLOB or application=GLOB")


def _journal(value: object) -> object:
    text = _text(value)
    if isinstance(text, str) and re.fullmatch(r"database|none|file(:.+)?", text):
        return text
    raise complain("expected database, file:PATH or none")


Allowed = Annotated[str, *_kind(_allowed, _or_reference({"type": "string", "pattern": "^(role|application)=."}))]
JournalPlace = Annotated[
    str, *_kind(_journal, _or_reference({"type": "string", "pattern": "^(database|none|file(:.+)?)$"}))
]


def _target_name(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\w[\w.-]*", value):
        return value
    raise complain("a target's name is made of letters, digits, '.', '_' and '-'")


TargetName = Annotated[str, BeforeValidator(_target_name)]
SslMode = _choice("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SslNegotiation = _choice("postgres", "direct")
Requirement = _choice("disable", "prefer", "require")
SessionAttrs = _choice("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
LoadBalance = _choice("disable", "random")
