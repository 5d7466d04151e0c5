"""The command line. ``main`` is the one place where an error ends the process."""

from __future__ import annotations

import gc
import os
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
    _mend_streams()
    _start_quickly()
    from perfctl.cli.app import run

    run(arguments)


def _mend_streams() -> None:
    """Streams that can be written to: one may be closed, or take ASCII alone, and neither is to end a run half-way."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Not by the lowest number that is free, which a socket could get next.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _start_quickly() -> None:
    """Loading makes tens of thousands of objects that all stay: looking for garbage among them is a tenth of it."""
    gc.set_threshold(50_000)
    # Nor are there plugins to be looked for among everything that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
