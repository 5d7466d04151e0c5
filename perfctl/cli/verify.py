"""``perfctl verify``: everything that the configuration names, in one line."""

from __future__ import annotations

import typer

from perfctl.cli.options import command
from perfctl.cli.session import Session
from perfctl.report import Report


def add_to(app: typer.Typer) -> None:
    """Register the command."""

    @command(app, "verify")
    def verify(session: Session) -> Report:
        """Check everything that the configuration names: the one line for CI."""
        from perfctl import verify as parts
        from perfctl.servers import http

        sources = parts.Sources(
            session.loaded, session.target, session.postgres, session.cache, session.timeout_s or http.TIMEOUT_S
        )
        items, notes = parts.verify(sources)
        return session.report(items, notes=notes)
