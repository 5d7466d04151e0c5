"""Print which of the servers that the tests want are not on this machine, and what is not tried without them."""

from __future__ import annotations

import sys

from perfctl.embedded import MissingServer, find_postgres
from tests.fix_servers import MAJORS


def main() -> None:
    """One line for each version that is missing."""
    missing = 0
    for major in MAJORS:
        try:
            found = find_postgres(major)
            sys.stdout.write(f"PostgreSQL {found.version}: tried ({found.source})\n")
        except MissingServer as error:
            missing += 1
            sys.stdout.write(f"skipped: PostgreSQL {major} is not here: {error.message}\n")
    if not missing:
        sys.stdout.write("nothing was skipped for want of a server\n")


if __name__ == "__main__":
    main()
