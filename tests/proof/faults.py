"""What is done to perfctl and to the server while a command runs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tests.fix_perfctl import Process, Ran
from tests.proof.side import BETWEEN, Seen
from tests.proof.stage import ENDS_WITHIN_S, Obstacle, Stage

_PIDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
_LOOK_S = 0.002
#: perfctl's word for "nothing was changed": unreachable, refused, busy
UNCHANGED = (3, 4, 6)

#: the instants to aim at, as the side session names them; a build's are those of pg_stat_progress_create_index
PHASES = {
    "apply": (
        "initializing",
        "waiting for writers before build",
        "building index",
        "waiting for writers before validation",
        "index validation: scanning index",
        "index validation: sorting tuples",
        "index validation: scanning table",
        "waiting for old snapshots",
        BETWEEN,
    ),
    "rollback": ("drop: waits", "drop: works", BETWEEN),
}


def _signal(signums: Sequence[signal.Signals], _: Stage, process: Process, __: Seen, dice: random.Random) -> None:
    for number, signum in enumerate(signums):
        if number:
            time.sleep(dice.uniform(0, 0.3))
        process.popen.send_signal(signum)


def _nothing(*_: object) -> None:
    pass


def _terminate_builder(stage: Stage, _: Process, seen: Seen, __: random.Random) -> None:
    stage.side.ask(f"{_PIDS} AND pid = %s", seen.pid)


def _terminate_all(stage: Stage, _: Process, __: Seen, ___: random.Random) -> None:
    stage.side.ask(f"{_PIDS} AND application_name LIKE 'perfctl/%'")


def _crash(stage: Stage, _: Process, seen: Seen, __: random.Random) -> None:
    """The postmaster ends everybody when one backend is killed, recovers, and lets connect again."""
    try:
        os.kill(seen.pid, signal.SIGKILL)
    except ProcessLookupError:
        # The backend ended between the look and the kill.
        return
    stage.side.crashed_and_back()
    stage.recover()


def _stop_immediately(stage: Stage, _: Process, __: Seen, dice: random.Random) -> None:
    stage.database.server.stop("immediate")
    time.sleep(dice.uniform(0, 0.5))
    stage.database.server.start()
    stage.side.back()
    stage.recover()


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to disturb a command, and the exit codes that it explains; 0 is right whenever the job is done."""

    name: str
    do: Callable[[Stage, Process, Seen, random.Random], None]
    codes: tuple[int, ...]
    #: it needs a backend that builds or drops
    on_backend: bool = False
    #: the server goes down, and writers lose their connections
    crash: bool = False
    #: perfctl lives on and can look at what it leaves
    tidy: bool = False
    #: it may end before it has printed its report
    hasty: bool = False


FAULTS = (
    Fault("none", _nothing, (), tidy=True),
    Fault("SIGKILL", partial(_signal, (signal.SIGKILL,)), (-signal.SIGKILL,)),
    Fault("SIGINT", partial(_signal, (signal.SIGINT,)), (130, -signal.SIGINT), tidy=True),
    Fault("SIGTERM", partial(_signal, (signal.SIGTERM,)), (143, -signal.SIGTERM), tidy=True),
    Fault("SIGINT twice", partial(_signal, (signal.SIGINT, signal.SIGINT)), (130, -signal.SIGINT), hasty=True),
    Fault("end builder", _terminate_builder, (3, 5), on_backend=True, tidy=True),
    Fault("end all", _terminate_all, (3, 5)),
    Fault("kill builder", _crash, (3, 5), on_backend=True, crash=True),
    Fault("stop server", _stop_immediately, (3, 5), crash=True),
)
#: how often each is drawn
WEIGHTS: Mapping[str, int] = {"none": 1, "SIGKILL": 4, "kill builder": 2, "stop server": 2}


@dataclass(frozen=True, slots=True)
class Struck:
    """What was done to a command, when, and what it left."""

    command: str
    fault: Fault
    delay_s: float
    aim: str | None
    #: what perfctl did at that instant; None when it had ended before
    phase: str | None
    ran: Ran

    def __str__(self) -> str:
        aim = f", aimed at {self.aim!r}" if self.aim else ""
        where = f"in {self.phase!r}" if self.phase else "missed"
        return f"{self.command} × {self.fault.name} at {self.delay_s:.2f} s{aim}: {where} → {self.ran.code}"


def draw(dice: random.Random) -> Fault:
    """One of the faults."""
    return dice.choices(FAULTS, [WEIGHTS.get(fault.name, 2) for fault in FAULTS])[0]


def strike(stage: Stage, command: str, fault: Fault, dice: random.Random, held: Obstacle | None) -> Struck:
    """Run a command and disturb it at a random instant, half of the time in a phase that was chosen before."""
    span = stage.spans[command]
    when = _When(stage, fault, held)
    if dice.random() < 0.1:
        when = replace(when, start_s=dice.uniform(0, span.start_s))
    else:
        # Counted from the first session: the start of Python takes longer than all of the work, and varies more.
        aim = dice.choice(PHASES[command]) if dice.random() < 0.5 else None
        work_s = dice.uniform(0, span.work_s if aim is None else span.work_s / 2)
        when = replace(when, aim=aim, work_s=work_s, give_up_s=span.work_s)
    process = stage.start(command)
    try:
        at_s, seen = when.wait(process)
        if seen is not None:
            fault.do(stage, process, seen, dice)
            when.release(process)
        ran = process.wait(ENDS_WITHIN_S)
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()
    return Struck(command, fault, at_s, when.aim, seen.phase if seen else None, ran)


@dataclass(frozen=True, slots=True)
class _When:
    """The instant to strike: so long after the start of the process or after its first session, and in a phase."""

    stage: Stage
    fault: Fault
    #: it is told when perfctl has come
    held: Obstacle | None
    start_s: float | None = None
    work_s: float = 0.0
    aim: str | None = None
    #: when an aim that was not seen is given up
    give_up_s: float = 0.0

    def wait(self, process: Process) -> tuple[float, Seen | None]:
        """Wait for the instant: seconds from the start of the process, and what was seen; None when it ended before."""
        began = time.monotonic()
        came: float | None = None
        while process.popen.poll() is None and (now := time.monotonic()) - began < ENDS_WITHIN_S:
            seen = self.stage.side.look()
            if came is None and seen.connected:
                came = now
                if self.held is not None:
                    self.held.came.set()
            if self._is_now(seen, now - began, None if came is None else now - came):
                return now - began, seen
            time.sleep(_LOOK_S)
        return time.monotonic() - began, None

    def release(self, process: Process) -> None:
        """Who is in the way counts from perfctl's first session, which may be still to come."""
        while self.held is not None and not self.held.came.is_set() and process.popen.poll() is None:
            if self.stage.side.look().connected:
                self.held.came.set()
            time.sleep(_LOOK_S)

    def _is_now(self, seen: Seen, since_start_s: float, since_came_s: float | None) -> bool:
        if self.fault.on_backend and not seen.pid:
            return False
        if self.start_s is not None:
            return since_start_s >= self.start_s
        if since_came_s is None or since_came_s < self.work_s:
            return False
        return self.aim is None or seen.phase.startswith(self.aim) or since_came_s > self.give_up_s
