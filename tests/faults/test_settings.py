"""Settings of a role or database that would cut a build short, and those that perfctl gives it."""

from __future__ import annotations

import pytest

from tests.faults.declare import fault
from tests.faults.listen import meanwhile, until_it_has_waited
from tests.fix_catalogue import catalogue, flags, journal, names
from tests.fix_perfctl import Project, Ran
from tests.fix_servers import Database
from tests.fix_sessions import old_snapshot, send, table

GOOD = (True, True, True)
ONE = "CREATE INDEX CONCURRENTLY i ON t (a);"
TREE = (
    "CREATE TABLE whole (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (10)",
    "INSERT INTO whole VALUES (1), (2)",
)
#: fails at the first row, and says then with which settings it is built
TELLS = """
CREATE FUNCTION tell(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'built with %, % workers', pg_catalog.current_setting('maintenance_work_mem'),
        pg_catalog.current_setting('max_parallel_maintenance_workers');
END $$
"""
#: long enough to be told from the time that a statement takes on a machine with much to do
LIMIT_S = 1.0


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", ONE)
    return project


def default(database: Database, setting: str, value: str) -> None:
    """A setting that every new session of the database begins with."""
    send(database, f"ALTER DATABASE {database.name} SET {setting} = '{value}'")


def held_up(project: Project, database: Database, *arguments: str, **settings: str) -> Ran:
    """An apply whose build waits for an old snapshot longer than LIMIT_S; the settings do not touch that one."""
    with old_snapshot(database) as blocker:
        for setting, value in settings.items():
            default(database, setting, value)
        with meanwhile(project, "--blocker-age", "1h", *arguments) as ran:
            until_it_has_waited(database, 1.2 * LIMIT_S, ran)
            blocker.rollback()
            return ran.result()


# lock_timeout


@fault(
    1,
    "a short lock_timeout of the role or database",
    does="takes the table's lock under a bound of its own; the build's waits have a budget instead",
)
def test_a_short_lock_timeout_of_the_database_does_not_cut_the_build(one: Project, database: Database) -> None:
    assert held_up(one, database, lock_timeout="100ms").code == 0
    assert flags(database, "i") == GOOD


@fault(
    1,
    "a short lock_timeout of the role or database",
    does="takes the table's lock under a bound of its own; the build's waits have a budget instead",
)
def test_a_short_lock_timeout_does_not_cut_a_build_after_a_statement_that_had_a_bound(
    project: Project, database: Database
) -> None:
    send(database, *TREE)
    # The whole tree's index comes first, and is not built concurrently.
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON whole (a);")
    assert held_up(project, database, lock_timeout="100ms").code == 0
    assert flags(database, "i") == GOOD


@fault(1, "a short --lock-timeout", does="counts it for the table's lock alone, not for the build's waits")
def test_perfctls_own_lock_timeout_does_not_cut_the_build(one: Project, database: Database) -> None:
    assert held_up(one, database, "--lock-timeout", "100ms").code == 0
    assert flags(database, "i") == GOOD


# other limits


@fault(25, "statement_timeout of the role or database", does="lifts it for the build and reads back that it is lifted")
def test_a_statement_timeout_of_the_database_does_not_cut_the_build(one: Project, database: Database) -> None:
    assert held_up(one, database, statement_timeout=f"{LIMIT_S}s").code == 0
    assert flags(database, "i") == GOOD


@fault(
    25,
    "statement_timeout of the role or database cuts what perfctl asks beside the build",
    does="lifts it for the session that watches and keeps the journal, too",
)
def test_a_statement_timeout_of_the_database_does_not_cut_the_journal(one: Project, database: Database) -> None:
    one.apply()
    one.migration("2_b", "CREATE INDEX CONCURRENTLY j ON t (b);")
    with database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE perfctl.run IN EXCLUSIVE MODE")
        default(database, "statement_timeout", f"{LIMIT_S}s")
        with meanwhile(one) as ran:
            until_it_has_waited(database, 1.2 * LIMIT_S, ran)
            holder.rollback()
            assert ran.result().code == 0, ran.result().stderr
    assert names(database) == {"i", "j"}


@fault(
    26,
    "transaction_timeout, idle_in_transaction_session_timeout, idle_session_timeout",
    does="lifts all three in the session that builds",
)
def test_timeouts_of_the_database_do_not_end_a_build(one: Project, database: Database) -> None:
    limits = {"idle_in_transaction_session_timeout": "100ms", "idle_session_timeout": "400ms"}
    if database.server.installation.major >= 17:
        limits["transaction_timeout"] = f"{LIMIT_S}s"
    assert held_up(one, database, **limits).code == 0
    assert flags(database, "i") == GOOD


@fault(
    26,
    "idle_session_timeout ends a session of perfctl's that waits for something",
    does="lifts it in every session of a run: none is ended, none has to come back",
)
def test_a_session_that_waits_for_a_blocker_to_end_is_not_ended_for_being_idle(
    one: Project, database: Database
) -> None:
    with old_snapshot(database):
        default(database, "idle_session_timeout", "200ms")
        # Nothing is sent for so long; what is asked meanwhile is asked twice a second.
        ran = one.apply("--blocker-age", "0s", "--wait-budget", "1s")
    assert ran.code == 6
    with database.connect() as connection:
        ended = "SELECT sessions_fatal FROM pg_stat_database WHERE datname = current_database()"
        assert connection.execute(ended).fetchone() == (0,)


# what a build is given


@fault(
    25,
    "maintenance_work_mem and workers of the role or database are those of small statements",
    does="chooses both for each index, shows them in the plan, and builds with them",
)
def test_the_memory_and_the_workers_that_the_plan_shows_are_in_force(project: Project, database: Database) -> None:
    table(database)
    send(database, TELLS)
    default(database, "maintenance_work_mem", "1MB")
    default(database, "max_parallel_maintenance_workers", "7")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (tell(a));")
    before = catalogue(database)
    planned = project.run("plan", "--jobs", "1").items["public.i"]["data"]["settings"]
    memory, workers = planned["maintenance_work_mem"], planned["max_parallel_maintenance_workers"]
    assert (memory, workers) != ("1MB", "7")
    ran = project.apply("--jobs", "1")
    assert ran.code == 4
    assert f"built with {memory}, {workers} workers" in ran.stderr
    assert catalogue(database) == before


@fault(
    25,
    "maintenance_work_mem and workers of the role or database are those of small statements",
    does="chooses both for each index, shows them in the plan, and builds with them",
)
def test_what_the_file_sets_before_an_index_wins(project: Project, database: Database) -> None:
    table(database)
    send(database, TELLS)
    project.migration("1_a", "SET maintenance_work_mem = '3MB';\nCREATE INDEX CONCURRENTLY i ON t (tell(a));")
    planned = project.run("plan").items["public.i"]["data"]["settings"]
    assert planned["maintenance_work_mem"] == "3MB"
    assert "built with 3MB" in project.apply().stderr
    assert [state for (state,) in journal(database, "state")] == ["failed"]
