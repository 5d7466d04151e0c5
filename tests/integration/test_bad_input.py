"""What an operator gets wrong: each gets one clear line, its cure, its exit code, and nothing is changed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_catalogue import catalogue
from tests.fix_perfctl import Process, Project, Ran, run
from tests.fix_servers import Database
from tests.fix_sessions import table


def said(ran: Ran) -> list[str]:
    """What is on stderr: the error and its hint, nothing else."""
    assert "Traceback" not in ran.stderr
    return ran.stderr.splitlines()


def one_line_and_cure(ran: Ran) -> tuple[str, str]:
    """The error and its cure, a line each."""
    error, hint = said(ran)
    assert error.startswith("error: ") or ": error: " in error
    assert hint.startswith("hint: ")
    return error, hint.removeprefix("hint: ")


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a configuration, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


@pytest.fixture
def ready(project18: Project, database18: Database) -> Iterator[Project]:
    """A project that would work; its database must be as it was when the test has ended."""
    table(database18)
    project18.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    before = catalogue(database18)
    yield project18
    assert catalogue(database18) == before


WRITES = ("apply", "--yes")


# the configuration


@pytest.mark.parametrize(
    "command", [("indexes", "plan"), ("indexes", "apply", "--yes"), ("verify",), ("config", "show")]
)
def test_no_configuration(nothing: Path, command: tuple[str, ...]) -> None:
    ran = run(*command)
    error, cure = one_line_and_cure(ran)
    assert ran.code == 2
    assert error.startswith("error: no configuration")
    assert "DATABASE_URL" in cure
    assert list(nothing.iterdir()) == []


@pytest.mark.usefixtures("nothing")
def test_a_configuration_that_is_not_there() -> None:
    ran = run("indexes", "plan", "--config", "none.yaml")
    assert ran.code == 2
    assert "none.yaml: error: no such file or directory" in ran.stderr


def test_yaml_with_a_tab(ready: Project) -> None:
    ready.config.write_text("version: 1\ntargets:\n\ttest:\n")
    ran = ready.text(*WRITES)
    assert ran.code == 2
    assert ":3:1: error: " in said(ran)[0]
    assert "tab" in ran.stderr


def test_an_unknown_key(ready: Project) -> None:
    ready.configure("version: 1\ntargets:\n  test:\n    protectd: true\n    database: {dsn: '{dsn}'}\n")
    ran = ready.text(*WRITES)
    assert ran.code == 2
    assert ':4:5: error: unknown key "protectd" under targets.test' in said(ran)[0]
    assert 'did you mean "protected"?' in ran.stderr


def test_an_unknown_target(ready: Project) -> None:
    ran = ready.text(*WRITES, "--target", "tset")
    error, cure = one_line_and_cure(ran)
    assert (ran.code, error) == (2, 'error: unknown target "tset"; the targets are: "test"')
    assert cure == 'did you mean "test"?'


def test_two_targets_are_told_as_json_too(ready: Project) -> None:
    ran = ready.run(*WRITES, "--target", "test", "--target", "other")
    assert (ran.code, ran.report["error"]["class"]) == (2, "UsageError")
    assert "--target: one at a time; test, other were named" in ran.stderr


def test_a_target_without_a_database(ready: Project) -> None:
    ready.configure("version: 1\ntargets:\n  test:\n    cache: {url: 'redis://localhost'}\n")
    ran = ready.text("plan", str(ready.migrations))
    assert (ran.code, one_line_and_cure(ran)[0]) == (2, 'error: target "test" has no database')


def test_a_variable_that_is_not_set(ready: Project) -> None:
    ready.configure("version: 1\ntargets:\n  test:\n    database: {dsn: '${NOT_SET_ANYWHERE}'}\n")
    ran = ready.text(*WRITES)
    assert ran.code == 2
    assert "NOT_SET_ANYWHERE" in said(ran)[0]


# the server


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def unreachable(project: Project, database: str, *options: str) -> tuple[Ran, float]:
    """A plan on a database that does not answer, and the seconds that it took."""
    project.configure(f"version: 1\ntargets:\n  test:\n    database: {database}\nindexes: {{migrations: migrations}}\n")
    began = time.monotonic()
    ran = project.text(*WRITES, *options)
    return ran, time.monotonic() - began


def test_a_server_that_never_answers(ready: Project, deaf: int) -> None:
    address = f"{{host: 127.0.0.1, port: {deaf}, user: me, dbname: x, connect_timeout: 2s}}"
    ran, took_s = unreachable(ready, address)
    error, _ = one_line_and_cure(ran)
    assert ran.code == 3
    assert error.startswith(f"error: me@127.0.0.1:{deaf}/x: ")
    assert "timeout" in error
    assert took_s < 5


def test_the_timeout_of_the_command_line_bounds_the_connect(ready: Project, deaf: int) -> None:
    ran, took_s = unreachable(ready, f"{{host: 127.0.0.1, port: {deaf}, user: me, dbname: x}}", "--timeout", "2s")
    assert ran.code == 3
    assert took_s < 4.5


def test_a_port_where_nobody_listens(ready: Project) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ran, took_s = unreachable(ready, f"{{host: 127.0.0.1, port: {port}, user: me, dbname: x}}")
    assert ran.code == 3
    assert "refused" in one_line_and_cure(ran)[0]
    assert took_s < 2


def test_a_host_that_does_not_exist(ready: Project) -> None:
    ran, _ = unreachable(ready, "{host: no-such-host.invalid, user: me, dbname: x, connect_timeout: 2s}")
    assert ran.code == 3
    assert "no-such-host.invalid" in said(ran)[0]


def test_a_socket_folder_that_does_not_exist(ready: Project) -> None:
    ran, _ = unreachable(ready, "{host: /no/such/folder, user: me, dbname: x}")
    assert ran.code == 3
    assert "/no/such/folder" in one_line_and_cure(ran)[0]


def test_a_database_that_does_not_exist(ready: Project, database18: Database) -> None:
    ready.configure(ready.config.read_text().replace(f"/{database18.name}?", "/nothing_here?"))
    ran = ready.text(*WRITES)
    error, cure = one_line_and_cure(ran)
    assert ran.code == 2
    assert 'database "nothing_here" does not exist' in error
    assert cure.startswith("createdb nothing_here")


def test_a_role_that_does_not_exist(ready: Project) -> None:
    ready.configure(ready.config.read_text().replace("postgres@/", "nobody_here@/"))
    ran = ready.text(*WRITES)
    assert ran.code == 7
    assert 'role "nobody_here" does not exist' in one_line_and_cure(ran)[0]


def test_a_service_that_is_not_defined(ready: Project) -> None:
    ran, _ = unreachable(ready, "{service: no_such_service}")
    assert ran.code == 2
    assert "no_such_service" in one_line_and_cure(ran)[0]


# the migrations


def test_an_empty_folder_of_migrations(ready: Project) -> None:
    (ready.migrations / "1_a.sql").unlink()
    ran = ready.text(*WRITES)
    error, cure = one_line_and_cure(ran)
    assert (ran.code, error) == (2, f'error: no migrations in "{ready.migrations}"')
    assert cure.startswith("put NNN_name.sql files there")


def test_a_folder_of_migrations_that_is_not_there(ready: Project) -> None:
    ready.configure(ready.config.read_text().replace("migrations: migrations", "migrations: elsewhere"))
    ran = ready.text(*WRITES)
    assert ran.code == 2
    assert "elsewhere" in one_line_and_cure(ran)[0]


def test_a_table_that_does_not_exist(ready: Project) -> None:
    path = ready.migration("2_b", "\nCREATE INDEX CONCURRENTLY j ON s.missing (a);")
    ran = ready.text(*WRITES)
    assert ran.code == 4
    assert f'{path}:2:1: s.j: table "s.missing" does not exist' in ran.stderr
    assert "run the migration that creates it first" in ran.stderr


def test_a_column_that_does_not_exist(ready: Project) -> None:
    path = ready.migration("2_b", "CREATE INDEX CONCURRENTLY j ON t (missing);")
    ran = ready.text(*WRITES)
    assert ran.code == 4
    assert f'{path}:1:1: public.j: the server does not take it: column "missing" does not exist' in ran.stderr


def test_two_migrations_of_one_number(ready: Project) -> None:
    ready.migration("001_b", "CREATE INDEX CONCURRENTLY j ON t (b);")
    ran = ready.text(*WRITES)
    error, cure = one_line_and_cure(ran)
    assert ran.code == 2
    assert "001_b.sql" in error
    assert "1_a.sql" in error
    assert "next free number" in cure


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"CREATE INDEX " + b"i" * 70 + b" ON t (a);", "has 70 bytes; PostgreSQL keeps 63"),
        (b"CREATE INDEX i\0 ON t (a);", "NUL byte"),
        ("CREATE INDEX größe ON t (a);".encode("latin-1"), "is not UTF-8"),
        ("CREATE INDEX i ON t (a);".encode("utf-16"), "NUL byte"),
        (b"CREATE INDEX i ON t (a) WERE b;", 'syntax error at or near "WERE"'),
        (b"CREATE INDEX i ON t (a", "syntax error at end of input"),
        (b"CREATE TABLE t2 (a int);", '"CREATE TABLE t2" is not allowed'),
        (b"BEGIN; CREATE INDEX i ON t (a); COMMIT;", '"BEGIN" is not allowed'),
        (b"\\! rm -rf /\n", 'psql command "\\!" is not allowed'),
    ],
)
def test_a_file_that_cannot_be_used(ready: Project, data: bytes, words: str) -> None:
    path = ready.migrations / "2_b.sql"
    path.write_bytes(data)
    ran = ready.text(*WRITES)
    assert ran.code == 2
    assert said(ran)[0].startswith(f"{path}:1")
    assert words in said(ran)[0]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfCREATE INDEX CONCURRENTLY i ON t (a);",
        b"-- head\r\nCREATE INDEX CONCURRENTLY i\r\n  ON t (a)\r\n;\r\n",
    ],
)
def test_a_byte_order_mark_and_crlf_are_no_mistakes(project18: Project, database18: Database, data: bytes) -> None:
    table(database18)
    (project18.migrations / "1_a.sql").write_bytes(data)
    assert project18.apply().code == 0
    assert project18.run("verify").code == 0


def test_a_folder_without_permission_is_named(ready: Project) -> None:
    path = ready.migrations / "2_b.sql"
    path.mkdir()
    ran = ready.text(*WRITES)
    assert ran.code == 2
    assert f'migration "{path}" cannot be read' in said(ran)[0]


# the command line


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-flag",),
        ("indexes", "no-such-command"),
        ("indexes", "apply", "--to", "1"),
        ("indexes", "rollback", "--to", "soon"),
    ],
)
@pytest.mark.usefixtures("nothing")
def test_a_bad_command_line(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr


@pytest.mark.parametrize("value", ["soon", "15", "-3s", ""])
def test_a_duration_without_a_unit(ready: Project, value: str) -> None:
    ran = ready.text(*WRITES, "--wait-budget", value)
    assert ran.code == 2
    assert "durations carry a unit" in one_line_and_cure(ran)[1]


def test_an_old_server_is_refused(ready: Project) -> None:
    """No server below 13 is at hand: one that says it is 12 and hangs up is enough for the words."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        plain = "sslmode: disable, gssencmode: disable"
        ready.configure(
            "version: 1\ntargets:\n  test:\n"
            f"    database: {{host: 127.0.0.1, port: {port}, user: me, dbname: x, {plain}}}\n"
            "indexes: {migrations: migrations}\n"
        )
        process = ready.start("plan", form="text")
        ran = play_postgres_12(listener, process)
    assert ran.code == 4
    assert "runs PostgreSQL 12; perfctl needs 13 or newer" in one_line_and_cure(ran)[0]


