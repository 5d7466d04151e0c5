"""A definition as PostgreSQL prints it, without the names: what two indexes have in common when they are the same."""

from __future__ import annotations

import re

_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^"\s.]+)'
_HEAD = re.compile(rf"CREATE (UNIQUE )?INDEX {_IDENTIFIER} ON (?:ONLY )?{_IDENTIFIER}(?:\.{_IDENTIFIER})? (?=USING )")
_STATISTICS_HEAD = re.compile(rf"CREATE STATISTICS {_IDENTIFIER}(?:\.{_IDENTIFIER})? ")
_STATISTICS_FROM = re.compile(rf" FROM {_IDENTIFIER}(?:\.{_IDENTIFIER})?$")

_QUOTED = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
_ARRAY = "(ARRAY["
_ARRAYS = re.compile(rf"{_QUOTED}|{re.escape(_ARRAY)}")
_TOKENS = re.compile(rf"{_QUOTED}|[(\[]|[)\]]|, |.", re.DOTALL)
_CAST = re.compile(r'\]\)::((?:"(?:[^"]|"")*"|[\w. ])+(?:\([\d,]+\))?)\[\]')


def canonical_text(definition: str) -> str:
    """What is left of ``pg_get_indexdef`` without the names: ``UNIQUE USING btree (…) …``.

    An array that is cast is told as one whose elements are: PostgreSQL prints ``c IN ('x', 'y')`` of a varchar as the
    first, and reads that, as a restored dump has it, as the second.
    """
    return _casts_on_elements(_HEAD.sub(lambda found: found[1] or "", definition, count=1))


def statistics_text(definition: str) -> str:
    """What is left of ``pg_get_statisticsobjdef`` without the names."""
    return _casts_on_elements(_STATISTICS_FROM.sub("", _STATISTICS_HEAD.sub("", definition)))


def _casts_on_elements(text: str) -> str:
    """``(ARRAY[a, b])::text[]`` as ``ARRAY[(a)::text, (b)::text]``, wherever it stands outside a string."""
    if _ARRAY not in text:
        return text
    told, at = "", 0
    while found := _ARRAYS.search(text, at):
        told += text[at : found.start()]
        at = found.end()
        elements, end = _elements(text, at) if found[0] == _ARRAY else ([], at)
        cast = _CAST.match(text, end) if elements else None
        if cast is None:
            told += found[0]
            continue
        told += f"ARRAY[{', '.join(f'({_casts_on_elements(each)})::{cast[1]}' for each in elements)}]"
        at = cast.end()
    return told + text[at:]


def _elements(text: str, start: int) -> tuple[list[str], int]:
    """The elements of the array that begins there, and where its closing bracket stands."""
    elements, begin, depth = [], start, 0
    for token in _TOKENS.finditer(text, start):
        if token[0] == ", " and not depth:
            elements.append(text[begin : token.start()])
            begin = token.end()
        elif token[0] in ("(", "["):
            depth += 1
        elif token[0] in (")", "]"):
            if not depth:
                return [*elements, text[begin : token.start()]], token.start()
            depth -= 1
    return [], len(text)
