"""What a round is played on: a throw-away server, a database, a project of perfctl, writers at work."""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from perfctl.embedded import find_postgres, start_postgres
from tests.fix_perfctl import Process, Project, Ran, new_project
from tests.fix_servers import Database
from tests.proof import checks, schema
from tests.proof.side import Side
from tests.proof.writers import Writers, new_writers

SETTINGS = {
    "max_prepared_transactions": "20",
    "restart_after_crash": "on",
    # Vacuum is one more that prunes, freezes and holds the builds' lock.
    "autovacuum_naptime": "5s",
    "jit": "off",
}
#: perfctl has to end by then, whatever was done to it.
ENDS_WITHIN_S = 180.0
_LOOK_S = 0.005
BUDGET = ("--wait-budget", "20s")


class Broken(Exception):
    """something that must hold does not"""


@dataclass(frozen=True, slots=True)
class Options:
    """How a proof is run."""

    major: int
    seed: int
    rows: int = 20000
    rate: int = 400
    partitioned: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds from the start of an undisturbed command to its first session, and from there to its last."""

    start_s: float
    work_s: float


@dataclass(slots=True)
class Stage:
    """A server, and all that a round needs on it."""

    options: Options
    database: Database
    project: Project
    writers: Writers
    side: Side
    amcheck: bool
    #: the definitions of the indexes, by name, before and after an undisturbed apply
    base: dict[str, str]
    full: dict[str, str]
    spans: dict[str, Span]

    def start(self, command: str) -> Process:
        """perfctl as a process; ``command`` is apply or rollback."""
        return self.project.start(command, "--yes", *BUDGET)

    def timed(self, command: str) -> Ran:
        """perfctl undisturbed, to its end; how long it took is what the next instants are drawn from."""
        began = time.monotonic()
        process = self.start(command)
        seen_s = []
        while process.popen.poll() is None:
            if self.side.look().connected:
                seen_s.append(time.monotonic() - began)
            time.sleep(_LOOK_S)
        ran = process.wait(ENDS_WITHIN_S)
        if seen_s and not ran.code:
            self.spans[command] = Span(seen_s[0], seen_s[-1] - seen_s[0])
        return ran

    def expected(self, command: str) -> dict[str, str]:
        """What ``command`` leads to."""
        return self.full if command == "apply" else self.base

    def verify(self, command: str) -> Ran:
        """perfctl's own word on what ``command`` led to."""
        if command == "rollback":
            return self.project.run("verify", "--absent")
        # Where amcheck is not there, asking for it is a finding.
        return self.project.run("verify", *(["--amcheck"] if self.amcheck else []))

    def recover(self) -> None:
        """After a crash: what the writers left prepared is decided, and they begin again."""
        self.writers.stop()
        self.writers.settle()
        self.writers.start()


@contextlib.contextmanager
def new_stage(options: Options) -> Iterator[Stage]:
    """Everything set up, without the migration's indexes; all gone at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="proof-") as folder,
        start_postgres(find_postgres(options.major), settings=SETTINGS) as server,
        contextlib.closing(Side(Database(server, "proof"))) as side,
    ):
        database = side.database
        with Database(server, "postgres").connect() as postgres:
            postgres.execute("CREATE DATABASE proof")
        _fill(database, options)
        project = _project(Path(folder), database, options)
        writers = new_writers(server.installation, database, options.rows, options.seed, project.folder, options.rate)
        amcheck = checks.has_amcheck(database)
        stage = Stage(options, database, project, writers, side, amcheck, {}, {}, {})
        writers.start()
        try:
            _rehearse(stage)
            yield stage
        finally:
            writers.stop()


def _fill(database: Database, options: Options) -> None:
    texts = [schema.SETUP, *([schema.PARTITIONED_SETUP] if options.partitioned else [])]
    with database.connect() as connection:
        for text in texts:
            connection.execute(text.format(rows=options.rows).encode())
        connection.execute("VACUUM (ANALYZE)")


def _project(folder: Path, database: Database, options: Options) -> Project:
    project = new_project(folder, database)
    wanted = [*schema.WANTED, *(schema.PARTITIONED_WANTED if options.partitioned else ())]
    project.migration(schema.MIGRATION, "\n".join(each.statement for each in wanted))
    return project


def _rehearse(stage: Stage) -> None:
    """Once there and back, undisturbed: what it leads to, and how long it takes."""
    stage.base = checks.public(checks.entries(stage.database))
    _led(stage, "apply")
    stage.full = checks.public(checks.entries(stage.database))
    missing = {f"public.{each.name}" for each in schema.WANTED} - stage.full.keys()
    if missing:
        raise Broken(f"an undisturbed apply did not make {', '.join(sorted(missing))}")
    _led(stage, "rollback")
    if left := checks.names(stage.database, stage.base):
        raise Broken(f"an undisturbed rollback: {'; '.join(left)}")


def _led(stage: Stage, command: str) -> None:
    ran = stage.timed(command)
    verified = stage.verify(command)
    if ran.code or verified.code:
        said = f"{ran.stdout}\n{ran.stderr}\n{verified.stdout}"
        raise Broken(f"an undisturbed {command} ended with {ran.code}, verify with {verified.code}\n{said}")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Somebody with an old snapshot or an open write, which builds and drops have to wait for."""

    kind: str
    table: str
    #: seconds after perfctl's first session; None = from before it comes
    after_s: float | None
    for_s: float
    word: str
    came: threading.Event = field(default_factory=threading.Event)

    def __str__(self) -> str:
        when = "before" if self.after_s is None else f"{self.after_s:.2f} s after"
        return f"{self.kind} on {self.table} from {when} the first session for {self.for_s:.2f} s"

    @property
    def statements(self) -> tuple[str, ...]:
        """What is sent in its transaction."""
        if self.kind == "open write":
            return ("BEGIN", schema.OPEN_WRITES[self.table])
        return ("BEGIN ISOLATION LEVEL REPEATABLE READ", f"SELECT count(*) FROM {self.table}")

    def hold(self, database: Database) -> None:
        """Begin, wait, end; the server may crash meanwhile."""
        with contextlib.suppress(psycopg.OperationalError), database.connect(application_name="obstacle") as session:
            if self.after_s is not None:
                self.came.wait(ENDS_WITHIN_S)
                time.sleep(self.after_s)
            for statement in self.statements:
                session.execute(statement.encode())
            self.came.wait(ENDS_WITHIN_S)
            time.sleep(self.for_s)
            session.execute(self.word.encode())


@contextlib.contextmanager
def obstacle(stage: Stage, dice: random.Random, work_s: float) -> Iterator[Obstacle | None]:
    """In half of the rounds something that is in the way, for up to a second."""
    after_s = dice.choice((None, dice.uniform(0, work_s)))
    drawn = Obstacle(
        dice.choice(("old snapshot", "open write")),
        dice.choice(schema.TABLES),
        after_s,
        dice.uniform(0, 1),
        dice.choice(("COMMIT", "ROLLBACK")),
    )
    if dice.random() < 0.5:
        yield None
        return
    thread = threading.Thread(target=drawn.hold, args=(stage.database,), daemon=True)
    thread.start()
    try:
        yield drawn
    finally:
        drawn.came.set()
        thread.join()
