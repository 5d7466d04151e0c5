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

#: Parts of a key that are told apart, whatever is behind them: a key may be a megabyte of delimiters.
_PARTS = 32

#: longer parts and keys are not kept in mind
_LONG = 200

#: what stands for what is left out
_MORE = "…".encode()

#: Among many names one is no identifier that has so much of the keys there, and so many times as much as most have.
_LARGE = 0.01
_OUTSTANDING = 5


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
        if name == part and len(known) < _KNOWN and len(part) <= _LONG:
            known[part] = part
        return name

    def slowly(key: bytes) -> bytes:
        parts = key.split(delimiter, _PARTS)
        if len(parts) > _PARTS:
            return delimiter.join([*map(folded, parts[:_PARTS]), _MORE])
        return delimiter.join(map(folded, parts))

    # Of a family without a digit all keys that differ in digits alone are members, and they are looked up at once.
    alike: dict[bytes, bytes] = {}

    def family(key: bytes) -> bytes:
        if len(key) > _LONG:
            return slowly(key)
        shape = key.translate(_DIGITS)
        if (before := alike.get(shape)) is not None:
            return before
        name = slowly(key)
        if len(alike) < _KNOWN and name == name.translate(None, b"0123456789"):
            alike[shape] = name
        return name

    return family


def gathered(families: Mapping[bytes, int], delimiter: bytes, many: int = MANY, prefix: bytes = b"") -> Counter[bytes]:
    """Families with places that hold ``many`` different names or more folded too, from the left; see ``names``."""
    out: Counter[bytes] = Counter()
    for family, name in names(families, delimiter, many, prefix).items():
        out[name] += families[family]
    return out


def names(
    families: Mapping[bytes, float], delimiter: bytes, many: int = MANY, prefix: bytes = b""
) -> dict[bytes, bytes]:
    """What each family, given with its keys, is called once places that hold ``many`` different names are folded too.

    A name that stands out there stays, for it is none of many alike, and so do the parts of ``prefix``.
    """
    rows = [(family, family.split(delimiter), keys) for family, keys in families.items()]
    own = folder(delimiter)(prefix.removesuffix(delimiter)).split(delimiter) if prefix else []
    # By row: what its parts up to here are called, as a number.
    path = [0] * len(rows)
    own_path: int | None = 0
    place = 0
    left = list(range(len(rows)))
    while left := [row for row in left if place < len(rows[row][1])]:
        found: defaultdict[int, defaultdict[bytes, float]] = defaultdict(lambda: defaultdict(float))
        for row in left:
            _, parts, keys = rows[row]
            found[path[row]][parts[place]] += keys
        of_own = own[place] if own_path is not None and place < len(own) else None
        stay = {
            each: _outstanding(keys) | ({of_own} if of_own is not None and each == own_path else set())
            for each, keys in found.items()
            if len(keys) >= many
        }
        numbers: dict[tuple[int, bytes], int] = {}
        own_next = None
        for row in left:
            parts, before = rows[row][1], path[row]
            if before in stay and parts[place] not in stay[before]:
                parts[place] = b"*"
            path[row] = numbers.setdefault((before, parts[place]), len(numbers))
            if of_own is not None and before == own_path and parts[place] == of_own:
                own_next = path[row]
        own_path = own_next
        place += 1
    return {family: delimiter.join(parts) for family, parts, _ in rows}


def _outstanding(names: Mapping[bytes, float]) -> set[bytes]:
    """Of many names those that have far more keys than most."""
    usual = sorted(names.values())[(len(names) - 1) // 2]
    least = max(_LARGE * sum(names.values()), _OUTSTANDING * usual)
    return {name for name, keys in names.items() if keys >= least}


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
    return delimiter.join([*parts[:depth], _MORE])
