"""A data folder per PostgreSQL version, made by initdb once in this process and copied for each server.

Copying takes a fifth of initdb's time. All copies have one system identifier, which matters only to
physical replication between two of them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import threading
from pathlib import Path

from perfctl.embedded.account import Account
from perfctl.embedded.failures import NotStarted
from perfctl.embedded.find import Installation
from perfctl.embedded.guard import Guard, Launch
from perfctl.embedded.home import new_folder

_INITDB_WITHIN_S = 120.0
_ENDING = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))


class _Templates:
    """The data folders of this process; they are removed when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._guard: Guard | None = None
        self._home = Path()
        self._made: dict[Path, Path] = {}

    def get(self, installation: Installation, account: Account) -> Path:
        with self._lock:
            if self._guard is None or self._owner != os.getpid():
                # A forked child must not use folders that go away with its parent.
                self._home = new_folder(account)
                self._guard = Guard([self._home])
                self._made = {}
                self._owner = os.getpid()
            if installation.bindir not in self._made:
                folder = self._home / f"{installation.version}-{len(self._made)}"
                _initdb(installation, account, folder, self._guard)
                self._made[installation.bindir] = folder
            return self._made[installation.bindir]

    def close(self) -> None:
        """Remove the folders; the guard would do it too, but only after this process."""
        if self._guard is not None and self._owner == os.getpid():
            self._guard.close()
            self._guard = None


_TEMPLATES = _Templates()
atexit.register(_TEMPLATES.close)


def new_data_folder(installation: Installation, account: Account, folder: Path) -> None:
    """Make ``folder`` a data folder of the account: superuser postgres, C locale, UTF-8, trust.

    Raises NotStarted with what initdb said.
    """
    shutil.copytree(_TEMPLATES.get(installation, account), folder, symlinks=True)
    account.own_tree(folder)


def _initdb(installation: Installation, account: Account, folder: Path, guard: Guard) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    account.own(folder)
    argv = (
        str(installation.bindir / "initdb"),
        f"--pgdata={folder}",
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    )
    log = folder.with_name(f"{folder.name}.log")
    guard.start(Launch(argv, cwd=folder, log=log, account=account, stop=_ENDING))
    try:
        done = guard.ended(_INITDB_WITHIN_S)
    finally:
        guard.signal(signal.SIGKILL)
        guard.ended(5.0)
    if not done or guard.exit_code:
        raise NotStarted(
            f"initdb of PostgreSQL {installation.version} failed",
            log_tail=log.read_text(errors="replace")[-2000:],
        )
    # Taken back before it is copied: in a folder of the account, root could be led astray by a link.
    if account.dropped:
        os.chown(folder, os.geteuid(), os.getegid())
