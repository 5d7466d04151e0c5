"""The operating-system account that a server runs under, and what that account can reach."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from perfctl.errors import UsageError


class AsUser(TypedDict, total=False):
    """Arguments of subprocess.Popen."""

    user: int
    group: int
    extra_groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group; ``dropped`` when it is not the one that perfctl runs under."""

    name: str
    uid: int
    gid: int
    dropped: bool

    def as_user(self) -> AsUser:
        """What makes subprocess run a program under the account."""
        if not self.dropped:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": ()}

    def own(self, path: Path) -> None:
        """Hand one file or folder of ours over to the account; nothing to do when it is our own.

        Raises UsageError where the system does not let us, as in a user namespace with one user.
        """
        if self.dropped:
            self._chown(path, self.uid)

    def own_tree(self, top: Path) -> None:
        """Hand a folder and all that is in it over to the account.

        The folder comes last: until then the account cannot enter it, and cannot put a link in our way.
        """
        if not self.dropped:
            return
        for folder, folders, files in os.walk(top, topdown=False):
            for name in (*folders, *files):
                self.own(Path(folder, name))
        self.own(top)

    def let_in(self, path: Path, mode: int) -> None:
        """Keep a file or folder of ours, and give the account's group the ``mode`` on it."""
        if self.dropped:
            self._chown(path, -1)
            path.chmod(mode)

    def _chown(self, path: Path, uid: int) -> None:
        try:
            os.chown(path, uid, self.gid, follow_symlinks=False)
        except OSError as error:
            raise UsageError(
                f'a server cannot run as root, and its files cannot be given to user "{self.name}": {error}',
                hint="run perfctl as a normal user",
            ) from error

    def can_reach(self, path: Path, bits: int = os.R_OK) -> bool:
        """Whether the account can come to ``path`` through all its parents and has ``bits`` on it."""
        if not self.dropped:
            return os.access(path, bits)
        where = path.resolve()
        return all(self._may(parent, os.X_OK) for parent in where.parents) and self._may(where, bits)

    def _may(self, path: Path, bits: int) -> bool:
        """Whether the account has ``bits`` (os.R_OK, W_OK, X_OK) on this one file or folder.

        Only the mode is looked at; an access list can widen it, which costs at most a needless copy.
        """
        try:
            found = path.stat()
        except OSError:
            return False
        if found.st_uid == self.uid:
            granted = found.st_mode >> 6
        elif found.st_gid == self.gid:
            granted = found.st_mode >> 3
        else:
            granted = found.st_mode
        return granted & bits == bits


def server_account() -> Account:
    """Our own account or, for root, ``nobody``: PostgreSQL refuses to run as root.

    Raises UsageError when perfctl runs as root and the system has no user ``nobody``.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(name=str(uid), uid=uid, gid=os.getegid(), dropped=False)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise UsageError(
            'an embedded server cannot run as root, and there is no user "nobody" to run it as',
            hint="run perfctl as a normal user",
        ) from None
    return Account(name="nobody", uid=entry.pw_uid, gid=entry.pw_gid, dropped=True)


def server_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a server's programs: English messages and none of our PG* variables.

    LD_LIBRARY_PATH stays, because a PostgreSQL that was built by hand may need it.
    """
    kept = {name: environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", "TZ": "UTC"}
