"""One Report in several forms. Each form is one module; nothing here knows a server."""

from __future__ import annotations

from perfctl.errors import UsageError
from perfctl.report import Report

#: forms that ``--format`` and ``--report`` take, beside ``ndjson``, which is the events of a run
FORMATS = ("text", "json")


def to_text(report: Report, form: str) -> str:
    """The report in a form that needs no terminal. Raises UsageError for a form that there is none of."""
    if form == "json":
        from perfctl.render import json

        return json.render(report)
    if form == "text":
        from perfctl.render import plain

        return plain.render(report)
    raise UsageError(f'there is no report "{form}"', hint=f"known: {', '.join(FORMATS)}")
