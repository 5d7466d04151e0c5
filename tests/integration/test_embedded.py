"""The embedded servers: started, crashed, left running, and gone when they should be."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from perfctl.embedded import (
    Installation,
    MissingServer,
    NotStarted,
    PostgresServer,
    find_postgres,
    find_valkey,
    kept_servers,
    postgres_installations,
    start_postgres,
    start_valkey,
    stop_kept,
)
from perfctl.embedded.account import server_account
from perfctl.embedded.home import SOCKET_PATH_MAX
from perfctl.embedded.postgres import StopMode
from perfctl.embedded.process import is_server, stop_process
from perfctl.embedded.relocate import usable_by
from perfctl.errors import Refused, UsageError
from tests.fix_servers import MAJORS, Cache, Cluster, Database

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up its rights")

#: Starts both servers, says where they are, and then does nothing until it is killed.
PARENT = """
import os, signal, sys
from perfctl.embedded import start_postgres, start_valkey
# A shell that begins the tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
postgres, valkey = start_postgres(), start_valkey()
forked = os.fork() if "fork" in sys.argv else None
if forked == 0:
    signal.pause()
print(postgres.pid, postgres.data_dir, valkey.pid, valkey.data_dir, forked or 0, flush=True)
signal.pause()
"""


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def answer(dsn: str, query: str = "SELECT 1") -> object:
    """The first value of a query."""
    with contextlib.closing(psycopg.connect(dsn, autocommit=True)) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        value: object = row[0]
        return value


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A folder that every account can come to, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(dir="/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server to stop and crash."""
    with start_postgres() as server:
        yield server


@pytest.mark.parametrize("major", MAJORS)
def test_a_server_starts_answers_and_leaves_nothing(major: int, pg_cluster: Callable[[int], Cluster]) -> None:
    pg_cluster(major)  # skips a version that is not there
    with start_postgres(find_postgres(major)) as server:
        assert str(answer(server.dsn(), "SHOW server_version")).startswith(f"{major}.")
        assert answer(server.dsn(), "SHOW server_encoding") == "UTF8"
        assert answer(server.dsn(), "SHOW listen_addresses") == ""
        pid, home = server.pid, server.data_dir.parent
        assert server.running
    assert not server.running
    assert not is_server(pid, server.data_dir)
    assert not home.exists()


def test_two_servers_live_side_by_side() -> None:
    with start_postgres() as one, start_postgres() as other:
        assert one.data_dir != other.data_dir
        answer(one.dsn(), "SELECT pg_reload_conf()")
        assert answer(other.dsn()) == 1


def test_only_its_account_comes_to_a_server(postgres: PostgresServer) -> None:
    for folder in (postgres.data_dir, postgres.socket_dir):
        assert folder.stat().st_mode & 0o077 == 0
        assert folder.stat().st_uid == server_account().uid
    assert postgres.data_dir.parent.stat().st_mode & 0o007 == 0
    assert postgres.data_dir.parent.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_a_stopped_server_starts_again_on_its_data(mode: StopMode, postgres: PostgresServer) -> None:
    with contextlib.closing(psycopg.connect(postgres.dsn(), autocommit=True)) as connection:
        connection.execute(f"CREATE TABLE kept_{mode} ()")
    postgres.stop(mode)
    assert not postgres.running
    postgres.start()
    assert answer(postgres.dsn(), f"SELECT count(*) FROM kept_{mode}") == 0


def test_a_crash_takes_every_backend_along(postgres: PostgresServer) -> None:
    with contextlib.closing(psycopg.connect(postgres.dsn(), autocommit=True)) as connection:
        backend = connection.info.backend_pid
        postgres.kill()
        assert not is_server(backend, postgres.data_dir)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres.start()
    assert answer(postgres.dsn(), "SELECT 1") == 1
    assert "was not properly shut down" in postgres.log_tail(50)


@pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="the system does not list its segments")
def test_a_crashed_server_leaves_no_shared_memory() -> None:
    with start_postgres() as server:
        segment = (server.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]
        assert segment in _segments()
        server.kill()
    assert segment not in _segments()


def test_a_restart_takes_new_settings(postgres: PostgresServer) -> None:
    postgres.restart(settings={"work_mem": "7MB", "search_path": '"a\'b\\c", public'})
    assert answer(postgres.dsn(), "SHOW work_mem") == "7MB"
    assert answer(postgres.dsn(), "SHOW search_path") == '"a\'b\\c", public'


