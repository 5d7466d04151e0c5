"""Hot queries on disk and in the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perfctl.errors import UsageError
from perfctl.hotqueries.model import HotQuery, Problem
from perfctl.hotqueries.parse import Queries, from_config, parse, together


def load(
    folder: Path | None, inline: Sequence[tuple[Mapping[str, Any], str, int]] = (), files: Sequence[Path] = ()
) -> Queries:
    """The queries of a folder's ``.sql`` files, of single files, and of the configuration (each with file and line).

    Raises UsageError for a folder or a file that cannot be read; what is wrong in a file is among the problems.
    """
    queries: list[HotQuery] = []
    problems: list[Problem] = []
    for path in [*(sorted(folder.rglob("*.sql")) if folder else ()), *files]:
        found, bad = parse(_read(path), file=str(path), stem=path.stem)
        queries += found
        problems += bad
    for given, file, line in inline:
        match from_config(given, file=file, line=line):
            case Problem() as problem:
                problems.append(problem)
            case query:
                queries.append(query)
    return together(queries, problems)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f'query file "{path}" cannot be read: {error.strerror}') from error
    except UnicodeDecodeError:
        raise UsageError(f'query file "{path}" is not UTF-8') from None
