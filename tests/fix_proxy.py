"""A TCP proxy in front of a server that goes deaf or drops its connections when told to; one for PostgreSQL."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.fix_servers import Database

_CHUNK = 65536
_LOOK_EVERY_S = 0.05
_END_WITHIN_S = 10.0


@dataclass(slots=True, eq=False)
class Link:
    """One connection of a client, and the one to the server that belongs to it, once that is made."""

    near: socket.socket
    far: socket.socket | None = None
    cut: bool = False
    forgotten: bool = False
    #: when something last went through
    heard: float = field(default_factory=time.monotonic)


class Relay(ABC):
    """A TCP port of 127.0.0.1 whose bytes go to a server and back."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        # Closing a socket does not wake a thread that waits in accept().
        self._listener.settimeout(_LOOK_EVERY_S)
        self._changed = threading.Condition()
        self._deaf = False
        self._closed = False
        self._links: set[Link] = set()
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        with self._changed:
            return len(self._links)

    def deafen(self) -> None:
        """Forward nothing any more, the end of a connection included; clients still connect."""
        with self._changed:
            self._deaf = True

    def hear(self) -> None:
        """Forward again, what came in the meantime first."""
        with self._changed:
            self._deaf = False
            self._changed.notify_all()

    def drop(self) -> None:
        """End every connection at once on both sides, by FIN; new ones are taken."""
        with self._changed:
            for link in self._links:
                self._cut(link)
            self._changed.notify_all()

    def forget_most_silent(self) -> None:
        """Forward nothing any more on the connection that has been silent longest, as a NAT does: neither end hears."""
        with self._changed:
            min(self._links, key=lambda link: link.heard).forgotten = True

    def close(self) -> None:
        """End all of it."""
        with self._changed:
            self._closed = True
        self._threads[0].join(_END_WITHIN_S)
        self.drop()
        for thread in self._threads:
            thread.join(_END_WITHIN_S)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                link = Link(self._listener.accept()[0])
                with self._changed:
                    self._links.add(link)
                thread = threading.Thread(target=self._serve, args=(link,), name="proxy link", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, link: Link) -> None:
        """Forward both ways until both ends have ended."""
        with link.near:
            if self._passes(link):
                with contextlib.suppress(OSError), self._reach() as far:
                    with self._changed:
                        link.far = far
                        if link.cut:
                            far.shutdown(socket.SHUT_RDWR)
                    back = threading.Thread(target=self._forward, args=(link, far, link.near), daemon=True)
                    back.start()
                    self._forward(link, link.near, far)
                    back.join()
            with self._changed:
                self._links.discard(link)

    @abstractmethod
    def _reach(self) -> socket.socket:
        """A connection to the server."""

    def _forward(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(_CHUNK):
                if not self._passes(link):
                    return
                link.heard = time.monotonic()
                sink.sendall(self._altered(link, data, to_server=source is link.near))
            if self._passes(link):
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            # One side broke off: the other must not wait for it for ever.
            with self._changed:
                self._cut(link)

    def _altered(self, link: Link, data: bytes, to_server: bool) -> bytes:  # noqa: ARG002 - for those that alter
        """What goes on in place of ``data``: the same, unless a proxy is one that alters."""
        return data

    def _passes(self, link: Link) -> bool:
        """Wait until bytes are forwarded; False when the connection was cut before."""
        with self._changed:
            self._changed.wait_for(lambda: link.cut or not (self._deaf or link.forgotten))
            return not link.cut

    @staticmethod
    def _cut(link: Link) -> None:
        """End both sides; the thread that serves the connection closes them."""
        link.cut = True
        for side in (link.near, link.far):
            # One that has ended already cannot be shut down.
            with contextlib.suppress(OSError):
                if side is not None:
                    side.shutdown(socket.SHUT_RDWR)


class Proxy(Relay):
    """A proxy in front of the server of a database; libpq makes the same error of FIN, by which it drops, as of RST."""

    def __init__(self, database: Database) -> None:
        self._told = conninfo_to_dict(database.dsn)
        super().__init__()

    @property
    def dsn(self) -> str:
        """A URI that connects to the same database as the same user, through the proxy."""
        return self.dsn_of(str(self._told["dbname"]))

    def dsn_of(self, name: str) -> str:
        """The same for another database of the server."""
        who = ":".join(quote(str(self._told[key]), safe="") for key in ("user", "password") if key in self._told)
        return f"postgresql://{who}@127.0.0.1:{self.port}/{quote(name, safe='')}"

    def _reach(self) -> socket.socket:
        """A connection to the server."""
        host, port = str(self._told["host"]), int(str(self._told["port"]))
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(f"{host}/.s.PGSQL.{port}")
        except OSError:
            found.close()
            raise
        return found


@contextlib.contextmanager
def proxied(database: Database) -> Iterator[Proxy]:
    """A proxy in front of the server of a database."""
    proxy = Proxy(database)
    try:
        yield proxy
    finally:
        proxy.close()
