"""Redis's patterns: `*`, `?`, `[a-c]`, `[^x]`, `\\` before a character that stands for itself.

As in the servers' ``stringmatchlen`` (util.c), byte by byte: `*` takes in every byte, the delimiter and a newline too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = re.compile(rb"[*?\[\]\\]")
_NAME = re.compile(rb"[0-9A-Za-z]")


def escape(text: bytes) -> bytes:
    """A pattern that matches this text and no other."""
    return _SPECIAL.sub(lambda found: b"\\" + found[0], text)


def cut_off(pattern: bytes) -> bytes | None:
    """The literal text before a last `*` that cuts a name off in its middle, None for any other pattern.

    `user:1*` means user 1 more often than users 10 to 19; `user:1:*` and `user:*` say what they mean.
    """
    head = pattern[:-1]
    plain = re.sub(rb"\\(.)", rb"\1", head, flags=re.DOTALL)
    if not pattern.endswith(b"*") or _SPECIAL.search(re.sub(rb"\\.", b"", head, flags=re.DOTALL)):
        return None
    return plain if plain and _NAME.match(plain[-1:]) else None


def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """The same as a regular expression over the whole key. ValueError where servers differ in what it means."""
    pieces: list[list[bytes]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"*":
            pieces.append([])
        elif char == b"?":
            pieces[-1].append(b".")
        elif char == b"[":
            part, at = _bracket(pattern, at)
            pieces[-1].append(part)
        else:
            if char == b"\\" and at < len(pattern):
                char = pattern[at : at + 1]
                at += 1
            pieces[-1].append(re.escape(char))
    first, *rest = [b"".join(each) for each in pieces]
    if not rest:
        return re.compile(first, re.DOTALL)
    # What stands between two `*` is taken where it comes first, for good: to try all other places too would take
    # a time that grows with each `*` as many times over as the key is long.
    middle = b"".join(b"(?>.*?" + each + b")" for each in rest[:-1] if each)
    return re.compile(first + middle + b".*" + rest[-1], re.DOTALL)


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int]:
    """A class of bytes, and where it ends; one that is not closed ends with the pattern, as the servers have it."""
    inverted = pattern[at : at + 1] == b"^"
    at += inverted
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            at += 1
            members.add(pattern[at])
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            if high > 0x7F:
                # Compared as C's char, which has a sign on one machine and none on another.
                raise ValueError("a range within [] begins and ends with ASCII characters")
            members.update(range(low, high + 1))
            at += 2
        else:
            members.add(pattern[at])
        at += 1
    if not members:
        # Nothing is a member of an empty class; everything is of its opposite.
        return (b"." if inverted else b"(?!)"), at + 1
    listed = b"".join(re.escape(bytes([each])) for each in sorted(members))
    return b"[" + (b"^" if inverted else b"") + listed + b"]", at + 1


def of_family(family: bytes, ids: Sequence[bytes], delimiter: bytes) -> tuple[bytes, re.Pattern[bytes]]:
    """A pattern for the keys of a family with these identifiers, and what the whole key has to be.

    The identifiers take the places of `*` among the family's parts, from the left, and what is over goes behind it;
    a `*` that gets none stands for any one part. All else stands for itself, whatever characters it has. A key that
    goes on behind a delimiter belongs to the family too: `user:42` is `user:42:page` and not `user:421`.
    """
    left = list(ids)
    stop = re.escape(delimiter)
    globs: list[bytes] = []
    shapes: list[bytes] = []
    for part in family.removesuffix(delimiter + "…".encode()).split(delimiter):
        # A hash tag stays in its braces: `{*}`.
        pieces = [b"", b""] if part == b"*" else re.split(rb"(?<=\{)\*(?=\})", part)
        pattern, shape = escape(pieces[0]), re.escape(pieces[0])
        for piece in pieces[1:]:
            if left:
                own = left.pop(0)
                pattern, shape = pattern + escape(own), shape + re.escape(own)
            else:
                pattern, shape = pattern + b"*", shape + b"(?:(?!" + stop + b").)+"
            pattern, shape = pattern + escape(piece), shape + re.escape(piece)
        globs.append(pattern)
        shapes.append(shape)
    globs += [escape(each) for each in left]
    shapes += [re.escape(each) for each in left]
    whole = stop.join(shapes) + b"(?:" + stop + b".*)?"
    return escape(delimiter).join(globs) + b"*", re.compile(whole, re.DOTALL)