def test_a_bad_setting_is_told_with_the_log() -> None:
    with pytest.raises(NotStarted, match="exit code") as raised:
        start_postgres(settings={"max_connections": "many"})
    assert 'invalid value for parameter "max_connections": "many"' in raised.value.log_tail
    assert raised.value.log_tail.splitlines()[-1].strip() in str(raised.value)


@pytest.mark.parametrize(("name", "value"), [("work_mem", "1MB'\nport = 1"), ("include 'x'\n#", "1"), ("a b", "1")])
def test_a_setting_cannot_smuggle_another_line(name: str, value: str) -> None:
    with pytest.raises(UsageError, match="cannot be set"):
        start_postgres(settings={name: value})


def test_a_long_temporary_folder_gets_a_short_socket(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = open_dir / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with start_postgres() as server, start_valkey() as cache:
        assert server.data_dir.is_relative_to(long)
        assert len(os.fsencode(server.socket_dir)) < SOCKET_PATH_MAX
        assert answer(server.dsn()) == 1
        assert len(os.fsencode(cache.socket_path)) <= SOCKET_PATH_MAX
        sockets = (server.socket_dir, cache.socket_dir)
    assert not any(folder.exists() for folder in sockets)
    assert list(long.glob("*/data")) == []


def test_loopback_asks_for_a_password() -> None:
    with start_postgres(tcp=True) as server:
        assert server.password
        assert answer(server.dsn(), "SHOW listen_addresses") == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn().replace(server.password, "wrong"))
        assert server.password not in " ".join(_arguments(server.pid))


def test_a_given_password_is_asked_for_at_the_socket() -> None:
    with start_postgres(password="it's \\ a secret") as server:
        assert answer(server.dsn()) == 1
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(server.socket_dir), user="postgres", password="wrong", dbname="postgres")


def test_given_hba_lines_are_in_force() -> None:
    with start_postgres(hba="local postgres postgres trust\n") as server:
        assert answer(server.dsn()) == 1
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            psycopg.connect(server.dsn("template1"))


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_servers_end_when_their_parent_is_killed(how: str) -> None:
    with _python(PARENT, how) as parent:
        assert parent.stdout is not None
        said = parent.stdout.readline().split()
        postgres_pid, valkey_pid, forked = int(said[0]), int(said[2]), int(said[4])
        postgres_data, valkey_data = Path(said[1]), Path(said[3])
        assert is_server(postgres_pid, postgres_data)
        assert is_server(valkey_pid, valkey_data)
        parent.kill()
    try:
        assert eventually(lambda: not postgres_data.parent.exists() and not valkey_data.parent.exists())
        assert not is_server(postgres_pid, postgres_data)
        assert not is_server(valkey_pid, valkey_data)
    finally:
        if forked:
            os.kill(forked, signal.SIGKILL)


def test_a_signal_to_the_terminals_processes_does_not_reach_the_servers() -> None:
    with _python(PARENT) as parent:
        assert parent.stdout is not None
        said = parent.stdout.readline().split()
        assert os.getsid(int(said[0])) != os.getsid(parent.pid)
        assert os.getsid(int(said[2])) != os.getsid(parent.pid)
        os.killpg(parent.pid, signal.SIGINT)
    assert eventually(lambda: not Path(said[1]).parent.exists())


def test_a_server_survives_the_loss_of_its_guard_and_is_still_stopped() -> None:
    server = start_postgres()
    try:
        assert server._guard is not None
        server._guard._process.kill()
        assert answer(server.dsn()) == 1
        server.stop()
        assert not server.running
    finally:
        server.remove()
    assert not server.data_dir.parent.exists()


def test_kept_servers_go_on_until_they_are_stopped(open_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from perfctl.embedded import start_postgres, start_valkey\n"
        "p = start_postgres(base_dir=Path(sys.argv[1]), keep=True)\n"
        "v = start_valkey(base_dir=Path(sys.argv[1]), keep=True)\n"
        "print(p.dsn()); print(v.url)"
    )
    base = open_dir / "demo"
    try:
        with _python(script, str(base)) as starter:
            assert starter.stdout is not None
            dsn, url = starter.stdout.read().split()
        assert answer(dsn) == 1
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        assert [(kept.kind, kept.running) for kept in kept_servers(base)] == [("PostgreSQL", True), ("Valkey", True)]
        with pytest.raises(Refused, match="already"):
            start_postgres(base_dir=base, keep=True)
    finally:
        stopped = stop_kept(base)
    assert stopped == ("PostgreSQL", "Valkey")
    assert [kept.running for kept in kept_servers(base)] == [False, False]
    assert stop_kept(base, remove=True) == ()
    assert list(base.iterdir()) == []


