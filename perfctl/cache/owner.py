"""Who runs this, for whoever reads it elsewhere."""

from __future__ import annotations

import getpass
import os
import socket


def whoami() -> str:
    """``user@host``; in a container a user may have a number alone."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
