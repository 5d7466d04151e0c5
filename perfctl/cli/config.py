"""``perfctl config``: what is in force, where it comes from, and what may be written."""

from __future__ import annotations

import typer

from perfctl.cli.options import command
from perfctl.cli.session import Session
from perfctl.report import Item, Report, Status

app = typer.Typer(name="config", help="Show and check the configuration.", no_args_is_help=True, rich_markup_mode=None)


@command(app, "show", group="config", server=False)
def show(session: Session) -> Report:
    """Print every value in force with where it comes from; secrets are masked."""
    loaded = session.loaded
    shown = loaded.shown()
    width = min(60, max((len(value) for _, value, _ in shown), default=0))
    items = [
        Item("setting", key, Status.OK, f"{value:<{width}}  {origin}", data={"value": value, "origin": origin})
        for key, value, origin in shown
    ]
    return session.report(items, notes=[f"configuration: {loaded.path or 'none; the environment says it all'}"])


@command(app, "validate", group="config", server=False)
def validate(session: Session) -> Report:
    """Check the file; every mistake is reported with its line, all in one run."""
    loaded = session.loaded
    items = []
    for name, target in loaded.settings.targets.items():
        for server in (target.database, target.pgbouncer):
            if server is not None:
                # Only libpq can tell whether every word of an address is one that it knows.
                server.conninfo()
        items.append(Item("target", name, Status.OK, "protected" if target.protected else ""))
    items += [Item("warning", str(loaded.path), Status.FINDING, warning) for warning in loaded.warnings]
    return session.report(items, notes=[f"configuration: {loaded.path or 'none; the environment says it all'}"])


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of perfctl.yaml, for an editor."""
    import json

    from perfctl.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
