"""Hot queries on disk and in the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perfctl.hotqueries.model import HotQuery, Problem
from perfctl.hotqueries.parse import Queries, from_config, parse, together


def load(
    folder: Path | None, inline: Sequence[tuple[Mapping[str, Any], str, int]] = (), files: Sequence[Path] = ()
) -> Queries:
    """The queries of a folder's ``.sql`` files, of single files, and of the configuration (each with file and line).

    What is wrong with a file, or in it, is among the problems.
    """
    queries: list[HotQuery] = []
    problems: list[Problem] = []
    for path in [*(sorted(folder.rglob("*.sql")) if folder else ()), *files]:
        match _read(path):
            case Problem() as problem:
                problems.append(problem)
            case text:
                found, bad = parse(text, file=_shown(path), stem=path.stem)
                queries += found
                problems += bad
    for given, file, line in inline:
        match from_config(given, file=file, line=line):
            case Problem() as problem:
                problems.append(problem)
            case query:
                queries.append(query)
    return together(queries, problems)


def _read(path: Path) -> str | Problem:
    try:
        content = path.read_bytes()
    except OSError as error:
        return Problem(path.stem, f"it cannot be read: {error.strerror}", _shown(path), 1)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Problem(path.stem, "it is not UTF-8", _shown(path), line, f"iconv -f LATIN1 -t UTF-8 {path.name}")


def _shown(path: Path) -> str:
    """As a person in the folder at hand calls it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
