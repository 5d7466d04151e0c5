"""The report as one JSON object; ``schema.json`` beside this file describes it."""

from __future__ import annotations

import json
from datetime import UTC
from importlib.resources import files
from typing import Any

from perfctl import __version__
from perfctl.report import SCHEMA_VERSION, Report


def render(report: Report) -> str:
    """One object, indented, with a line end."""
    return json.dumps(as_dict(report), indent=2, default=str) + "\n"


def as_dict(report: Report) -> dict[str, Any]:
    """The object that is printed, as plain values."""
    error = report.error
    return {
        "schema_version": SCHEMA_VERSION,
        "perfctl": __version__,
        "command": report.command,
        "target": report.target,
        "dry_run": report.dry_run,
        "started_at": report.started_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "duration_s": round(report.duration_s, 3),
        "exit_code": report.exit_code,
        "exit_name": report.exit_name,
        "counts": report.counts,
        "items": [
            {
                "kind": item.kind,
                "name": item.name,
                "status": str(item.status),
                "detail": item.detail,
                "remedy": item.remedy,
                "data": dict(item.data),
            }
            for item in report.items
        ],
        "notes": list(report.notes),
        "error": None
        if error is None
        else {
            "class": type(error).__name__,
            "message": report.error_message,
            "hint": report.error_hint,
        },
    }


def schema() -> dict[str, Any]:
    """The JSON Schema of the object."""
    text = (files(__package__) / "schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
