"""Mistakes that keep a file from being YAML, in plain words.

pyyaml's own words are never shown: some quote the file. Where the tree of keys and values is
missing, only what is surely harmless on a line is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from perfctl.config.problem import Problem, Span
from perfctl.config.schema import harmless_keys


def guessed_spans(lines: Sequence[str]) -> list[Span]:
    """What may be shown of a file that is not YAML: words before a colon, and values of harmless keys."""
    spans = []
    for number, line in enumerate(lines):
        found = re.match(r"\s*(?:- +)?([\w.-]+)[ \t]*:(?=\s|$)\s*", line)
        value_at = found.end() if found else 0
        if found:
            spans.append(Span(number, found.start(1), number, found.end(1)))
        if rest := line[value_at:].strip():
            shown = bool(found and found[1] in harmless_keys() and not re.search(r"[:#@{]", rest))
            spans.append(Span(number, value_at, number, len(line), shown))
    return spans


def tabs_in(lines: Sequence[str]) -> list[Problem]:
    """Indentation with tabs, which YAML forbids and pyyaml sometimes takes for part of a value."""
    found = []
    for number, line in enumerate(lines):
        indent = line[: len(line) - len(line.lstrip(" \t"))]
        if "\t" in indent and not line[len(indent) :].startswith(("#", "")[: 1 + (not line.strip())]):
            at = indent.index("\t")
            found.append(Problem("a tab in the indentation", Span(number, at, number, at + 1), ("indent with spaces",)))
    return found


#: pyyaml's words for a mistake → plain ones. pyyaml's are never shown: some quote the file.
_SYNTAX: tuple[tuple[str, str, str], ...] = (
    ("mapping values", 'a ":" where no key can be', 'check the indentation, or quote a value that holds ": "'),
    (r"found character '\\t'", "a tab", "use spaces"),
    ("found character .* cannot start", "a value cannot begin with this character", "put the value in quotes"),
    ("could not find expected ':'", 'expected "key: value"', ""),
    ("found unexpected (end of|document)", "a quote is opened and not closed", ""),
    ("(expected|did not find expected) ','", 'expected "," or the bracket that closes this', ""),
    ("expected the node content", "expected a value", 'a "{" or "[" may be missing its end'),
    ("expected <block end>", "the indentation fits nothing above it, or text follows a closed quote", ""),
    ("found unknown escape", "an unknown escape in double quotes", "use single quotes"),
    (".*alias", "an alias (*name) without its anchor (&name)", "put a value that begins with * in quotes"),
    (".*tag", "tags are not used in this file", "put a value that begins with ! in quotes"),
    ("but found another document", "expected a single document", 'remove the "---"'),
    ("(found duplicate|second occurrence)", "an anchor (&name) that is given twice", ""),
)


def syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    """What is wrong, where pyyaml gave up."""
    mark = error.problem_mark or error.context_mark
    found = (told for pattern, *told in _SYNTAX if re.match(pattern, str(error.problem)))
    text, cure = next(found, ["not valid YAML", ""])
    span = Span(mark.line, mark.column, mark.line, mark.column + 1) if mark else None
    return Problem(text, span, (cure,) if cure else ())


def unreadable_problem(text: str, error: yaml.reader.ReaderError) -> Problem:
    """A character that YAML does not allow."""
    before = text[: error.position]
    line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
    code = ord(text[error.position])
    return Problem(f"a control character (U+{code:04X})", Span(line, column, line, column + 1))