def test_a_kept_server_starts_again_on_its_data(open_dir: Path) -> None:
    try:
        first = start_postgres(base_dir=open_dir, keep=True)
        with contextlib.closing(psycopg.connect(first.dsn(), autocommit=True)) as connection:
            connection.execute("CREATE TABLE still_here ()")
        first.stop()
        second = start_postgres(base_dir=open_dir, keep=True)
        assert answer(second.dsn(), "SELECT count(*) FROM still_here") == 0
    finally:
        stop_kept(open_dir, remove=True)


def test_data_of_another_version_is_refused_and_left_alone(open_dir: Path) -> None:
    version = open_dir / "postgresql" / "data" / "PG_VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("9\n")
    with pytest.raises(Refused, match="is of PostgreSQL 9"):
        start_postgres(base_dir=open_dir, keep=True)
    assert version.exists()


def test_a_process_with_a_recycled_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger:
        try:
            assert stop_process(stranger.pid, tmp_path, ((signal.SIGKILL, 1.0),))
            assert stranger.poll() is None
        finally:
            stranger.kill()


@as_root
def test_root_gives_up_its_rights(postgres: PostgresServer) -> None:
    assert Path("/proc", str(postgres.pid)).stat().st_uid == server_account().uid
    groups = [line for line in _status(postgres.pid) if line.startswith("Groups:")]
    assert [line.split() for line in groups] == [["Groups:"]]


@as_root
def test_a_folder_that_the_account_cannot_come_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(UsageError, match="cannot come to"):
        start_postgres(base_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@as_root
def test_programs_that_the_account_cannot_come_to_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_dir: Path
) -> None:
    original = find_postgres(18)
    if not original.source.startswith("wheel"):
        pytest.skip("only a wheel is small enough to be copied in a test")
    package = original.prefix.parent
    tmp_path.chmod(0o700)
    shutil.copytree(package, tmp_path / package.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, tmp_path / libraries.name)
    bindir = tmp_path / package.name / original.prefix.name / "bin"
    monkeypatch.setenv("PERFCTL_POSTGRES", str(bindir))
    closed = find_postgres(18)
    assert closed.bindir == bindir
    copy = usable_by(server_account(), closed, (open_dir,))
    with start_postgres(copy) as server:
        assert server.installation.bindir.is_relative_to(open_dir)
        query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"
        assert answer(server.dsn(), query) == 1
    made = (copy.bindir / "postgres").stat().st_ino
    usable_by(server_account(), closed, (open_dir,))
    assert (copy.bindir / "postgres").stat().st_ino == made
    # A cleaner of temporary folders may take single files; then the copy is made anew.
    next(copy.prefix.glob("share/**/postgres.bki")).unlink()
    again = usable_by(server_account(), closed, (open_dir,))
    assert any(again.prefix.glob("share/**/postgres.bki"))


@as_root
def test_a_folder_for_copies_that_is_not_ours_is_not_used(tmp_path: Path, open_dir: Path) -> None:
    squatted = open_dir / f"perfctl-servers-{os.geteuid()}"
    squatted.mkdir()
    os.chown(squatted, server_account().uid, -1)
    program = tmp_path / "bin" / "postgres"
    closed = Installation("18.0", 18, program.parent, "environment", contrib=False)
    (tmp_path / "share").mkdir()
    with pytest.raises(UsageError, match="no folder is safe"):
        usable_by(server_account(), closed, (open_dir,))


@as_root
def test_a_normal_user_starts_a_server() -> None:
    """Under nobody, with any Python that this user can run: the embedded servers need no other package."""
    account = server_account()
    candidates = [sys.executable, *filter(None, (shutil.which("python3", path="/usr/local/bin:/usr/bin"),))]
    script = (
        "from perfctl.embedded import start_postgres, start_valkey\n"
        "with start_postgres() as p, start_valkey() as v:\n    print('up', p.pid, v.pid, p.log_tail(1))"
    )
    for python in candidates:
        new_enough = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        usable = account.can_reach(Path(python), os.X_OK) and account.can_reach(ROOT / "perfctl", os.X_OK)
        if usable and subprocess.run(new_enough, check=False).returncode == 0:
            break
    else:
        pytest.skip(f'no Python >= 3.11 that user "{account.name}" can run')
    done = subprocess.run(
        [python, "-B", "-c", script],
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "PERFCTL_POSTGRES": str(usable_by(account, find_postgres()).bindir),
            "PERFCTL_VALKEY": str(find_valkey()),
        },
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("up ")
    assert "ready to accept connections" in done.stdout


