"""pydantic's errors in plain words, at their places in the file. None of them holds a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from perfctl.config.document import Document
from perfctl.config.model import Settings
from perfctl.config.problem import dotted, nearest, plain_name
from perfctl.config.schema import Place, keys_at

_EXPECTED = {
    "model_type": "expected a section with keys of its own",
    "dict_type": "expected a section with keys of its own",
    "tuple_type": "expected a list such as [first, second]",
    "string_type": "expected text",
    "literal_error": "expected 1, the version of this format",
}
#: other systems' names for a key
_SYNONYMS = {"url": "dsn", "uri": "dsn", "dsn": "url", "database": "dbname", "name": "dbname", "username": "user"}
#: keys that are refused for a reason of their own
_REASONS = {"application_name": "perfctl sets it, so that its sessions can be told apart"}


def settings_from(document: Document, context: Mapping[str, Any]) -> Settings | None:
    """The settings in a document; None when they are not valid, and the document's problems say why."""
    targets = document.data.get("targets") if isinstance(document.data, dict) else None
    names = [*targets] if isinstance(targets, dict) else None
    try:
        return Settings.model_validate(document.data, context={**context, "names": names})
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    for each in found:
        place = tuple(each["loc"])
        if place not in document.told:
            _translate(document, place, each["type"], each.get("ctx", {}))
    return None


def _translate(document: Document, place: Place, kind: str, context: Mapping[str, Any]) -> None:
    if kind == "extra_forbidden":
        _unknown_key(document, place)
    elif kind == "missing":
        here = _section(place[:-1])
        document.add(place, f'missing key "{place[-1]}"{here}', on_key=True)
    elif kind == "perfctl":
        # pydantic's way to say that the key is wrong, and not its value.
        place = place[:-1] if place[-1:] == ("[key]",) else place
        document.blame(place, str(context["text"]), str(context["hint"]))
    else:
        document.blame(place, _EXPECTED.get(kind, "not a value that can stand here"))


def _unknown_key(document: Document, place: Place) -> None:
    name = str(place[-1])
    known = keys_at(place[:-1])
    synonym = _SYNONYMS.get(name)
    near = synonym if synonym in known else nearest(name, known)
    cure = _REASONS.get(name) or (f'did you mean "{near}"?' if near else "known here: " + ", ".join(known))
    document.add(place, f"unknown key {plain_name(name)}{_section(place[:-1])}", cure, on_key=True)


def _section(place: Place) -> str:
    return f" under {dotted(place)}" if place else ""
