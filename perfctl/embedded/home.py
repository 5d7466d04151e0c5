"""The folder that a server lives in.

When root starts a server for ``nobody``, the folder itself stays root's: whatever root writes there
(configuration, log) cannot be turned into a link to a file of the system by somebody who is ``nobody``
too. Only the data and the socket, where root writes nothing, belong to the account.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from perfctl.embedded.account import Account
from perfctl.errors import Refused, UsageError

#: A socket's path must fit sun_path: 108 bytes on Linux, 104 on macOS, the ending NUL included.
SOCKET_PATH_MAX = 103
_PREFIX = "perfctl-"


@dataclass(frozen=True, slots=True)
class Home:
    """Where one server lives, under which account, and how it is let in."""

    account: Account
    folder: Path
    socket_dir: Path
    tcp: bool
    password: str | None

    @property
    def data_dir(self) -> Path:
        """What the server itself writes."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The server's standard output and error."""
        return self.folder / "server.log"

    @property
    def folders(self) -> tuple[Path, ...]:
        """What goes away with the server."""
        inside = self.socket_dir.is_relative_to(self.folder)
        return (self.folder,) if inside else (self.folder, self.socket_dir)

    def write(self, name: str, text: str) -> Path:
        """Write a file that only the account can read, and only we can write; its path."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        self.account.let_in(path, 0o640)
        path.write_text(text, encoding="utf-8")
        return path


def new_folder(account: Account, parent: Path | None = None) -> Path:
    """A new folder of ours that only we and the account can enter.

    Without ``parent`` it is made in the temporary folder or, where the account cannot come to that
    one, in /tmp. Raises UsageError when the account cannot come to ``parent``.
    """
    parents = (parent,) if parent else (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))
    for candidate in parents:
        if account.can_reach(candidate, os.X_OK) and os.access(candidate, os.W_OK | os.X_OK):
            made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=candidate)).resolve()
            account.let_in(made, 0o710)
            return made
    raise out_of_reach(account, parents[0])


def kept_folder(account: Account, base_dir: Path, name: str) -> Path:
    """``base_dir``/``name``, made where it is missing, for a server that outlives us.

    Raises UsageError when the account cannot come there, Refused when it is somebody else's.
    """
    base_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not account.can_reach(base_dir, os.X_OK):
        raise out_of_reach(account, base_dir)
    folder = base_dir.resolve() / name
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            raise Refused(f'"{folder}" belongs to another user', hint="choose another folder") from None
    else:
        account.let_in(folder, 0o710)
    return folder


def socket_folder(account: Account, home: Path, longest_name: str) -> Path:
    """The account's private folder for sockets: in ``home`` when the path fits, otherwise in /tmp."""
    folder = home / "sock"
    if len(os.fsencode(folder / longest_name)) > SOCKET_PATH_MAX:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")).resolve()
    folder.mkdir(mode=0o700, exist_ok=True)
    account.own(folder)
    return folder


def out_of_reach(account: Account, folder: Path) -> UsageError:
    """The error for a folder that the server's account cannot use."""
    return UsageError(
        f'user "{account.name}", under which the server runs, cannot come to "{folder}"',
        hint="choose a folder whose parents everybody may enter, for example one under /tmp",
    )
