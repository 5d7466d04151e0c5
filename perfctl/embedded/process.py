"""Signals for a server that is known only by its process id and the folder that it works in."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from perfctl.errors import Denied

_LOOK_EVERY_S = 0.01


def stop_process(pid: int, data_dir: Path, stop: Sequence[tuple[int, float]]) -> bool:
    """Signal a server until it is gone; True when it is, also when it was gone before.

    The working folder is looked at before each signal, so that a process that has got the number
    of a server long gone is left alone. Raises Denied when the server is another user's.
    """
    for signum, seconds in stop:
        if not _signal(pid, data_dir, signum) or wait_gone(pid, data_dir, seconds):
            return True
    return not is_server(pid, data_dir)


def wait_gone(pid: int, data_dir: Path, timeout_s: float) -> bool:
    """Wait for a server that is no child of ours; False when it is still there after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while is_server(pid, data_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def is_server(pid: int, data_dir: Path) -> bool:
    """Whether this process exists, has not ended, and works in ``data_dir``.

    Raises Denied when that cannot be seen because server and data are another user's.
    """
    if pid <= 0:
        return False
    if not Path("/proc/self/cwd").exists():
        return _is_server_by_lsof(pid, data_dir)
    proc = Path("/proc", str(pid))
    try:
        # One that has ended but was not waited for has no working folder any more.
        return (proc / "cwd").readlink() == data_dir
    except PermissionError:
        if proc.stat().st_uid != data_dir.stat().st_uid:
            return False
        raise Denied(f"process {pid} is a server of another user", hint="run perfctl as that user") from None
    except OSError:
        return False


def _is_server_by_lsof(pid: int, data_dir: Path) -> bool:
    """The same where there is no /proc, as on macOS."""
    argv = ["lsof", "-a", "-p", str(pid), "-d", "cwd", "-F", "n"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return f"n{data_dir}" in said.splitlines()


def _signal(pid: int, data_dir: Path, signum: int) -> bool:
    """Send a signal to the server; False when it is gone."""
    if not hasattr(os, "pidfd_open"):
        if not is_server(pid, data_dir):
            return False
        os.kill(pid, signum)
        return True
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return False
    try:
        # The handle is of one process for ever: after this look the number cannot change hands.
        if not is_server(pid, data_dir):
            return False
        signal.pidfd_send_signal(handle, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
