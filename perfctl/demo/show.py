"""The show, step by step, on servers that are gone when it ends, however it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perfctl import embedded
from perfctl.demo import reference
from perfctl.demo.files import sql_folder
from perfctl.demo.measure import Timing, measure
from perfctl.demo.screen import Screen
from perfctl.demo.traffic import CLIENTS, Application, Traffic
from perfctl.demo.verdict import Compared, Shown, counted, p95, say_ms
from perfctl.hotqueries.model import HotQuery
from perfctl.report import Item, Report, Status
from perfctl.servers import postgres

MAJOR = 18
_PLAN_LINES = 3


class Commands(Protocol):
    """``perfctl indexes`` as a person would call it, one report a command. Raises what stopped a command."""

    def plan(self) -> Report:
        """``perfctl indexes plan``."""

    def apply(self) -> Report:
        """``perfctl indexes apply``."""

    def verify(self, *, absent: bool) -> Report:
        """``perfctl indexes verify``, with ``--absent`` where the indexes must be gone."""

    def rollback(self) -> Report:
        """``perfctl indexes rollback``."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What every step needs."""

    screen: Screen
    #: takes what has been shown so far, also when a later step fails
    items: list[Item]
    commands: Commands
    conninfo: Mapping[str, str]
    queries: tuple[HotQuery, ...]


def run(screen: Screen, scale: float, items: list[Item], commands: Callable[[Path], Commands]) -> None:
    """Play it; what was shown is added to ``items``. ``commands`` makes them for a configuration file."""
    sql = sql_folder()
    queries = reference.hot_queries(sql)
    installation = embedded.find_postgres(MAJOR)
    embedded.find_valkey()
    screen.title("perfctl demo: indexes onto a live database, proven, and off again")
    screen.step("Throw-away servers and the data of a code-review platform")
    began = time.monotonic()
    with screen.busy("starting PostgreSQL and Valkey"):
        server = embedded.start_postgres(installation)
    with server, embedded.start_valkey() as cache:
        took = time.monotonic() - began
        screen.say(f"PostgreSQL {installation.version} and Valkey, started in {took:.1f} s")
        items.append(Item("server", f"PostgreSQL {installation.version}", Status.OK, f"started in {took:.1f} s"))
        conninfo = {"host": str(server.socket_dir), "port": str(server.port), "user": "postgres"}
        # In the server's own folder, which its guardian removes even when this process is killed.
        config = server.data_dir.parent / "perfctl.yaml"
        config.write_text(configuration(server.dsn(reference.DATABASE), cache.url, str(sql)), encoding="utf-8")
        fill(screen, items, conninfo, sql, scale)
        conninfo["dbname"] = reference.DATABASE
        shown = _steps(Stage(screen, items, commands(config), conninfo, queries))
    left = [str(each.data_dir.parent) for each in (server, cache) if each.running or each.data_dir.parent.exists()]
    items += [*shown.promises(left), shown.figures()]
    _conclude(screen, shown, left)


def configuration(dsn: str, cache_url: str, sql: str) -> str:
    """A perfctl.yaml for the demo's servers; a JSON string is a YAML string, and $$ is perfctl's plain $."""

    def quoted(text: str) -> str:
        return json.dumps(text.replace("$", "$$"))

    return (
        "version: 1\n"
        "default_target: demo\n"
        "targets:\n"
        "  demo:\n"
        "    database:\n"
        f"      dsn: {quoted(dsn)}\n"
        f"      schemas: [{', '.join(reference.SCHEMAS)}]\n"
        "    cache:\n"
        f"      url: {quoted(cache_url)}\n"
        "indexes:\n"
        f"  migrations: {quoted(sql + '/migrations')}\n"
        "queries:\n"
        f"  dir: {quoted(sql + '/queries')}\n"
    )


def fill(screen: Screen, items: list[Item], conninfo: Mapping[str, str], sql: Path, scale: float) -> None:
    """Make the database, and say how much is in it."""
    began = time.monotonic()
    with screen.busy(f"loading about {scale * 1_000_000:,.0f} rows"):
        loaded = reference.load(conninfo, sql, scale)
    took = time.monotonic() - began
    what = (
        f"{loaded.tables} tables, {loaded.rows:,} rows, {loaded.size_bytes / 2**20:,.0f} MB, "
        f"loaded and vacuumed in {took:.1f} s"
    )
    screen.say(f'database "{reference.DATABASE}": {what}')
    data = {"tables": loaded.tables, "rows": loaded.rows, "size_bytes": loaded.size_bytes, "scale": scale}
    items.append(Item("database", reference.DATABASE, Status.OK, what, None, data))


def _steps(stage: Stage) -> Shown:
    before = _timed(stage, "The hot queries, before")
    plan = _plan(stage)
    applied, traffic = _apply(stage)
    verified = _verify(stage, "perfctl indexes verify", absent=False)
    after = _timed(stage, "The hot queries, after")
    compared = tuple(Compared(q, before[q.name], after[q.name]) for q in stage.queries)
    _compare(stage, compared)
    rolled_back = _rollback(stage)
    absent = _verify(stage, "perfctl indexes verify --absent", absent=True)
    return Shown(plan, applied, traffic, verified, compared, rolled_back, absent)