def test_installations_are_found_in_order_and_once() -> None:
    found = postgres_installations()
    assert found
    assert len({each.bindir for each in found}) == len(found)
    kinds = ["environment", "system", "wheel"]
    order = [kinds.index(each.source.split()[0]) for each in found]
    assert order == sorted(order)


def test_the_environment_names_a_postgres_before_all_others() -> None:
    last = postgres_installations()[-1]
    environ = {"PERFCTL_POSTGRES": str(last.bindir), "PATH": os.environ.get("PATH", "")}
    first = postgres_installations(environ)[0]
    assert (first.bindir, first.source, first.version) == (last.bindir, "environment", last.version)
    assert find_postgres(environ=environ) == first


def test_a_wrong_name_in_the_environment_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PERFCTL_POSTGRES names"):
        postgres_installations({"PERFCTL_POSTGRES": str(tmp_path)})
    with pytest.raises(UsageError, match="PERFCTL_VALKEY names"):
        find_valkey({"PERFCTL_VALKEY": str(tmp_path)})


def test_a_version_that_is_not_there_is_told_with_the_cure() -> None:
    with pytest.raises(MissingServer, match="no PostgreSQL 9 was found") as raised:
        find_postgres(9)
    assert raised.value.hint is not None
    assert "PERFCTL_POSTGRES" in raised.value.hint


def test_valkey_answers(valkey: Cache) -> None:
    with valkey.connect() as client:
        assert client.ping()
        assert client.dbsize() == 0
        assert client.config_get("save") == {"save": ""}


def test_valkey_by_loopback_asks_for_a_password() -> None:
    with start_valkey(tcp=True, settings={"maxmemory": "10mb", "save": "900 1 300 10"}) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("maxmemory") == {"maxmemory": str(10 * 1024**2)}
            assert client.config_get("save") == {"save": "900 1 300 10"}
        once = Retry(NoBackoff(), 0)
        with (
            redis.Redis(host="127.0.0.1", port=server.port, retry=once) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        home = server.data_dir.parent
    assert not home.exists()


def test_valkey_starts_again_after_a_crash() -> None:
    with start_valkey() as server:
        first = server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.pid != first
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_a_bad_valkey_setting_is_told_with_the_log() -> None:
    with pytest.raises(NotStarted, match="Bad directive"):
        start_valkey(settings={"no-such-directive": "1"})


def test_fresh_databases_do_not_see_each_other(pg18_server: Cluster) -> None:
    with pg18_server.fresh() as one, pg18_server.fresh() as other:
        with one.connect() as connection:
            connection.execute("CREATE TABLE only_here ()")
        with other.connect() as connection:
            assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)


def test_a_database_goes_away_in_spite_of_its_users(pg18_server: Cluster) -> None:
    with pg18_server.fresh() as database:
        forgotten = database.connect()
        forgotten.execute("CREATE TABLE t ()")
        forgotten.execute("BEGIN")
        forgotten.execute("INSERT INTO t DEFAULT VALUES")
        forgotten.execute("PREPARE TRANSACTION 'forgotten'")
    forgotten.close()
    with pg18_server.connect() as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        assert connection.execute(query, [database.name]).fetchone() == (0,)


def test_the_reference_system_is_there(reference_db: Database) -> None:
    with reference_db.connect() as connection:
        row = connection.execute("SELECT count(*) FROM production.analysis_sessions").fetchone()
        assert row is not None
        assert row[0] > 0


@contextlib.contextmanager
def _python(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own session with this script; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        start_new_session=True,
    ) as process:
        try:
            yield process
            process.wait(60)
        finally:
            process.kill()


def _arguments(pid: int) -> list[str]:
    said = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return said.stdout.split()


def _segments() -> list[str]:
    return [line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()]


def _status(pid: int) -> list[str]:
    return Path("/proc", str(pid), "status").read_text().splitlines()