def play_postgres_12(listener: socket.socket, process: Process) -> Ran:
    """Greet the client as PostgreSQL 12 does, and answer every query with nothing."""
    listener.settimeout(20)
    with listener.accept()[0] as client:
        client.recv(4096)
        client.sendall(message(b"R", (0).to_bytes(4, "big")))
        for name, value in (
            ("server_version", "12.22"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        ):
            client.sendall(message(b"S", f"{name}\0{value}\0".encode()))
        client.sendall(message(b"K", bytes(8)) + message(b"Z", b"I"))
        while (asked := client.recv(4096)) and not asked.startswith(b"X"):
            row = message(b"T", b"\0\1x\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + b"\xff" * 4 + b"\0\0")
            answer = (b"1" + (4).to_bytes(4, "big")) + (b"2" + (4).to_bytes(4, "big")) + row
            answer += message(b"D", b"\0\1" + (1).to_bytes(4, "big") + b"0") + message(b"C", b"SELECT 1\0")
            client.sendall(answer + message(b"Z", b"I"))
    return process.wait()


def message(kind: bytes, body: bytes) -> bytes:
    """One message of the server's side of the protocol."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def test_nothing_of_a_project_is_needed_for_lint(nothing: Path) -> None:
    (nothing / "m.sql").write_text("CREATE INDEX i ON t (a);")
    assert run("indexes", "lint", "m.sql").code == 1


def test_a_failed_part_of_perfctl_verify_keeps_its_code(ready: Project) -> None:
    ready.configure(ready.config.read_text().replace("postgres@/", "nobody_here@/"))
    ran = run("verify", "--config", str(ready.config), "--format", "json")
    assert (ran.code, ran.statuses) == (7, {"test": "unknown"})