def _timed(stage: Stage, title: str) -> dict[str, Timing]:
    stage.screen.step(title)
    with (
        stage.screen.busy(f"timing {len(stage.queries)} queries"),
        closing(postgres.connect(stage.conninfo, application="perfctl/demo")) as pg,
    ):
        timings = {each.name: measure(pg, each) for each in stage.queries}
    taken = {name: timing.median_ms for name, timing in timings.items()}
    slowest = max(taken, key=taken.__getitem__)
    stage.screen.say(
        f"{len(taken)} queries, up to {max(t.runs for t in timings.values())} runs each: "
        f"p95 {say_ms(p95([*taken.values()]))}, slowest {slowest} {say_ms(taken[slowest])}"
    )
    return timings


def _plan(stage: Stage) -> Report:
    stage.screen.step("perfctl indexes plan")
    report = stage.commands.plan()
    stage.screen.say(
        f"{counted(report, Status.PLANNED)} of {len(report.items)} indexes to be built; nothing is changed"
    )
    for note in report.notes:
        stage.screen.say(note)
    for item in report.items[:_PLAN_LINES]:
        stage.screen.say(f"{item.name}  {item.detail}", "dim")
    if (more := len(report.items) - _PLAN_LINES) > 0:
        stage.screen.say(f"and {more} more; to see all with their statements: perfctl demo up DIR", "dim")
    stage.items.append(_step("plan", report))
    return report


def _apply(stage: Stage) -> tuple[Report, Traffic]:
    stage.screen.step(f"perfctl indexes apply, while {CLIENTS} clients of an application insert and read")
    with Application(stage.conninfo) as application:
        report = stage.commands.apply()
        traffic = application.stop()
    size = sum(item.data.get("size_bytes") or 0 for item in report.items)
    stage.screen.say(
        f"{counted(report, Status.CHANGED)} indexes built in {report.duration_s:.1f} s, {size / 2**20:,.0f} MB"
    )
    met = f"{traffic.requests:,} requests, {traffic.failed} failed, longest stall {say_ms(traffic.longest_stall_ms)}"
    stage.screen.say(f"meanwhile {met}", "green" if not traffic.failed else "bold yellow")
    data = {
        "clients": traffic.clients, "requests": traffic.requests, "failed": traffic.failed,
        "longest_stall_ms": traffic.longest_stall_ms, "duration_s": traffic.duration_s, "errors": list(traffic.errors),
    }  # fmt: skip
    stage.items.extend(report.items)
    stage.items.append(_step("apply", report))
    stage.items.append(Item("traffic", "application", Status.OK, met, None, data))
    return report, traffic


def _verify(stage: Stage, title: str, *, absent: bool) -> Report:
    stage.screen.step(title)
    report = stage.commands.verify(absent=absent)
    right = "gone, and no broken one left behind" if absent else "there, valid, as written, usable"
    stage.screen.say(f"{counted(report, Status.OK)} of {len(report.items)} {right}", "green")
    for item in report.items:
        if item.status is not Status.OK:
            stage.screen.say(f"{item.status} {item.name}: {item.detail}", "bold yellow")
    stage.items.append(_step("verify --absent" if absent else "verify", report))
    return report


def _compare(stage: Stage, queries: Sequence[Compared]) -> None:
    rows = []
    for each in sorted(queries, key=lambda compared: -compared.ratio):
        used = str(each.query.index) if each.index_is_used else f"not {each.query.index}: {', '.join(each.after.scans)}"
        figures = (f"{each.before.median_ms:,.2f}", f"{each.after.median_ms:,.2f}", f"{each.ratio:,.1f}x")
        rows.append(((each.query.name, *figures, used), "" if each.index_is_used else "bold yellow"))
        stage.items.append(each.item())
    stage.screen.table(("query", "before ms", "after ms", "ratio", "index used (EXPLAIN)"), rows)


def _rollback(stage: Stage) -> Report:
    stage.screen.step("perfctl indexes rollback")
    report = stage.commands.rollback()
    stage.screen.say(f"{counted(report, Status.CHANGED)} indexes dropped, newest first, in {report.duration_s:.1f} s")
    stage.items.append(_step("rollback", report))
    return report


def _step(name: str, report: Report) -> Item:
    counts = ", ".join(f"{number} {status}" for status, number in report.counts.items())
    data = {"counts": report.counts, "duration_s": round(report.duration_s, 3), "exit_code": report.exit_code}
    return Item("step", name, Status.FINDING if report.exit_code else Status.OK, counts, None, data)


def _conclude(screen: Screen, shown: Shown, left: Sequence[str]) -> None:
    broken = [item for item in shown.promises(left) if item.status is not Status.OK]
    screen.title("")
    screen.title("Verdict: every promise held" if not broken else "Verdict: a promise did not hold")
    for item in broken:
        screen.fact("broken", f"{item.name}: {item.detail}", "bold yellow")
    screen.fact(
        "indexes",
        f"{shown.built} built, {shown.verified} verified, {shown.used} of {len(shown.queries)} queries use theirs, "
        f"{shown.gone} taken off again",
    )
    screen.fact(
        "application",
        f"{shown.traffic.failed} failed requests of {shown.traffic.requests:,}, "
        f"longest stall {say_ms(shown.traffic.longest_stall_ms)}",
    )
    screen.fact("hot queries", shown.speed())
    screen.fact("left behind", ", ".join(left) or "nothing: servers stopped, their folders removed")
    screen.fact("play on", "perfctl demo up DIR")
