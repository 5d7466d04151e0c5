"""Keys by family: the same name with what tells one key from the next folded into `*`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

#: what stands for one thing of many wherever it is a whole part of a key
_IDENTIFIERS = rb"""
    \d+ |
    [0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12} |
    (?=[a-fA-F]*\d)[0-9a-fA-F]{8,} |
    [^DELIMITER{}@]+@[^DELIMITER{}]+ |
    [A-Za-z]+[_-](?=[A-Za-z]*\d)[0-9A-Za-z]+ |
    \d{4}-\d\d-\d\d[^DELIMITER{}]* |
    (?=[^DELIMITER{}]*\d)(?=[^DELIMITER{}]*[A-Z])(?=[^DELIMITER{}]*[a-z])[0-9A-Za-z_-]{16,}
"""

#: names that are kept in mind
_KNOWN = 10_000

#: one digit for all: what tells `user:41` from `user:42` tells nothing of their family
_DIGITS = bytes.maketrans(b"123456789", b"000000000")

#: so many different names at one place are identifiers too, whatever they look like
MANY = 50


def folder(delimiter: bytes) -> Callable[[bytes], bytes]:
    """A function that gives a key's family: `user:42:page:7` is of `user:*:page:*`."""
    # In the class of a regular expression, which takes one byte.
    inside = re.escape(delimiter[:1])
    body = _IDENTIFIERS.replace(b"DELIMITER", inside)
    found = re.compile(rb"(?:(?<=\{)|\A)(?:" + body + rb")(?=\}|\Z)", re.VERBOSE)
    # Most parts are numbers, or names that come again and again: the expression is for the few that are left.
    known: dict[bytes, bytes] = {}

    def folded(part: bytes) -> bytes:
        if part.isdigit():
            return b"*"
        if (before := known.get(part)) is not None:
            return before
        name = found.sub(b"*", part)
        if name == part and len(known) < _KNOWN:
            known[part] = part
        return name

    def slowly(key: bytes) -> bytes:
        return delimiter.join([folded(part) for part in key.split(delimiter)])

    # Of a family without a digit all keys that differ in digits alone are members, and they are looked up at once.
    alike: dict[bytes, bytes] = {}

    def family(key: bytes) -> bytes:
        shape = key.translate(_DIGITS)
        if (before := alike.get(shape)) is not None:
            return before
        name = slowly(key)
        if len(alike) < _KNOWN and name == name.translate(None, b"0123456789"):
            alike[shape] = name
        return name

    return family


def gathered(families: Mapping[bytes, int], delimiter: bytes, many: int = MANY) -> Counter[bytes]:
    """Families with places that hold ``many`` different names or more folded too, from the left."""
    rows = [(family.split(delimiter), keys) for family, keys in families.items()]
    depth = max((len(parts) for parts, _ in rows), default=0)
    for place in range(depth):
        names: defaultdict[tuple[bytes, ...], set[bytes]] = defaultdict(set)
        for parts, _ in rows:
            if place < len(parts):
                names[tuple(parts[:place])].add(parts[place])
        for parts, _ in rows:
            if place < len(parts) and len(names[tuple(parts[:place])]) >= many:
                parts[place] = b"*"
    out: Counter[bytes] = Counter()
    for parts, keys in rows:
        out[delimiter.join(parts)] += keys
    return out


def to_depth(families: Mapping[bytes, int], delimiter: bytes, depth: int | None) -> Counter[bytes]:
    """Families cut to their first parts; what is cut off stands as `…`."""
    out: Counter[bytes] = Counter()
    for family, keys in families.items():
        parts = family.split(delimiter)
        cut = depth is not None and len(parts) > depth
        out[delimiter.join([*parts[:depth], "…".encode()]) if cut else family] += keys
    return out
