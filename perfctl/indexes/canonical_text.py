"""A definition as PostgreSQL prints it, without the names: what two indexes have in common when they are the same."""

from __future__ import annotations

import re

_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^"\s.]+)'
_HEAD = re.compile(rf"CREATE (UNIQUE )?INDEX {_IDENTIFIER} ON (?:ONLY )?{_IDENTIFIER}(?:\.{_IDENTIFIER})? (?=USING )")
_STATISTICS_HEAD = re.compile(rf"CREATE STATISTICS {_IDENTIFIER}(?:\.{_IDENTIFIER})? ")
_STATISTICS_FROM = re.compile(rf" FROM {_IDENTIFIER}(?:\.{_IDENTIFIER})?$")


def canonical_text(definition: str) -> str:
    """What is left of ``pg_get_indexdef`` without the names: ``UNIQUE USING btree (…) …``."""
    return _HEAD.sub(lambda found: found[1] or "", definition, count=1)


def statistics_text(definition: str) -> str:
    """What is left of ``pg_get_statisticsobjdef`` without the names."""
    return _STATISTICS_FROM.sub("", _STATISTICS_HEAD.sub("", definition))
