"""The network between perfctl and the server fails: perfctl finds out what became of its build."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.faults.declare import fault
from tests.fix_builds import oid
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, until
from tests.fix_phases import (
    PHASE_IDS,
    PHASES,
    SCANNING,
    SLOW,
    builders,
    elsewhere,
    held_at,
    slow_function,
    until_idle,
    watchers,
)
from tests.fix_proxy import Proxy, proxied
from tests.fix_servers import Database
from tests.fix_sessions import send, table, until_it_waits

GOOD = (True, True, True)
SEND = ("apply", "--yes", "--blocker-age", "1h")
AT_EACH_PHASE = pytest.mark.parametrize("phase", PHASES, ids=PHASE_IDS)


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A proxy in front of the database."""
    with proxied(database) as found:
        yield found


@pytest.fixture
def far(project: Project, database: Database, proxy: Proxy) -> Project:
    """A table t and a migration whose build can be held in any phase, behind the proxy."""
    table(database)
    slow_function(database)
    project.migration("1_a", SLOW)
    return elsewhere(project, proxy.dsn)


@fault(21, "the connection is cut during a build", does="asks afresh and adopts what the server finishes")
@AT_EACH_PHASE
def test_a_build_whose_connection_is_cut_is_adopted(far: Project, database: Database, proxy: Proxy, phase: str) -> None:
    before = catalogue(database)
    with held_at(database, phase, lambda: far.start(*SEND)) as process:
        made, (lost,), (watcher,) = oid(database, "i"), builders(database), watchers(database)
        proxy.drop()
        until(lambda: watchers(database) not in ([], [watcher]))
        assert builders(database) == [lost]
    ran = process.wait()
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed"})
    assert "the connection was lost, the server went on and finished it" in ran.items["public.i"]["detail"]
    assert (oid(database, "i"), flags(database, "i")) == (made, GOOD)
    assert journal(database) == [("create_index", "i", "done")]
    assert far.rollback().code == 0
    assert catalogue(database) == before


@fault(
    21,
    "the connection is cut during a build, and the server is not to be reached again",
    does="says that what became of the index could not be seen, and the next run clears it away",
)
def test_a_build_whose_server_is_gone_for_good(far: Project, database: Database, proxy: Proxy) -> None:
    with held_at(database, SCANNING, lambda: far.start(*SEND)) as process:
        (lost,) = builders(database)
        proxy.close()
        send(database, f"SELECT pg_cancel_backend({lost})")
    ran = process.wait()
    assert ran.code == 5
    seen = '"public.i": what became of it could not be seen; the next run looks, and clears away what is broken'
    assert seen in ran.report["error"]["message"]
    until_idle(database)
    assert flags(database, "i") not in (None, GOOD)
    assert (elsewhere(far, database.dsn).apply().code, flags(database, "i")) == (0, GOOD)


@fault(21, "the connection is cut during a build", does="goes on with the builds that are left")
def test_a_run_whose_connection_is_cut_builds_the_rest(far: Project, database: Database, proxy: Proxy) -> None:
    table(database, "o")
    far.migration("2_b", "CREATE INDEX CONCURRENTLY j ON o (a);")
    with held_at(database, SCANNING, lambda: far.start(*SEND, "--jobs", "1")) as process:
        proxy.drop()
    ran = process.wait()
    assert (ran.code, ran.statuses) == (0, {"public.i": "changed", "public.j": "changed"})
    assert (flags(database, "i"), flags(database, "j")) == (GOOD, GOOD)


@fault(21, "the connection is cut, and the build fails on the server", does="drops what is left and says both")
def test_a_build_that_fails_after_its_connection_was_cut_leaves_nothing(
    far: Project, database: Database, proxy: Proxy
) -> None:
    before = catalogue(database)
    with held_at(database, SCANNING, lambda: far.start(*SEND)) as process:
        (lost,), (watcher,) = builders(database), watchers(database)
        proxy.drop()
        until(lambda: watchers(database) not in ([], [watcher]))
        send(database, f"SELECT pg_cancel_backend({lost})")
        until(lambda: process.popen.poll() is not None)
    ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert "the connection was lost" in ran.report["error"]["message"].splitlines()[0]
    assert (catalogue(database), journal(database)) == (before, [("create_index", "i", "failed")])


