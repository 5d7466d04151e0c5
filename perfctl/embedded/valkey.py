"""A throw-away Valkey (or Redis): its socket and its log in one folder that goes away with it."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from perfctl.embedded.account import server_account
from perfctl.embedded.find import find_valkey
from perfctl.embedded.guard import Guard
from perfctl.embedded.home import Home, socket_folder
from perfctl.embedded.relocate import program_usable_by
from perfctl.embedded.server import Server, guarded, open_folder
from perfctl.errors import UsageError

_SOCKET = "valkey.sock"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_DEFAULTS = MappingProxyType({"save": "", "appendonly": "no"})


class ValkeyServer(Server):
    """A running Valkey. As a context manager it is stopped, and its folder removed, at the end."""

    kind = "Valkey"
    ending = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
    port_taken = "Address already in use"

    def __init__(self, program: Path, home: Home, guard: Guard, settings: Mapping[str, str]) -> None:
        super().__init__(home, guard)
        self.program = program
        self._settings = dict(settings)

    @property
    def url(self) -> str:
        """For redis-py: by unix socket or, for a server with tcp, by loopback; with its password."""
        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        if self._home.tcp:
            return f"redis://{secret}127.0.0.1:{self.port}/0"
        return f"unix://{secret}{quote(str(self.socket_path))}?db=0"

    @property
    def socket_path(self) -> Path:
        """The unix socket; a server with tcp has it too."""
        return self.socket_dir / _SOCKET

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop it; nothing happens when it does not run. Raises Refused on time-out."""
        self._signal(signal.SIGTERM, timeout_s)

    def restart(self, settings: Mapping[str, str] = _NOTHING) -> None:
        """Stop and start again, with ``settings`` on top of the former ones. Raises as stop and start do."""
        self.stop()
        self._settings |= settings
        self.start()

    def _argv(self) -> tuple[str, ...]:
        return (str(self.program), str(self._home.folder / "valkey.conf"))

    def _configure(self) -> None:
        """Write the configuration: a file, because a password on a command line is seen by all."""
        settings = {**_DEFAULTS, **self._settings}
        own = {
            "daemonize": "no",
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            **({"requirepass": self.password} if self.password else {}),
        }
        lines = [_setting(name, *value.split()) for name, value in settings.items()]
        lines += [_setting(name, value) for name, value in own.items()]
        self._home.write("valkey.conf", "".join(lines))

    def _accepts(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(1.0)
                line.connect(str(self.socket_path))
                line.sendall(b"PING\r\n")
                return line.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def start_valkey(
    *,
    settings: Mapping[str, str] = _NOTHING,
    base_dir: Path | None = None,
    tcp: bool = False,
    keep: bool = False,
    binary: Path | None = None,
    password: str | None = None,
) -> ValkeyServer:
    """A Valkey that answers; without persistence unless ``settings`` ask for it.

    It runs in a new folder, in ``base_dir`` where one is given, that is removed at the end, and it
    is stopped when this process ends in whatever way. With ``keep`` it lives in ``base_dir``/valkey
    and goes on after this process; ``stop_kept`` ends it.

    With ``tcp`` it also listens on a free port of 127.0.0.1, and asks for a password, which is made
    up when none is given: every account of the machine can come to that port.

    Raises MissingServer, NotStarted with the end of the log, UsageError for a setting or a folder
    that cannot be used, Refused when the folder's server runs already.
    """
    account = server_account()
    program = program_usable_by(account, binary or find_valkey())
    if tcp and password is None:
        password = secrets.token_urlsafe(18)
    folder = open_folder(ValkeyServer.kind, account, base_dir, keep)
    fresh = not (folder / "data").exists()
    with guarded(folder, throw_away=fresh) as guard:
        socket_dir = socket_folder(account, folder, _SOCKET)
        home = Home(account, folder, socket_dir, tcp, password)
        if socket_dir.parent != folder:
            guard.remove_too(socket_dir)
        if fresh:
            home.data_dir.mkdir(mode=0o700)
            account.own(home.data_dir)
        server = ValkeyServer(program, home, guard, settings)
        server.start()
        if keep and base_dir is not None:
            server.leave_running(base_dir)
    return server


def _setting(name: str, *values: str) -> str:
    """One line of a configuration file. Raises UsageError for what cannot stand there."""
    if not name.replace("-", "").isalnum() or not all(value.isprintable() for value in values):
        raise UsageError(f'"{name}" cannot be set to {" ".join(values)!r}')
    escaped = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values or ("",)]
    return " ".join((name, *(f'"{value}"' for value in escaped))) + "\n"
