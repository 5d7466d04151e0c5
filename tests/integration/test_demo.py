"""``perfctl demo`` as a person starts it: to its end, interrupted, and left standing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fix_perfctl import ROOT, Process, Ran, until

SCALE = ("--scale", "0.05")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for temporary files and for demos that the servers' account can enter, unlike tmp_path."""

    folder: Path

    def start(self, *arguments: str, cwd: Path | None = None) -> Process:
        """Start a command in the folder, which is its folder for temporary files as well."""
        return Process(
            subprocess.Popen(
                [sys.executable, "-m", "perfctl", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cwd or self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)},
            )
        )

    def run(self, *arguments: str, cwd: Path | None = None) -> Ran:
        """Run a command to its end."""
        return self.start(*arguments, cwd=cwd).wait(within_s=180)

    @property
    def processes(self) -> set[int]:
        """The processes that work in the folder: the servers' own folder is their working directory."""
        found = set()
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                where = link.readlink()
            except OSError:
                continue
            if where.is_relative_to(self.folder):
                found.add(int(link.parent.name))
        return found

    @property
    def is_clean(self) -> bool:
        """Whether no file and no process is left."""
        return not self.processes and not any(self.folder.iterdir())


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="perfctl-test-demo-", dir="/tmp"))
    folder.chmod(0o755)
    yield Place(folder)
    shutil.rmtree(folder)


def test_the_show_holds_its_promises_and_leaves_nothing_behind(place: Place) -> None:
    ran = place.run("demo", *SCALE, "--format", "json")
    assert ran.code == 0, ran.stdout + ran.stderr
    items = ran.report["items"]
    kinds = [item["kind"] for item in items]
    assert (kinds.count("index"), kinds.count("query")) == (27, 27)
    assert {item["status"] for item in items if item["kind"] == "index"} == {"changed"}
    figures = ran.items["demo"]["data"]
    assert figures["indexes"] == 27
    assert figures["requests"] > 0
    assert figures["failed_requests"] == 0
    assert figures["p95_after_ms"] < figures["p95_before_ms"]
    newest = ran.items["newest_analyses_of_user"]["data"]
    assert newest["index_used"]
    assert newest["ratio"] > 1
    assert place.is_clean


def test_in_a_pipe_the_show_is_plain_text_and_progress_is_apart(place: Place) -> None:
    ran = place.run("demo", *SCALE)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert [line[:2] for line in lines if line[:1].isdigit()] == [f"{number}." for number in range(1, 9)]
    assert "Verdict: every promise held" in lines
    assert "[27/27]" in ran.stderr
    assert "[27/27]" not in ran.stdout


@pytest.mark.parametrize("moment", ["loading", "timing", "[5/27]"])
def test_an_interrupt_leaves_no_server_and_no_folder(place: Place, moment: str) -> None:
    process = place.start("demo", *SCALE, "--format", "json")
    assert process.popen.stderr is not None
    for line in process.popen.stderr:
        if line.startswith(moment):
            break
    assert place.processes
    process.popen.send_signal(signal.SIGINT)
    ran = process.wait()
    assert ran.code == 130
    assert ran.report["exit_name"] == "stopped"
    assert place.is_clean


def test_a_killed_show_leaves_no_server_and_no_folder(place: Place) -> None:
    process = place.start("demo", *SCALE)
    assert process.popen.stderr is not None
    for line in process.popen.stderr:
        if line.startswith("[5/27]"):
            break
    process.popen.kill()
    process.wait()
    until(lambda: place.is_clean)


def test_a_reader_that_has_had_enough_ends_the_show_without_a_word(place: Place) -> None:
    process = place.start("demo", *SCALE, "--quiet")
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    process.popen.stdout.close()
    assert process.popen.wait(60) == 128 + signal.SIGPIPE
    assert process.popen.stderr is not None
    with process.popen.stderr as stderr:
        assert stderr.read() == ""
    assert place.is_clean


def test_up_leaves_a_demo_to_play_in_and_down_takes_it_away(place: Place) -> None:
    folder = place.folder / "my demo"
    up = place.run("demo", "up", "my demo", *SCALE)
    assert up.code == 0, up.stderr
    assert "cd 'my demo'" in up.stdout
    assert place.run("indexes", "apply", "--yes", "--format", "json", cwd=folder).report["counts"] == {"changed": 27}
    assert place.run("verify", "--format", "json", cwd=folder).report["counts"] == {"ok": 54}
    down = place.run("demo", "down", str(folder))
    assert down.code == 0, down.stderr
    assert place.is_clean
    again = place.run("demo", "down", str(folder))
    assert again.code == 4
    assert "there is no demo in" in again.stderr


def test_down_leaves_what_a_person_has_made_or_changed(place: Place) -> None:
    folder = place.folder / "demo"
    folder.mkdir()
    assert place.run("demo", "up", "demo", *SCALE).code == 0
    mine = {"notes.txt": "mine", "sql/queries/pending_jobs.sql": "-- mine", "sql/migrations/004_more.sql": "-- mine"}
    for name, text in mine.items():
        (folder / name).write_text(text)
    down = place.run("demo", "down", "demo", "--format", "json")
    assert down.code == 0, down.stderr
    assert {name for name, status in down.statuses.items() if status == "skipped"} == {f"demo/{each}" for each in mine}
    left = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert left == mine
    assert not place.processes


def test_up_refuses_a_folder_that_is_not_empty_and_touches_nothing(place: Place) -> None:
    (place.folder / "full").mkdir()
    (place.folder / "full" / "a.txt").write_text("mine")
    ran = place.run("demo", "up", "full", *SCALE)
    assert ran.code == 4
    assert ran.stdout == ""
    assert [path.name for path in (place.folder / "full").iterdir()] == ["a.txt"]
    assert place.run("demo", "up", "full/a.txt").code == 4


def test_an_interrupted_up_takes_away_what_it_had_made(place: Place) -> None:
    process = place.start("demo", "up", "demo", *SCALE)
    assert process.popen.stderr is not None
    for line in process.popen.stderr:
        if line.startswith("loading"):
            break
    process.popen.send_signal(signal.SIGINT)
    assert process.wait().code == 130
    assert place.is_clean


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--scale", "0.01"), 2),
        (("--scale", "nan"), 2),
        (("--scale", "0.5", "up", "demo"), 2),
        (("up",), 2),
        (("down", "nowhere"), 4),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_started(
    place: Place, arguments: tuple[str, ...], code: int
) -> None:
    ran = place.run("demo", *arguments)
    assert (ran.code, ran.stdout) == (code, "")
    assert ran.stderr
    assert place.is_clean


def test_the_users_own_libpq_settings_lead_nowhere(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PGSERVICE", "nosuch"), ("PGHOSTADDR", "192.0.2.1"), ("PGOPTIONS", "-c nosuch=1")):
        monkeypatch.setenv(name, value)
    assert place.run("demo", "up", "demo", *SCALE).code == 0
    assert place.run("demo", "down", "demo").code == 0
