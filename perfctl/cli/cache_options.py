"""The options of the cache commands, by the parameter's name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

#: Which keys are meant.
CHOICE: dict[str, Any] = {
    "family": Annotated[
        str | None,
        typer.Option("--family", metavar="NAME", help="Instead of a pattern: keys of this family, as user:*:page."),
    ],
    "id": Annotated[
        list[str] | None,
        typer.Option("--id", metavar="VALUE", help="Identifier in the family, escaped; it cannot widen it (repeat)."),
    ],
    "literal": Annotated[bool, typer.Option("--literal", help="PATTERN is a key's name, and no character a wildcard.")],
    "type": Annotated[str | None, typer.Option("--type", help="Only keys of this type: string, hash, …")],
    "exclude": Annotated[
        list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="But not these (repeat).")
    ],
    "ttl": Annotated[
        str | None,
        typer.Option("--ttl", metavar="RANGE", help="Only with so long to live: ..5m, 1h.., 5m..1h, or none."),
    ],
    "idle": Annotated[
        str | None, typer.Option("--idle", metavar="DURATION", help="Only if not touched for so long, as 2h.")
    ],
    "larger": Annotated[
        str | None, typer.Option("--larger", metavar="SIZE", help="Only if it takes more memory, as 1MB.")
    ],
    "delimiter": Annotated[
        str | None, typer.Option("--delimiter", help="What stands between the parts of a key's name: a colon.")
    ],
}

#: What a flush does with them, and how.
FLUSH: dict[str, Any] = {
    "all": Annotated[
        bool, typer.Option("--all", help="The whole database at once with FLUSHDB ASYNC; its target's name is asked.")
    ],
    "soft": Annotated[
        str | None, typer.Option("--soft", metavar="DURATION", help="Let them expire within it, each at its own time.")
    ],
    "backup": Annotated[
        str | None, typer.Option("--backup", metavar="FILE", help="Write keys with their values there before they go.")
    ],
    "max_key_size": Annotated[
        str | None, typer.Option("--max-key-size", metavar="SIZE", help="Leave larger keys; with --backup else 4MB.")
    ],
    "include_persistent": Annotated[
        bool, typer.Option("--include-persistent", help="Keys without TTL, and lists, streams, sorted sets too.")
    ],
    "max_keys": Annotated[int | None, typer.Option("--max-keys", min=1, help="Refuse when more match.")],
    "plan": Annotated[
        str | None, typer.Option("--plan", metavar="ID", help="Of a --dry-run: refuse when it has become another.")
    ],
    "passes": Annotated[
        int | None, typer.Option("--passes", min=1, help="Walks over all keys, else 2: the later find what came since.")
    ],
    "count": Annotated[
        int | None, typer.Option("--count", min=10, help="Keys a page, fixed; else about 500, by what a page takes.")
    ],
    "rate": Annotated[int | None, typer.Option("--rate", min=1, help="At most so many keys a second.")],
    "max_latency": Annotated[
        str | None,
        typer.Option(
            "--max-latency", metavar="DURATION", help="How much longer others may wait, else 2ms; 0s: no bound."
        ),
    ],
    "journal": Annotated[str | None, typer.Option("--journal", metavar="PATH", help="File of JSON lines.")],
    "force": Annotated[bool, typer.Option("--force", help="Although another flush holds the lock.")],
}
