"""Transactions that stand in the way: perfctl waits for them before it builds, names them, and gives up in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.faults.declare import fault
from tests.faults.listen import meanwhile, until_it_has_waited, until_it_holds_back
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, Ran, until
from tests.fix_servers import Database
from tests.fix_sessions import broken_ready, broken_unready, half_dropped, old_snapshot, send, table, writer

GOOD = (True, True, True)
ONE = "CREATE INDEX CONCURRENTLY i ON t (a);"
TWO = f"{ONE} CREATE INDEX CONCURRENTLY j ON o (a);"
#: every transaction is old, and none is waited for long
BRIEFLY = ("--blocker-age", "0s", "--wait-budget", "300ms")
#: a build is begun all the same, and cut in its wait
IN_THE_BUILD = ("--blocker-age", "1h", "--wait-budget", "300ms")
#: the seconds after which a session on the list is ended, and some more
LONGER_THAN_MERCY = ("--blocker-age", "0s", "--wait-budget", "7s")


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", ONE)
    return project


@pytest.fixture
def two(project: Project, database: Database) -> Project:
    """Tables t and o, and a migration that wants index i on t first, and j on o."""
    table(database)
    table(database, "o")
    project.migration("1_a", TWO)
    return project


@pytest.fixture
def one18(project18: Project, database18: Database) -> Project:
    """The same as ``one``, on PostgreSQL 18 only."""
    table(database18)
    project18.migration("1_a", ONE)
    return project18


@contextmanager
def session(database: Database, *statements: str, **options: Any) -> Iterator[psycopg.Connection[Any]]:
    """A session with an open transaction; it may be ended by somebody else."""
    with closing(database.connect(autocommit=False, **options)) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection


@contextmanager
def prepared(database: Database, gid: str = "order 4711") -> Iterator[str]:
    """A prepared transaction that has written; no session is behind it."""
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (-1, -1)")
        connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
        # What the driver would send at the end has nothing to end.
        connection.close()
    yield gid
    if prepared_there(database) == [gid]:
        send(database, f"ROLLBACK PREPARED '{gid}'")


def prepared_there(database: Database) -> list[str]:
    with database.connect() as connection:
        query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        return [gid for (gid,) in connection.execute(query)]


def oid(database: Database, name: str) -> int | None:
    with database.connect() as connection:
        row = connection.execute("SELECT to_regclass(%s)::oid::bigint", [name]).fetchone()
    return row[0] if row else None


def states(database: Database) -> list[tuple[Any, ...]]:
    return journal(database, "name, state")


def not_sent(ran: Ran, database: Database, before: list[tuple[Any, ...]]) -> str:
    """What perfctl says of a build that it did not begin; nothing is built, and nothing was tried."""
    assert (ran.code, ran.report["error"]["class"], ran.statuses) == (6, "Busy", {"public.i": "failed"})
    assert (catalogue(database), journal(database)) == (before, [])
    assert "--wait-budget" in ran.report["error"]["hint"]
    assert "not sent: " in ran.items["public.i"]["detail"]
    return ran.stderr


# who is waited for before a build


@fault(
    12,
    "pg_dump or a report holds an old snapshot for hours",
    does="waits before the build and names it; when the budget is spent nothing has been built",
)
def test_an_old_snapshot_is_waited_for_before_the_build(one: Project, database: Database) -> None:
    before = catalogue(database)
    with old_snapshot(database) as blocker:
        said = not_sent(one.apply(*BRIEFLY), database, before)
        assert f"pid {blocker.info.backend_pid} (postgres, pg_dump, idle in transaction, open for " in said
    assert "SELECT 1" in said


@fault(
    13,
    "a writer of the table sits idle in its transaction",
    does="waits before the build and names it; when the budget is spent nothing has been built",
)
def test_an_idle_writer_is_waited_for_before_the_build(one: Project, database: Database) -> None:
    before = catalogue(database)
    with writer(database) as blocker:
        said = not_sent(one.apply(*BRIEFLY), database, before)
        assert f"pid {blocker.info.backend_pid} (postgres, web, idle in transaction, open for " in said
    assert "INSERT INTO t VALUES (-1, -1)" in said


@fault(
    14,
    "a prepared transaction that nobody sees has written to the table",
    does="finds it, names its gid and the statement that ends it, waits, and never ends it",
)
def test_a_prepared_transaction_is_waited_for_before_the_build(one: Project, database: Database) -> None:
    before = catalogue(database)
    with prepared(database) as gid:
        said = not_sent(one.apply(*BRIEFLY), database, before)
        assert f"prepared transaction {gid} (postgres, open for " in said
        assert f"ROLLBACK PREPARED '{gid}'" in said
        assert prepared_there(database) == [gid]


@fault(
    14,
    "a prepared transaction that nobody sees has written to the table",
    does="finds it, names its gid and the statement that ends it, waits, and never ends it",
)
def test_a_prepared_transaction_that_a_build_met_is_named(one: Project, database: Database) -> None:
    with prepared(database) as gid:
        ran = one.apply(*IN_THE_BUILD)
        assert f"prepared transaction {gid}" in ran.stderr
    # The leftover's drop has to wait for it as well.
    assert (ran.code, flags(database, "i")) == (5, (False, False, True))
    assert "leftover" in ran.stderr
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD


BLOCKERS = pytest.mark.parametrize(
    "blocker", [old_snapshot, writer, prepared], ids=["old-snapshot", "writer", "prepared"]
)


@fault(5, "the blocker that a build was kept by ends", does="goes on by itself and builds once")
@BLOCKERS
def test_the_build_goes_on_when_the_blocker_ends(
    one: Project, database: Database, blocker: Callable[[Database], AbstractContextManager[Any]]
) -> None:
    held = blocker(database)
    held.__enter__()
    with meanwhile(one, "--blocker-age", "0s") as ran:
        until_it_holds_back(database, ran)
        tried = journal(database)
        held.__exit__(None, None, None)
    assert (ran.result().code, tried, states(database)) == (0, [], [("i", "done")])
    assert flags(database, "i") == GOOD


@fault(
    12,
    "a report that begins while perfctl waits",
    does="waits for the transactions that were there first, not for later ones: a busy database is never free",
)
def test_a_transaction_that_begins_later_does_not_keep_the_build_back(one: Project, database: Database) -> None:
    with writer(database) as first, meanwhile(one, "--blocker-age", "0s") as ran:
        until_it_holds_back(database, ran)
        with old_snapshot(database):
            first.rollback()
            # It is begun, and waits in its last phase now.
            until_it_has_waited(database, 0.0, ran)
            assert not ran.done()
            assert states(database) == [("i", "started")]
    assert ran.result().code == 0


# no storm of rebuilds

STORM = "the same blocker stays while the index is built again and again"


@fault(5, STORM, does="after one loss waits for the blocker first; a second run begins no build while it stays")
@pytest.mark.parametrize("blocker", [old_snapshot, writer], ids=["old-snapshot", "writer"])
def test_a_second_run_does_not_build_while_the_blocker_stays(
    one: Project, database: Database, blocker: Callable[[Database], AbstractContextManager[Any]]
) -> None:
    with blocker(database):
        assert one.apply(*IN_THE_BUILD).code in (5, 6)
        assert one.apply(*BRIEFLY).code in (5, 6)
        builds = [state for kind, state in journal(database, "kind, state") if kind == "create_index"]
    assert builds == ["failed"]
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD


# leftovers


@fault(
    2, "an invalid index is left by any failure", does="knows it by its flags, drops it concurrently and builds anew"
)
@pytest.mark.parametrize("leave", [broken_ready, broken_unready, half_dropped])
def test_a_leftover_is_dropped_and_the_index_built(
    one: Project, database: Database, leave: Callable[[Database], None]
) -> None:
    if leave is half_dropped:
        send(database, "CREATE INDEX i ON t (a)")
    leave(database)
    left = oid(database, "i")
    assert flags(database, "i") != GOOD
    assert one.apply().code == 0
    assert flags(database, "i") == GOOD
    assert oid(database, "i") != left


@fault(
    3,
    "a blind second try meets the first one's leftover: it already exists",
    does="looks into the catalogue before every try",
)
def test_a_second_try_after_a_cancelled_build_meets_no_leftover(one: Project, database: Database) -> None:
    cancel = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'CREATE INDEX%'"
    )
    with old_snapshot(database), meanwhile(one, "--blocker-age", "1h") as ran:
        until_it_has_waited(database, 0.0, ran)
        assert flags(database, "i") == (False, True, True)
        send(database, cancel)
        assert ran.result().code == 5
        assert names(database) == set()
    said = ran.result().stderr
    assert "somebody cancelled it on the server" in said
    assert "to go on: perfctl indexes apply" in said
    assert "--timeout" not in said
    again = one.apply()
    assert (again.code, flags(database, "i")) == (0, GOOD)
    assert "already exists" not in again.stderr


@fault(
    3,
    "somebody takes the index's name while perfctl waits",
    does="looks once more right before it builds, and leaves what is not its own",
)
def test_a_name_that_was_taken_while_perfctl_waited_is_left_alone(two: Project, database: Database) -> None:
    with old_snapshot(database) as blocker, meanwhile(two, "--blocker-age", "0s", "--only", "i") as ran:
        until_it_holds_back(database, ran)
        send(database, "CREATE INDEX i ON o (b)")
        taken = oid(database, "i")
        blocker.rollback()
    assert ran.result().code == 4
    assert "something of that name appeared since the plan was made; nothing was changed" in ran.result().stderr
    assert (oid(database, "i"), states(database)) == (taken, [])


@fault(
    3,
    "somebody builds the very index while perfctl waits",
    does="sees that it is there and right, and does not claim it for itself",
)
def test_an_index_that_somebody_built_while_perfctl_waited_is_theirs(one: Project, database: Database) -> None:
    with old_snapshot(database) as blocker, meanwhile(one, "--blocker-age", "0s") as ran:
        until_it_holds_back(database, ran)
        send(database, "CREATE INDEX i ON t (a)")
        blocker.rollback()
    assert (ran.result().code, ran.result().statuses) == (0, {"public.i": "skipped"})
    assert one.rollback().code == 0
    assert flags(database, "i") == GOOD


@fault(
    4,
    "IF NOT EXISTS takes an invalid index for the wanted one",
    does="never sends IF NOT EXISTS: decides from the catalogue, and builds anew what is invalid",
)
@pytest.mark.parametrize("leave", [broken_ready, broken_unready])
def test_if_not_exists_does_not_hide_an_invalid_index(
    project: Project, database: Database, leave: Callable[[Database], None]
) -> None:
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);")
    leave(database)
    left = oid(database, "i")
    assert project.run("verify").code == 1
    ran = project.apply()
    assert (ran.code, ran.items["public.i"]["status"]) == (0, "changed")
    assert "IF NOT EXISTS" not in ran.items["public.i"]["data"]["sql"]
    assert (flags(database, "i"), oid(database, "i") != left) == (GOOD, True)


@fault(
    3,
    "somebody drops the index while it is built",
    does="says that it is gone, takes nothing else for it, and the next run builds it",
)
def test_an_index_that_is_dropped_over_its_build_is_said_to_be_gone(one: Project, database: Database) -> None:
    # A drop that waits for the build's lock has to be as quick as this to come before perfctl looks.
    send(
        database,
        "CREATE FUNCTION drops() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN"
        " IF to_regclass('public.i') IS NOT NULL THEN DROP INDEX public.i; END IF; END$$",
        "CREATE EVENT TRIGGER drops ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION drops()",
    )
    ran = one.apply()
    assert ran.code == 4
    assert "the index is gone after its build: somebody dropped it meanwhile" in ran.stderr
    assert names(database) == set()
    send(database, "DROP EVENT TRIGGER drops")
    assert (one.apply().code, flags(database, "i")) == (0, GOOD)


# a lock on the table

LOCKED = "somebody holds a lock that keeps a build from beginning"


@fault(10, LOCKED, does="names who holds it, goes on with another table, and comes back")
@pytest.mark.parametrize("mode", ["SHARE UPDATE EXCLUSIVE", "EXCLUSIVE"])
def test_a_locked_table_is_named_and_another_one_goes_first(two: Project, database: Database, mode: str) -> None:
    with session(database, f"LOCK TABLE t IN {mode} MODE", application_name="vacuumer") as holder:
        ran = two.apply("--wait-budget", "300ms")
        assert f"pid {holder.info.backend_pid} (postgres, vacuumer" in ran.stderr
        assert f"LOCK TABLE t IN {mode} MODE" in ran.stderr
    assert (ran.code, ran.statuses) == (5, {"public.i": "failed", "public.j": "changed"})
    assert "the table is locked by" in ran.items["public.i"]["detail"]
    assert names(database) == {"j"}


@fault(10, LOCKED, does="names who holds it, goes on with another table, and comes back")
def test_a_locked_table_is_built_when_the_lock_is_gone(two: Project, database: Database) -> None:
    with (
        session(database, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE") as holder,
        meanwhile(two, "--jobs", "1") as ran,
    ):
        until(lambda: ran.done() or names(database) == {"j"})
        assert not ran.done()
        holder.rollback()
    assert ran.result().code == 0
    assert [name for name, _ in states(database)] == ["j", "i"]


@fault(10, "somebody's lock keeps even readers off a table", does="names who holds it instead of hanging, and gives up")
@pytest.mark.parametrize("command", ["apply", "plan", "verify", "status"])
def test_a_table_that_nobody_may_read_is_busy(one: Project, database: Database, command: str) -> None:
    arguments = {"apply": ("--yes", "--wait-budget", "300ms")}.get(command, ("--timeout", "1s"))
    with session(database, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE", application_name="alter") as holder:
        ran = one.run(command, *arguments)
        assert (
            f'table "public.t" is locked against readers by pid {holder.info.backend_pid} (postgres, alter'
            in ran.stderr
        )
    assert (ran.code, ran.report["error"]["class"]) == (6, "Busy")
    assert (names(database), journal(database)) == (set(), [])


@fault(10, "somebody's lock keeps even readers off a table", does="names who holds it instead of hanging, and gives up")
def test_a_table_that_nobody_may_read_is_built_when_it_is_free(one: Project, database: Database) -> None:
    with session(database, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE") as holder, meanwhile(one) as ran:
        until_it_has_waited(database, 0.0, ran)
        holder.rollback()
    assert (ran.result().code, flags(database, "i")) == (0, GOOD)


# who may be ended

ENDED = "a forgotten session blocks and may be ended"
ENDS = "ends only sessions that --kill-blockers names, after some seconds; all others are waited for"


@fault(13, ENDED, does=ENDS)
@pytest.mark.parametrize("named", ["application=web", "role=post*"])
def test_a_session_on_the_list_is_ended_and_the_index_built(one18: Project, database18: Database, named: str) -> None:
    with session(database18, "INSERT INTO t VALUES (-1, -1)", application_name="web") as blocker:
        pid = blocker.info.backend_pid
        ran = one18.apply("--blocker-age", "0s", "--wait-budget", "60s", "--kill-blockers", named)
        with pytest.raises(psycopg.OperationalError):
            blocker.execute("SELECT 1")
    assert (ran.code, flags(database18, "i")) == (0, GOOD)
    assert f"ended pid {pid} (postgres, web" in ran.stderr


@fault(13, ENDED, does=ENDS)
def test_a_session_that_is_not_on_the_list_is_never_ended(one18: Project, database18: Database) -> None:
    before = catalogue(database18)
    wrong = ("--kill-blockers", "application=we", "--kill-blockers", "role=web", "--kill-blockers", "application=Web")
    with writer(database18) as blocker:
        ran = one18.apply(*LONGER_THAN_MERCY, *wrong)
        assert blocker.execute("SELECT 1").fetchone() == (1,)
    assert "ended" not in not_sent(ran, database18, before)


@fault(
    14,
    "a prepared transaction that nobody sees has written to the table",
    does="finds it, names its gid and the statement that ends it, waits, and never ends it",
)
def test_a_prepared_transaction_is_never_ended(one18: Project, database18: Database) -> None:
    before = catalogue(database18)
    everybody = ("--kill-blockers", "role=*", "--kill-blockers", "application=*")
    with prepared(database18) as gid:
        said = not_sent(one18.apply(*LONGER_THAN_MERCY, *everybody), database18, before)
        assert prepared_there(database18) == [gid]
    assert gid in said


@fault(13, "perfctl's role may not end the session that blocks", does="goes on waiting, names it, and ends in order")
def test_a_session_that_may_not_be_ended_is_waited_for(one18: Project, database18: Database) -> None:
    role = f"{database18.name}_builder"
    send(
        database18,
        f"CREATE ROLE {role} LOGIN IN ROLE pg_monitor",
        f"GRANT CREATE ON DATABASE {database18.name} TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
        f"ALTER TABLE t OWNER TO {role}",
    )
    one18.configure(one18.config.read_text().replace("postgres@/", f"{role}@/"))
    try:
        before = catalogue(database18)
        with writer(database18) as blocker:
            ran = one18.apply(*LONGER_THAN_MERCY, "--kill-blockers", "application=*")
            assert blocker.execute("SELECT 1").fetchone() == (1,)
            assert f"pid {blocker.info.backend_pid}" in not_sent(ran, database18, before)
        assert "ended" not in ran.stderr
    finally:
        send(database18, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


# how far a run goes


@fault(13, "one table is stuck, others are free", does="with --continue builds the others and says what is not done")
def test_with_continue_the_other_tables_are_built(two: Project, database: Database) -> None:
    two.migration(
        "2_b",
        "COMMENT ON INDEX i IS 'waits for i';\nCREATE INDEX CONCURRENTLY k ON o (b);\n"
        "CREATE INDEX CONCURRENTLY l ON t (b);\n",
    )
    with writer(database):
        ran = two.apply(*BRIEFLY, "--continue")
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    said = [(item["name"], item["status"], "not reached" in item["detail"]) for item in ran.report["items"]]
    # What comes after a comment on the table's first index waits for that.
    assert sorted(said) == [
        ("public.i", "failed", False),
        ("public.i", "skipped", True),
        ("public.j", "changed", False),
        ("public.k", "changed", False),
        ("public.l", "skipped", True),
    ]
    assert "2 of 5 done, 3 left" in ran.stderr
    assert names(database) == {"j", "k"}
    assert two.apply().code == 0
    assert names(database) == {"i", "j", "k", "l"}


@fault(13, "one table is stuck, others are free", does="without --continue begins nothing more once it has given up")
def test_without_continue_nothing_more_is_begun(two: Project, database: Database) -> None:
    before = catalogue(database)
    two.migration("1_a", f"{ONE}\nCOMMENT ON INDEX i IS 'first';\n")
    with writer(database):
        ran = two.apply(*BRIEFLY)
    assert ran.code == 6
    assert [(i["status"], "not reached" in i["detail"]) for i in ran.report["items"]] == [
        ("failed", False),
        ("skipped", True),
    ]
    assert catalogue(database) == before


@fault(12, "the time window is over", does="begins no build that would end later than --not-after")
def test_nothing_is_built_after_the_end_of_the_window(one: Project, database: Database) -> None:
    before = catalogue(database)
    past = (datetime.now() - timedelta(minutes=2)).isoformat()
    ran = one.apply("--not-after", past)
    assert (ran.code, ran.statuses) == (6, {"public.i": "failed"})
    assert "--not-after: it is past" in ran.stderr
    assert ran.report["error"]["hint"] == "run it again in the next window"
    assert (catalogue(database), journal(database)) == (before, [])


@fault(12, "the time window is over", does="begins no build that would end later than --not-after")
def test_a_build_that_would_not_be_done_in_time_is_not_begun(two: Project, database: Database) -> None:
    # What the planner is told of its size is what the estimate is made of.
    send(database, "UPDATE pg_class SET reltuples = 1e10, relpages = 1e8 WHERE relname = 't'")
    soon = (datetime.now() + timedelta(minutes=10)).isoformat()
    ran = two.apply("--not-after", soon, "--continue")
    assert (ran.code, ran.statuses) == (5, {"public.i": "failed", "public.j": "changed"})
    assert "it would not be done by" in ran.items["public.i"]["detail"]
    assert names(database) == {"j"}
