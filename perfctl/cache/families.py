"""Keys by family: the same name with what tells one key from the next folded into `*`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

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
    out: Counter[bytes] = Counter()
    for family, name in names(families, delimiter, many).items():
        out[name] += families[family]
    return out


def names(families: Iterable[bytes], delimiter: bytes, many: int = MANY) -> dict[bytes, bytes]:
    """What each family is called once places that hold ``many`` different names or more are folded too."""
    rows = [(family, family.split(delimiter)) for family in families]
    depth = max((len(parts) for _, parts in rows), default=0)
    for place in range(depth):
        found: defaultdict[tuple[bytes, ...], set[bytes]] = defaultdict(set)
        for _, parts in rows:
            if place < len(parts):
                found[tuple(parts[:place])].add(parts[place])
        for _, parts in rows:
            if place < len(parts) and len(found[tuple(parts[:place])]) >= many:
                parts[place] = b"*"
    return {family: delimiter.join(parts) for family, parts in rows}


def to_depth(families: Mapping[bytes, int], delimiter: bytes, depth: int | None) -> Counter[bytes]:
    """Families cut to their first parts; what is cut off stands as `…`."""
    out: Counter[bytes] = Counter()
    for family, keys in families.items():
        out[cut(family, delimiter, depth)] += keys
    return out


def cut(family: bytes, delimiter: bytes, depth: int | None) -> bytes:
    """A family's first parts; what is cut off stands as `…`."""
    parts = family.split(delimiter)
    if depth is None or len(parts) <= depth:
        return family
    return delimiter.join([*parts[:depth], "…".encode()])
