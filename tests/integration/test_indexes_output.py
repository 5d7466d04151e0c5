"""What a command prints: one JSON object whatever happens, events as they happen, and nothing else on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable

import jsonschema
import pytest

from perfctl.render.json import schema
from tests.fix_catalogue import journal, names
from tests.fix_perfctl import Project, run
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table, writer

TWO = "CREATE INDEX CONCURRENTLY i ON t (a);\nCREATE UNIQUE INDEX CONCURRENTLY u ON t (b);\n"


@pytest.fixture
def two(project18: Project, database18: Database) -> Project:
    """A table t and a migration whose second index cannot be built."""
    table(database18)
    project18.migration("1_a", TWO)
    return project18


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("plan",), 0),
        (("plan", "--check"), 1),
        (("verify",), 1),
        (("status",), 0),
        (("lint",), 1),
        (("apply",), 4),
        (("apply", "--yes", "--dry-run"), 0),
        (("apply", "--yes"), 5),
        (("apply", "--yes", "--only", "nothing"), 2),
        (("apply", "--yes", "--target", "nothing"), 2),
        (("apply", "--yes", "--wait-budget", "soon"), 2),
        (("rollback", "--yes"), 0),
        (("plan", "nothing.sql"), 2),
    ],
)
def test_json_is_one_object_that_fits_the_schema_whatever_happens(
    two: Project, arguments: tuple[str, ...], code: int
) -> None:
    ran = two.run(*arguments)
    assert (ran.code, ran.report["exit_code"]) == (code, code)
    assert ran.report["command"] == f"indexes {arguments[0]}"
    assert (ran.report["error"] is None) == (code in (0, 1))


def test_json_of_perfctl_verify_fits_the_schema(two: Project) -> None:
    ran = run("verify", "--config", str(two.config), "--format", "json")
    assert (ran.report["command"], ran.code) == ("verify", 1)


def test_an_error_is_on_stderr_with_its_hint(two: Project) -> None:
    ran = two.text("apply")
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-2:] == [
        "error: Build 2 indexes on postgres@" + ran.stderr.split("Build 2 indexes on postgres@")[1].splitlines()[0],
        "hint: say --yes (-y) to do it",
    ]


def test_nothing_is_asked_without_a_terminal(two: Project, database18: Database) -> None:
    ran = two.run("apply", "--no-input")
    assert (ran.code, ran.report["error"]["class"]) == (4, "NotConfirmed")
    assert names(database18) == set()


def test_a_protected_target_wants_its_name(two: Project, database18: Database) -> None:
    two.configure(two.config.read_text().replace("database:", "protected: true\n    database:"))
    assert two.run("apply", "--yes").report["error"]["hint"] == "say --confirm test to do it"
    assert two.run("apply", "--yes", "--confirm", "other").code == 4
    assert names(database18) == set()
    assert two.run("apply", "--confirm", "test", "--only", "i").code == 0


def test_a_protected_target_is_read_without_a_question(two: Project) -> None:
    two.configure(two.config.read_text().replace("database:", "protected: true\n    database:"))
    assert two.run("plan").code == 0


def test_progress_goes_to_stderr_a_line_an_event(two: Project) -> None:
    ran = two.text("apply", "--yes")
    assert ran.stderr.splitlines()[0] == '[1/2] public.i: CREATE INDEX CONCURRENTLY "i" ON "public"."t" (a)'
    assert ran.stderr.splitlines()[1].startswith("[1/2] public.i: done in ")
    assert "[" not in ran.stdout.splitlines()[0][:1]


def test_quiet_leaves_the_progress_out(two: Project) -> None:
    assert two.text("apply", "--yes", "--quiet", "--only", "i").stderr == ""


def test_text_on_a_pipe_has_a_line_an_item_and_a_summary(two: Project) -> None:
    lines = two.text("apply", "--yes", "--only", "i", "--quiet").stdout.splitlines()
    assert lines[1].startswith("changed  public.i  built in ")
    assert lines[-1].startswith("indexes apply on test: 1 changed in ")


def test_a_report_is_written_beside_the_output(two: Project) -> None:
    text, data = two.folder / "report.txt", two.folder / "report.json"
    two.text("plan", "--report", f"text={text}", "--report", f"json={data}")
    assert text.read_text().splitlines()[-1].startswith("indexes plan (dry run) on test: 2 planned in")
    found = json.loads(data.read_text())
    jsonschema.validate(found, schema())
    assert found["counts"] == {"planned": 2}


@pytest.mark.parametrize(
    "options", [("--format", "xml"), ("--report", "xml=x"), ("--color", "red"), ("--timeout", "5")]
)
def test_a_bad_value_is_a_usage_error_with_one_line(two: Project, options: tuple[str, ...]) -> None:
    ran = two.text("plan", *options)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert options[1].split("=")[0] in ran.stderr


# events


def test_ndjson_gives_each_event_and_the_report_last(two: Project) -> None:
    ran = run("indexes", "apply", "--yes", "--config", str(two.config), "--format", "ndjson")
    kinds = [(event["event"], event.get("name")) for event in ran.events if event["event"] != "progress"]
    assert kinds == [
        ("start", "public.i"),
        ("done", "public.i"),
        ("start", "public.u"),
        ("cleanup", "public.u"),
        ("failed", "public.u"),
        ("report", None),
    ]
    assert ran.events[0]["statement"] == 'CREATE INDEX CONCURRENTLY "i" ON "public"."t" (a)'
    report = {key: value for key, value in ran.events[-1].items() if key != "event"}
    jsonschema.validate(report, schema())
    assert report["exit_code"] == ran.code == 5


@pytest.mark.parametrize("block", [writer, old_snapshot])
def test_ndjson_tells_who_is_waited_for(
    project: Project, database: Database, block: Callable[[Database], object]
) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    stand = writer(database) if block is writer else old_snapshot(database)
    with stand as blocker:
        pid = blocker.info.backend_pid
        process = project.start("apply", "--yes", form="ndjson")
        assert process.popen.stdout is not None
        for line in process.popen.stdout:
            event = json.loads(line)
            if event.get("waiting"):
                break
    ran = process.wait()
    assert event["blocker"].startswith(f"pid {pid} (postgres, {'web' if block is writer else 'pg_dump'}, idle in")
    assert event["phase"].startswith("waiting for ")
    (item,) = ran.events[-1]["items"]
    assert item["data"]["wait_s"] > 0


def test_a_failed_build_tells_its_waiting_from_its_work(project18: Project, database18: Database) -> None:
    table(database18)
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    with old_snapshot(database18):
        ran = project18.apply("--wait-budget", "2s")
    (item,) = ran.report["items"]
    ((build_s, wait_s),) = journal(database18, "build_s, wait_s")
    assert (float(build_s), float(wait_s)) == (item["data"]["build_s"], item["data"]["wait_s"])
    assert item["data"]["wait_s"] >= 1.5
    assert item["data"]["build_s"] <= 1.5


def test_the_time_of_a_step_that_was_held_is_told_and_never_negative(project18: Project, database18: Database) -> None:
    table(database18)
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    arguments = ("--config", str(project18.config), "--format", "ndjson", "--blocker-age", "0s", "--wait-budget", "1s")
    with writer(database18):
        events = run("indexes", "apply", "--yes", *arguments).events
    held = [event for event in events if event["event"] == "held"]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert held
    assert min(event["elapsed_s"] for event in held) >= 0
    assert failed["elapsed_s"] >= 1
    assert events[-1]["items"][0]["data"]["wait_s"] >= 1


def test_a_lock_that_is_not_got_says_how_long_it_was_tried(project18: Project, database18: Database) -> None:
    send(
        database18,
        "CREATE TABLE t (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (9)",
    )
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    assert project18.apply().code == 0
    arguments = ("--config", str(project18.config), "--format", "ndjson", "--wait-budget", "1s")
    with database18.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        events = run("indexes", "rollback", "--yes", *arguments).events
        reader.rollback()
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert failed["elapsed_s"] >= 1
    ((wait_s,),) = journal(database18, "wait_s")[-1:]
    assert wait_s >= 1


def test_ndjson_names_a_prepared_transaction(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    with database.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (-1, -1)")
        connection.execute("PREPARE TRANSACTION 'forgotten'")
    process = project.start("apply", "--yes", form="ndjson")
    assert process.popen.stdout is not None
    for line in process.popen.stdout:
        event = json.loads(line)
        if event.get("waiting"):
            break
    send(database, "ROLLBACK PREPARED 'forgotten'")
    assert process.wait().code == 0
    assert "prepared transaction forgotten" in event["blocker"]


# names from files and servers are hostile text


@pytest.mark.parametrize(
    "name", ["col[/]", "[bold]x", "\x1b[31mred", "a\x07b\x9b", 'say "hi"', "a.b", "ünïcode 名前", "50%%s"]
)
def test_a_hostile_name_goes_all_the_way_and_acts_on_nothing(project: Project, database: Database, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    send(database, f"CREATE TABLE {quoted} ({quoted} int)")
    project.migration(
        "1_a", f"CREATE INDEX CONCURRENTLY {quoted.replace(name[:1], name[:1] + 'i', 1)} ON {quoted} ({quoted});"
    )
    for command in (("plan",), ("apply", "--yes"), ("verify",), ("status",), ("rollback", "--yes")):
        ran = project.text(*command)
        shown = ran.stdout + ran.stderr
        assert ran.code == 0
        assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}
        coloured = project.text(*command, "--color", "always")
        assert coloured.code in (0, 1)
        assert "\x1b[31mred" not in coloured.stdout
    assert names(database) == set()
