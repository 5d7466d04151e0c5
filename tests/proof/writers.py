"""Writers that never pause: pgbench where it is found, else threads of our own."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg

from perfctl.embedded import Installation
from tests.fix_servers import Database
from tests.proof.schema import CLIENTS, SCRIPTS

#: What a writer may say after a crash of the server, and at no other time.
_OF_A_CRASH = re.compile(
    r"terminating connection|closed the connection|server terminated abnormally|before or while processing"
    r"|postmaster has commanded|In a moment you should|connection to server|database system is|server running"
    r"|perhaps the backend died|Run was aborted|run was aborted|connection is lost|connection is bad|not yet accepting"
    r"|Consistent recovery state|no connection to the server|could not (send|receive) data"
)
#: What pgbench says when all is well.
_USUAL = ("progress:", "pgbench (", "pgbench: setting random seed")
#: A writer that hangs holds up the round no longer than this.
_END_WITHIN_S = 20.0


class Writers(ABC):
    """Clients that write until they are stopped; ``transactions`` is about how many they have done."""

    def __init__(self, database: Database, rows: int, seed: int) -> None:
        self.database = database
        self.rows = rows
        self.random = random.Random(seed)
        self.transactions = 0

    @abstractmethod
    def start(self) -> None:
        """Let them begin."""

    @abstractmethod
    def stop(self) -> None:
        """End them; returns when the last has ended."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether every one of them is at work."""

    @abstractmethod
    def said(self) -> list[str]:
        """What they have complained of since this was asked last."""

    def complaints(self, *, crashed: bool) -> list[str]:
        """What they had no reason to say; a crash of the server explains that connections were lost."""
        said = self.said()
        return [f"writers: {line}" for line in said if not (crashed and _OF_A_CRASH.search(line))]

    def settle(self) -> None:
        """Decide, as their coordinator would, what writers that are gone have left prepared."""
        with self.database.connect() as connection:
            query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            for (gid,) in connection.execute(query).fetchall():
                word = self.random.choice(("COMMIT", "ROLLBACK"))
                connection.execute(f"{word} PREPARED '{gid}'".encode())


class Pgbench(Writers):
    """One pgbench with four clients."""

    def __init__(self, program: str, database: Database, rows: int, seed: int, folder: Path, rate: int) -> None:
        super().__init__(database, rows, seed)
        self._argv = [program, "-n", "-c", str(CLIENTS), "-j", "1", "-T", "36000", "--progress", "1"]
        # Without a limit they would take both processors from the builds.
        self._argv += ["--verbose-errors", "--rate", str(rate)]
        for script in SCRIPTS:
            path = folder / f"{script.name}.pgbench"
            path.write_text(script.as_pgbench(rows), encoding="utf-8")
            self._argv += ["-f", f"{path}@{script.weight}"]
        self._errors = folder / "pgbench.stderr"
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Let them begin."""
        seed = str(self.random.randrange(2**31))
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [*self._argv, "--random-seed", seed, self.database.dsn],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # Ctrl-C at the terminal ends the proof, which then ends them.
                start_new_session=True,
            )

    def stop(self) -> None:
        """End them; returns when the last has ended."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def alive(self) -> bool:
        """Whether it runs. A client that fails alone is told by what is said."""
        return self._process is not None and self._process.poll() is None

    def said(self) -> list[str]:
        """What it wrote to stderr, but for its progress."""
        with self._errors.open("rb") as errors:
            errors.seek(self._read)
            text = errors.read()
        # A line that is not complete yet is read next time.
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        for found in (re.match(r"progress: .*?, ([\d.]+) tps", line) for line in lines):
            self.transactions += round(float(found[1])) if found else 0
        failed = [line for line in lines if (n := re.search(r"(\d+) failed", line)) and n[1] != "0"]
        return [line for line in lines if line.strip() and not line.startswith(_USUAL)] + failed


class Threads(Writers):
    """Four threads of this process, where there is no pgbench."""

    def __init__(self, database: Database, rows: int, seed: int, rate: int) -> None:
        super().__init__(database, rows, seed)
        self._pause_s = CLIENTS / rate
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._said: list[str] = []

    def start(self) -> None:
        """Let them begin."""
        self._stop.clear()
        seeds = [self.random.randrange(2**31) for _ in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._work, args=each, daemon=True) for each in enumerate(seeds)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them; returns when the last has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_WITHIN_S)
        self._threads = []

    @property
    def alive(self) -> bool:
        """Whether every one of them is at work."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def said(self) -> list[str]:
        """The errors that they met."""
        said, self._said = self._said, []
        return said

    def _work(self, client: int, seed: int) -> None:
        dice = random.Random(seed)
        weights = [script.weight for script in SCRIPTS]
        try:
            with contextlib.closing(self.database.connect(application_name="writer")) as connection:
                while not self._stop.wait(dice.uniform(0, self._pause_s)):
                    script = dice.choices(SCRIPTS, weights)[0]
                    row = client + CLIENTS * dice.randrange(self.rows // CLIENTS)
                    for statement in script.with_values(client, row, dice.randrange(1, 1000000)):
                        connection.execute(statement.encode())
                    self.transactions += 1
        except psycopg.Error as error:
            self._said += str(error).splitlines()


def new_writers(
    installation: Installation, database: Database, rows: int, seed: int, folder: Path, rate: int
) -> Writers:
    """pgbench of the server's own version, else any pgbench, else threads."""
    program = shutil.which("pgbench", path=f"{installation.bindir}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        return Threads(database, rows, seed, rate)
    return Pgbench(program, database, rows, seed, folder, rate)
