"""perfctl is killed at random instants while writers are at work; every round must end with every index right.

After PostgreSQL's own contrib/amcheck/t/002_cic.pl and 003_cic_2pc.pl. Run it as

python -m tests.proof.proof --rounds 200 --seed 1 --pg 18 [--jobs 2] [--first ROUND]

A round begins where the one before it should have ended: without the indexes when its number is odd, with them
when it is even. One command or two are disturbed. Then an undisturbed apply (odd) or rollback (even) must lead to
the state that it would have led to anyway, and verify, the catalogue, amcheck and the tables must say so. What a
round does is drawn from the seed and its own number: --first N --rounds 1 plays round N alone.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process

import psycopg
import pytest

from perfctl.embedded import find_postgres
from tests.fix_perfctl import FOREIGN, KEPT, Ran
from tests.proof import checks
from tests.proof.faults import FAULTS, UNCHANGED, Struck, draw, strike
from tests.proof.schema import WANTED
from tests.proof.stage import ENDS_WITHIN_S, Broken, Options, Stage, new_stage, obstacle

#: how often CI would run the command again after "unreachable" and "busy"
_TRIES = 6
_AGAIN_AFTER_S = 0.5
#: What perfctl says of a broken index that it has to leave.
_SAID = ("leftover stays", "invalid index stays", "half dropped")


@dataclass(slots=True)
class Round:
    """One round: what was done and what did not hold."""

    number: int
    options: Options
    struck: list[Struck] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)
    closing: list[int] = field(default_factory=list)
    state: str = "?"
    took_s: float = 0.0
    transactions: int = 0
    problems: list[str] = field(default_factory=list)
    evidence: str = ""

    @property
    def command(self) -> str:
        """The command that ends it."""
        return "apply" if self.number % 2 else "rollback"

    def __str__(self) -> str:
        done = "; ".join(map(str, self.struck))
        held = f" [{'; '.join(self.obstacles)}]" if self.obstacles else ""
        codes = " ".join(map(str, self.closing))
        return (
            f"{self.number:4} pg{self.options.major} seed {self.options.seed}: {done}{held};"
            f" {self.command} → {codes}; {self.state}; {self.took_s:.1f} s{' BROKEN' if self.problems else ''}"
        )


def play(stage: Stage, number: int) -> Round:
    """One round. What does not hold is in its ``problems``; never raises for that."""
    round_ = Round(number, stage.options)
    dice = random.Random(f"{stage.options.seed}:{number}")
    began, written = time.monotonic(), stage.writers.transactions
    if not stage.writers.alive:
        stage.recover()
    try:
        _disturb(stage, round_, dice)
        _close(stage, round_)
        _check(stage, round_)
    except (Broken, pytest.fail.Exception, psycopg.Error) as error:
        round_.problems.append(str(error) if isinstance(error, Broken) else traceback.format_exc())
    round_.problems += stage.writers.complaints(crashed=any(struck.fault.crash for struck in round_.struck))
    if not stage.writers.alive:
        round_.problems.append("the writers have ended")
    round_.transactions = stage.writers.transactions - written
    round_.took_s = time.monotonic() - began
    if round_.problems:
        round_.evidence = _evidence(stage, round_)
    return round_


def _disturb(stage: Stage, round_: Round, dice: random.Random) -> None:
    commands = [round_.command]
    if dice.random() < 0.4:
        # It may be the other way round as well: what a killed apply left is rolled back, and the reverse.
        commands.append(dice.choice(("apply", "rollback")))
    for command in commands:
        before = None if stage.side.look().connected else checks.entries(stage.database)
        with obstacle(stage, dice, stage.spans[command].work_s) as held:
            struck = strike(stage, command, draw(dice), dice, held)
        if held is not None:
            round_.obstacles.append(str(held))
        round_.struck.append(struck)
        round_.problems += _judge(stage, struck, before)


def _judge(stage: Stage, struck: Struck, before: dict[str, checks.Entry] | None) -> list[str]:
    """Whether what a disturbed command said of itself is true."""
    ran, wrong = struck.ran, []
    if ran.code and ran.code not in struck.fault.codes:
        wrong.append(f"{struck}: an exit code that nothing explains")
    if ran.code >= 0:
        wrong += _form(struck)
    if not ran.code:
        wrong += [f"{struck}: it said 0, but {text}" for text in _state(stage, struck.command)]
    if ran.code in UNCHANGED and before is not None and checks.entries(stage.database) != before:
        wrong.append(f"{struck}: by its exit code nothing was changed, and something was")
    if struck.fault.tidy and ran.code > 0 and before is not None:
        left = [name for name, entry in checks.entries(stage.database).items() if not entry.good]
        said = any(word in ran.stdout + ran.stderr for word in _SAID)
        # What was broken before is not its doing.
        wrong += [f"{struck}: it leaves {name} broken, unsaid" for name in left if not said and _good(before, name)]
    return [f"{text}\n{_streams(ran)}" for text in wrong]


def _good(before: dict[str, checks.Entry], name: str) -> bool:
    return name not in before or before[name].good


def _form(struck: Struck) -> list[str]:
    """A command that ends by itself prints one object, and no traceback."""
    wrong = [f"{struck}: a traceback"] if "Traceback" in struck.ran.stderr else []
    if struck.fault.hasty and not struck.ran.stdout:
        return wrong
    try:
        _ = struck.ran.report
    except (ValueError, AssertionError) as error:
        wrong.append(f"{struck}: not one right object on stdout: {error}")
    return wrong


def _state(stage: Stage, command: str) -> list[str]:
    return [*checks.flags(stage.database), *checks.names(stage.database, stage.expected(command))]


def _close(stage: Stage, round_: Round) -> None:
    """An undisturbed command, again as often as its exit codes ask for."""
    for _ in range(_TRIES):
        ran = stage.timed(round_.command)
        round_.closing.append(ran.code)
        # A rollback refuses to drop what the backend of a killed apply is still building: that has to end first.
        if ran.code not in (3, 6) and not (ran.code == 4 and "is building it" in ran.stderr):
            break
        time.sleep(_AGAIN_AFTER_S)
    if ran.code:
        raise Broken(f"the undisturbed {round_.command} ended with {ran.code}\n{_streams(ran)}")


def _check(stage: Stage, round_: Round) -> None:
    database = stage.database
    verified = stage.verify(round_.command)
    if verified.code:
        round_.problems.append(f"verify ended with {verified.code}\n{_streams(verified)}")
    round_.problems += checks.sessions(database) + checks.leftovers(database) + _state(stage, round_.command)
    if round_.command == "apply":
        round_.problems += _owned(stage)
    round_.problems += checks.probes(database) + checks.duplicates(database)
    round_.state = f"{len(stage.expected(round_.command))} indexes valid"
    if stage.amcheck:
        read, wrong = checks.amcheck(database)
        round_.problems += wrong
        round_.state += f", amcheck read {read}"
    else:
        round_.state += ", no amcheck here"


def _owned(stage: Stage) -> list[str]:
    """A rollback would take off all of them: what was built and is in no journal would stay for ever."""
    ran = stage.project.run("rollback", "--dry-run")
    planned = {name for name, status in ran.statuses.items() if status in ("planned", "skipped")}
    lost = sorted({f"public.{each.name}" for each in WANTED} - planned)
    return [f"{name} was made by perfctl, and a rollback would leave it" for name in lost]


def _streams(ran: Ran) -> str:
    stdout = ran.stdout[:3000] if ran.code else "(the report of a command that ended with 0)"
    return f"    stdout: {stdout}\n    stderr: {ran.stderr[-3000:]}"


def _evidence(stage: Stage, round_: Round) -> str:
    # What broke it may have happened in the round before.
    again = (
        f"python -m tests.proof.proof --pg {stage.options.major} --seed {stage.options.seed}"
        f" --first {max(1, round_.number - 1)} --rounds 2"
    )
    try:
        found = checks.evidence(stage.database)
    except psycopg.Error as error:
        found = f"the server does not answer: {error}"
    said = "\n".join(f"  {struck}\n{_streams(struck.ran)}" for struck in round_.struck)
    return f"  again: {again}\n{said}\n{found}\n  log: {stage.database.server.log_tail(30)}"


def rounds(options: Options, numbers: Sequence[int]) -> Iterator[Round]:
    """Play those rounds; after a broken one on a new server, for what it left would break the next as well."""
    left = deque(numbers)
    while left:
        with new_stage(options) as stage:
            if left[0] % 2 == 0 and (ran := stage.start("apply").wait(ENDS_WITHIN_S)).code:
                raise Broken(f"the first apply ended with {ran.code}\n{_streams(ran)}")
            held = True
            while left and held:
                played = play(stage, left.popleft())
                held = not played.problems
                yield played


def _job(options: Options, numbers: Sequence[int]) -> list[Round]:
    played = []
    parent = parent_process()
    for each in rounds(options, numbers):
        lines = [str(each), *(f"  ! {problem}" for problem in each.problems), *filter(None, [each.evidence])]
        print("\n".join(lines), flush=True)
        played.append(each)
        # A worker whose parent was killed would play on to the end.
        if parent is not None and not parent.is_alive():
            break
    return played


def histogram(played: Sequence[Round]) -> str:
    """How often each fault struck in each phase."""
    hits = Counter((struck.phase or "missed", struck.fault.name) for each in played for struck in each.struck)
    faults = [fault.name for fault in FAULTS]
    phases = sorted({phase for phase, _ in hits})
    wide = max(len(phase) for phase in phases)
    lines = [" " * wide + "".join(f"{fault:>14}" for fault in faults) + f"{'all':>6}"]
    for phase in phases:
        counts = [hits[phase, fault] for fault in faults]
        lines.append(f"{phase:{wide}}" + "".join(f"{count or '·':>14}" for count in counts) + f"{sum(counts):>6}")
    return "\n".join(lines)


def main() -> None:
    """Play the rounds, print the summary; exit code 0 only when every round held."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1, help="number of the first round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pg", type=int, default=18, help="major version of PostgreSQL")
    parser.add_argument("--jobs", type=int, default=1, help="servers at a time")
    parser.add_argument("--rows", type=int, default=20000, help="rows of each table")
    parser.add_argument("--rate", type=int, default=400, help="transactions a second of the writers")
    parser.add_argument("--partitioned", action="store_true", help="a partitioned table as well")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(FOREIGN) and name not in KEPT]:
        del os.environ[name]
    options = Options(given.pg, given.seed, given.rows, given.rate, given.partitioned)
    began = time.monotonic()
    played = _all(options, range(given.first, given.first + given.rounds), given.jobs)
    print(_summary(options, played, time.monotonic() - began))
    sys.exit(any(each.problems for each in played) or len(played) < given.rounds)


def _all(options: Options, numbers: Sequence[int], jobs: int) -> list[Round]:
    if jobs == 1:
        # So that servers, writers and files go away in order.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return _job(options, numbers)
    share = -(-len(numbers) // jobs)
    parts = [numbers[start : start + share] for start in range(0, len(numbers), share)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return [each for part in pool.map(partial(_job, options), parts) for each in part]


def _summary(options: Options, played: Sequence[Round], took_s: float) -> str:
    broken = [str(each.number) for each in played if each.problems]
    retried = sum(len(each.closing) > 1 for each in played)
    written = sum(each.transactions for each in played)
    per_round_s = sum(each.took_s for each in played) / len(played)
    lines = [
        f"\n{histogram(played)}\n",
        f"PostgreSQL {find_postgres(options.major).version}, seed {options.seed}: {len(played)} rounds"
        f" in {took_s:.0f} s, {per_round_s:.1f} s a round, {retried} closed at a later try",
        f"about {written} transactions of the writers",
        f"broken: {', '.join(broken)}" if broken else "every round held",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
