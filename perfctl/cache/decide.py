"""What speaks against a flush, by its consequence and not by how its pattern is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perfctl.cache.items import types, without_ttl
from perfctl.cache.model import Look

#: More of a database than this is hardly a part of it.
LARGE_SHARE = 0.5

#: Data structures that hold work or state rather than copies.
NO_CACHE = ("stream", "list", "zset")


@dataclass(frozen=True, slots=True)
class Guard:
    """One reason to ask again, and what opens it where nobody can be asked."""

    text: str
    opened_by: Literal["--confirm", "--include-persistent"]


def guards(look: Look) -> list[Guard]:
    """What a person has to know before these keys go."""
    if not look.matched:
        return []
    found = []
    share = look.matched / max(look.keys, look.matched)
    if share > LARGE_SHARE:
        found.append(Guard(f"it is {share:.0%} of all keys", "--confirm"))
    forever = without_ttl(look)
    if forever.value:
        found.append(Guard(f"keys without TTL, which nothing brings back by itself: {forever}", "--include-persistent"))
    for name, part in types(look):
        if name in NO_CACHE:
            found.append(Guard(f"keys of type {name}, which is no cache's: {part}", "--include-persistent"))
    return found
