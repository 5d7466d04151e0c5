"""A throw-away PostgreSQL: its data, its socket and its log in one folder that goes away with it."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote, urlencode

from perfctl.embedded.account import server_account, server_environment
from perfctl.embedded.failures import NotStarted
from perfctl.embedded.find import Installation, find_postgres
from perfctl.embedded.guard import Guard
from perfctl.embedded.home import Home, socket_folder
from perfctl.embedded.relocate import usable_by
from perfctl.embedded.server import Server, guarded, open_folder
from perfctl.embedded.template import new_data_folder
from perfctl.errors import Refused, UsageError

StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS: Mapping[StopMode, signal.Signals] = MappingProxyType(
    {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
)
_NOTHING: Mapping[str, str] = MappingProxyType({})
_DEFAULTS = MappingProxyType(
    {
        "max_connections": "100",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
        # The data is not meant to survive a crash of the machine, so nothing waits for the disk. What was
        # committed does survive a crash of the server, for which synchronous_commit has to stay on.
        "fsync": "off",
        "full_page_writes": "off",
        # In the data folder rather than in /dev/shm, where a crashed server would leave it for ever, and
        # where a container often has too little for a parallel query.
        "dynamic_shared_memory_type": "mmap",
    }
)
_SINGLE_WITHIN_S = 60


class PostgresServer(Server):
    """A running PostgreSQL. As a context manager it is stopped, and its folder removed, at the end."""

    kind = "PostgreSQL"
    ending = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
    port_taken = "could not bind"
    fixed_port = 5432

    def __init__(self, installation: Installation, home: Home, guard: Guard, settings: Mapping[str, str]) -> None:
        super().__init__(home, guard)
        self.installation = installation
        self._settings = dict(settings)

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """A URI that libpq and SQLAlchemy take: by unix socket or, for a server with tcp, by loopback.

        It holds the superuser's password where one is asked for.
        """
        name = quote(dbname, safe="")
        secret = f":{quote(self.password, safe='')}" if self.password and user == "postgres" else ""
        who = f"{quote(user, safe='')}{secret}"
        if self._home.tcp:
            return f"postgresql://{who}@127.0.0.1:{self.port}/{name}"
        # libpq does not read the plus sign, urlencode's own spelling, as a space.
        where = urlencode({"host": str(self.socket_dir), "port": self.port}, quote_via=quote)
        return f"postgresql://{who}@/{name}?{where}"

    def stop(self, mode: StopMode = "fast", timeout_s: float = 60.0) -> None:
        """Stop it and keep its data; nothing happens when it does not run. Raises Refused on time-out."""
        self._signal(_SIGNALS[mode], timeout_s)

    def restart(self, mode: StopMode = "fast", settings: Mapping[str, str] = _NOTHING) -> None:
        """Stop and start again, with ``settings`` on top of the former ones. Raises as stop and start do."""
        self.stop(mode)
        self._settings |= settings
        self.start()

    def remove(self) -> None:
        """Stop it and remove its folder. May be called again."""
        if not self.running:
            self._free_shared_memory()
        super().remove()

    def _free_shared_memory(self) -> None:
        """Give back the segment that a crashed postmaster left; its next start would, but there is none.

        Line 7 of postmaster.pid is the segment's key and id (src/include/utils/pidfile.h). The account may
        write that file, so it is the account that removes the segment.
        """
        lines = self._postmaster_file()
        words = lines[6].split() if len(lines) > 6 else []
        program = shutil.which("ipcrm")
        if program and len(words) == 2 and words[1].isdigit():
            argv = [program, "-m", words[1]]
            subprocess.run(argv, capture_output=True, check=False, **self._home.account.as_user())

    def _postmaster_file(self) -> list[str]:
        """What the postmaster has written about itself; it takes that away when it ends in order."""
        try:
            return (self.data_dir / "postmaster.pid").read_text(errors="replace").splitlines()
        except OSError:
            return []

    def _argv(self) -> tuple[str, ...]:
        program = str(self.installation.bindir / "postgres")
        return (program, "-D", str(self.data_dir), f"--config-file={self._home.folder / 'postgresql.conf'}")

    def _configure(self) -> None:
        where = {
            "listen_addresses": "127.0.0.1" if self._home.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            "hba_file": str(self._home.folder / "pg_hba.conf"),
        }
        # What initdb found out about the machine comes first, and what is ours last, where it wins.
        lines = [f"include {_quoted(str(self.data_dir / 'postgresql.conf'))}\n"]
        lines += [_setting(*each) for each in {**_DEFAULTS, **self._settings, **where}.items()]
        self._home.write("postgresql.conf", "".join(lines))

    def _accepts(self) -> bool:
        """Line 1 of postmaster.pid is the process, line 8 its state (src/include/utils/pidfile.h)."""
        lines = self._postmaster_file()
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")


def start_postgres(
    installation: Installation | None = None,
    *,
    settings: Mapping[str, str] = _NOTHING,
    base_dir: Path | None = None,
    tcp: bool = False,
    keep: bool = False,
    password: str | None = None,
    hba: str | None = None,
) -> PostgresServer:
    """A PostgreSQL that accepts connections; by default the best that ``find_postgres`` finds.

    It runs in a new folder, in ``base_dir`` where one is given, that is removed at the end, and it
    is stopped when this process ends in whatever way. With ``keep`` it lives in ``base_dir``/postgresql,
    on data that may be there already, and goes on after this process; ``stop_kept`` ends it.

    Without ``tcp`` it listens on a unix socket in a private folder, and trusts whoever can come there
    unless a password is given. With it, it listens on a free port of 127.0.0.1 and asks for a password,
    which is made up when none is given: every account of the machine can come to that port. ``hba``
    replaces the lines of pg_hba.conf.

    Raises MissingServer, NotStarted with the end of the log, UsageError for a setting or a folder
    that cannot be used, Refused when the folder's server runs already or is of another version.
    """
    account = server_account()
    installation = usable_by(account, installation or find_postgres())
    local = "trust" if password is None else "scram-sha-256"
    if tcp and password is None:
        password = secrets.token_urlsafe(18)
    folder = open_folder(PostgresServer.kind, account, base_dir, keep)
    fresh = not (folder / "data" / "PG_VERSION").exists()
    with guarded(folder, throw_away=fresh) as guard:
        socket_dir = socket_folder(account, folder, f".s.PGSQL.{PostgresServer.fixed_port}.lock")
        home = Home(account, folder, socket_dir, tcp, password)
        if socket_dir.parent != folder:
            guard.remove_too(socket_dir)
        if fresh:
            new_data_folder(installation, account, home.data_dir)
        _check_version(home, installation)
        if password is not None:
            _set_password(home, installation, password)
        rules = f"local all,replication all {local}\nhost all,replication all 127.0.0.1/32 scram-sha-256\n"
        home.write("pg_hba.conf", hba or rules)
        server = PostgresServer(installation, home, guard, settings)
        server.start()
        if keep and base_dir is not None:
            server.leave_running(base_dir)
    return server


def _check_version(home: Home, installation: Installation) -> None:
    made_by = (home.data_dir / "PG_VERSION").read_text().strip()
    if made_by != str(installation.major):
        raise Refused(
            f'the data in "{home.data_dir}" is of PostgreSQL {made_by}, not {installation.major}',
            hint="choose another folder",
        )


def _set_password(home: Home, installation: Installation, password: str) -> None:
    """Give the superuser a password while no server runs: it is on no command line and no socket."""
    if not password.isprintable():
        raise UsageError("a password may not hold control characters")
    literal = password.replace("'", "''")
    done = subprocess.run(
        [str(installation.bindir / "postgres"), "--single", "-D", str(home.data_dir), "postgres"],
        input=f"SET standard_conforming_strings = on;\nALTER ROLE postgres PASSWORD '{literal}';\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SINGLE_WITHIN_S,
        check=False,
        cwd="/",
        env=server_environment(),
        start_new_session=True,
        **home.account.as_user(),
    )
    if done.returncode or "ERROR:" in done.stdout or "FATAL:" in done.stdout:
        said = done.stdout.replace(literal, "***")
        raise NotStarted("the superuser's password could not be set", log_tail=said[-2000:])


def _setting(name: str, value: str) -> str:
    """One line of a configuration file. Raises UsageError for what cannot stand there."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$.]*", name) or "\n" in value or "\0" in value:
        raise UsageError(f'"{name}" cannot be set to {value!r}')
    return f"{name} = {_quoted(value)}\n"


def _quoted(value: str) -> str:
    doubled = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