@fault(21, "the network goes deaf during a build, and hears again", does="waits, and takes the answer that comes late")
@AT_EACH_PHASE
def test_a_build_is_waited_for_while_the_network_is_deaf(
    far: Project, database: Database, proxy: Proxy, phase: str
) -> None:
    with held_at(database, phase, lambda: far.start(*SEND)) as process:
        made = oid(database, "i")
        proxy.deafen()
    until_idle(database)
    # The server has long finished, and perfctl knows nothing of it.
    assert (flags(database, "i"), process.popen.poll()) == (GOOD, None)
    assert journal(database) == [("create_index", "i", "started")]
    proxy.hear()
    ran = process.wait()
    assert (ran.code, ran.statuses, oid(database, "i")) == (0, {"public.i": "changed"}, made)
    assert journal(database) == [("create_index", "i", "done")]


@fault(21, "the network goes deaf and then cuts the connection", does="asks afresh once it hears again, and adopts")
@AT_EACH_PHASE
def test_a_build_is_adopted_after_the_network_was_deaf_and_cut(
    far: Project, database: Database, proxy: Proxy, phase: str
) -> None:
    with held_at(database, phase, lambda: far.start(*SEND)) as process:
        made = oid(database, "i")
        proxy.deafen()
        proxy.drop()
    until_idle(database)
    assert (flags(database, "i"), process.popen.poll()) == (GOOD, None)
    proxy.hear()
    ran = process.wait()
    assert (ran.code, ran.statuses, oid(database, "i")) == (0, {"public.i": "changed"}, made)
    assert far.rollback().code == 0


@fault(21, "a load balancer forgets the silent connection of a build", does="hangs up and asks what became of it")
def test_an_answer_that_got_lost_is_not_waited_for(project18: Project, database18: Database) -> None:
    table(database18)
    slow_function(database18)
    project18.migration("1_a", SLOW)
    with proxied(database18) as proxy:
        far = elsewhere(project18, proxy.dsn)
        with held_at(database18, SCANNING, lambda: far.start(*SEND)) as process:
            made = oid(database18, "i")
            # The watcher has spoken since the build was sent.
            until(lambda: journal(database18, "object_oid") == [(made,)])
            proxy.forget_most_silent()
        ran = process.wait()
    assert (ran.code, ran.statuses, oid(database18, "i")) == (0, {"public.i": "changed"}, made)
    assert "the server went on and finished it" in ran.items["public.i"]["detail"]
    assert flags(database18, "i") == GOOD


@fault(21, "the connection is cut during a drop", does="asks afresh and takes the drop for done")
def test_a_drop_whose_connection_is_cut_is_waited_for(far: Project, database: Database, proxy: Proxy) -> None:
    assert far.apply().code == 0
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        process = far.start("rollback", "--yes")
        until_it_waits(database)
        (watcher,) = watchers(database)
        proxy.drop()
        until(lambda: watchers(database) not in ([], [watcher]))
        reader.rollback()
    ran = process.wait()
    assert (ran.code, ran.statuses, names(database)) == (0, {"public.i": "changed"}, set())
    assert far.rollback().items == {}


@fault(60, "a build fails, and the connection is cut during the clean-up", does="keeps the first error first")
def test_a_cut_during_the_clean_up_does_not_hide_why_it_failed(far: Project, database: Database, proxy: Proxy) -> None:
    before = catalogue(database)
    send(database, "INSERT INTO t VALUES (42, 0)")
    far.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);")
    with reading(database):
        process = far.start(*SEND)
        until(lambda: dropping(database))
        (watcher,) = watchers(database)
        proxy.drop()
        until(lambda: watchers(database) not in ([], [watcher]) or process.popen.poll() is not None)
    ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    first, *rest = ran.report["error"]["message"].splitlines()
    assert "could not create unique index" in first
    assert "the connection was lost" in " ".join(rest)
    until_idle(database)
    assert catalogue(database) == before


@contextlib.contextmanager
def reading(database: Database) -> Iterator[None]:
    """An open transaction that has read t: it keeps no build waiting, and every drop."""
    with database.connect(autocommit=False, application_name="web") as connection:
        connection.execute("SELECT FROM t")
        yield
        connection.rollback()


def dropping(database: Database) -> bool:
    """Whether a perfctl drops something."""
    query = (
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'perfctl/%' AND datname = current_database()"
        " AND state = 'active' AND query LIKE 'DROP INDEX%' AND wait_event_type = 'Lock'"
    )
    with database.connect() as connection:
        return connection.execute(query).rowcount > 0
