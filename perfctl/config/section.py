"""What every part of a configuration file has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from perfctl.errors import ConfigError


def as_written(value: object) -> Any:
    """A default as the file would give it: it is read in the same way."""
    return value


class Section(BaseModel):
    """A part of the file: its keys are all known, its values never change, its errors never quote a value."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_given(cls, data: object) -> object:
        """A key without a value is a section without keys."""
        return {} if data is None else data


def read_password(path: Path) -> str:
    """The first line of a password file, without its end. Raises ConfigError, which holds none of it."""
    try:
        first = path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    else:
        if first:
            return first
        reason = "its first line is empty"
    raise ConfigError(f'the password file "{path}" cannot be used: {reason}')
