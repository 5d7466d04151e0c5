"""The command line. ``main`` is the one place where an error ends the process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from perfctl import __version__


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        # Answered before anything else is imported: shells and package managers ask it often.
        sys.stdout.write(f"perfctl {__version__}\n")
        return
    from perfctl.cli.app import run

    run(arguments)
