"""The JSON Schema of a configuration file, and what it knows about a place in one."""

from __future__ import annotations

import copy
import json
from functools import cache
from importlib.resources import files
from typing import Any

from perfctl.config.model import Settings

#: keys and list positions from the top of the file
Place = tuple[str | int, ...]


def json_schema() -> dict[str, Any]:
    """JSON Schema (Draft 2020-12) of a configuration file, for editors: ``${…}`` may stand for any value."""
    return copy.deepcopy(_schema())


def is_shown(place: Place) -> bool:
    """Whether the value at a place may be printed: a single value of a known key that holds no secret."""
    found = _at(place)
    return found is not None and _is_harmless(found)


def is_secret(place: Place) -> bool:
    """Whether the key at a place is one for a secret."""
    found = _at(place)
    return found is not None and bool(found.get("writeOnly"))


@cache
def harmless_keys() -> frozenset[str]:
    """Keys that hold a single value and nowhere a secret."""
    seen: dict[str, bool] = {}
    for section in (_schema(), *_schema()["$defs"].values()):
        for key, value in section.get("properties", {}).items():
            seen[key] = seen.get(key, True) and _is_harmless(_resolved(value))
    return frozenset(key for key, harmless in seen.items() if harmless)


def keys_at(place: Place) -> list[str]:
    """The keys that a section may have."""
    return list((_at(place) or {}).get("properties", ()))


def _is_harmless(schema: dict[str, Any]) -> bool:
    if schema.get("type") == "array":
        return _is_harmless(schema["items"])
    return not schema.get("writeOnly") and schema.get("type") != "object"


@cache
def _schema() -> dict[str, Any]:
    """Kept in a file: making it takes a tenth of a second, and every command that reads a configuration looks at it."""
    found: dict[str, Any] = json.loads((files(__package__) / "schema.json").read_text(encoding="utf-8"))
    return found


def made() -> dict[str, Any]:
    """The schema as the settings' classes make it; a test holds the file to it."""
    made = _tidy(Settings.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "perfctl.yaml"}


def _tidy(schema: Any) -> Any:
    """Without the titles that repeat a key, and the defaults that only say that a key may be left out."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _tidy(each)
        for key, each in schema.items()
        if not (key == "title" and isinstance(each, str)) and not (key == "default" and each is None)
    }


def _at(place: Place) -> dict[str, Any] | None:
    here: dict[str, Any] | None = _schema()
    for step in place:
        if here is None:
            return None
        if isinstance(step, int):
            inner = here.get("items")
        else:
            inner = here.get("properties", {}).get(step) or here.get("additionalProperties")
        here = _resolved(inner) if isinstance(inner, dict) else None
    return here


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Behind ``$ref``, and behind an ``anyOf`` that only adds null."""
    if "$ref" in schema:
        return _schema()["$defs"][schema["$ref"].rpartition("/")[2]]  # type: ignore[no-any-return]
    branches = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return _resolved(branches[0]) if len(branches) == 1 else schema
