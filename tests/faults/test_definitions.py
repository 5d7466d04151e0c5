"""What a definition may be mistaken for, what may already be there, and how a run that failed is taken up or back."""

from __future__ import annotations

import shlex
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.faults.declare import fault
from tests.faults.listen import until_it_holds_back
from tests.fix_builds import until_it_sends
from tests.fix_catalogue import catalogue, flags, indexes, journal, names
from tests.fix_perfctl import Project, run
from tests.fix_servers import Database
from tests.fix_sessions import broken_ready, old_snapshot, send, table, until_it_waits, writer

GOOD = (True, True, True)
INVALID = (False, True, True)
ONE = "CREATE INDEX CONCURRENTLY i ON t (a);"


@pytest.fixture
def one(project: Project, database: Database) -> Project:
    """A table t and a migration that wants index i on it."""
    table(database)
    project.migration("1_a", ONE)
    return project


# leftovers of others


def reindex_fails(database: Database, name: str) -> None:
    """A REINDEX CONCURRENTLY that is cut in its last wait."""
    with old_snapshot(database), pytest.raises(psycopg.errors.LockNotAvailable):
        send(database, "SET lock_timeout = '50ms'", f"REINDEX INDEX CONCURRENTLY {name}")


@fault(29, "an invalid index costs on every write", does="reports it in verify with its size and what to do about it")
def test_verify_reports_an_invalid_index(one: Project, database: Database) -> None:
    one.apply()
    broken_ready(database, "forgotten ON t (b)")
    ran = one.run("verify")
    item = ran.items["public.forgotten"]
    assert (ran.code, item["status"]) == (1, "finding")
    assert item["data"]["size_bytes"] > 0
    assert "every write still pays for it" in item["detail"]
    assert 'DROP INDEX CONCURRENTLY "public"."forgotten"' in item["remedy"]


@fault(30, "failed REINDEX CONCURRENTLY leave copies behind", does="reports each in verify, and touches none")
def test_what_reindex_leaves_is_reported_and_left_alone(one: Project, database: Database) -> None:
    one.apply()
    for _ in range(3):
        reindex_fails(database, "i")
    left = {"i_ccnew", "i_ccnew1", "i_ccnew2"}
    assert names(database) == {"i"} | left
    ran = one.run("verify")
    assert {name for name, status in ran.statuses.items() if status == "finding"} == {f"public.{n}" for n in left}
    assert all("failed REINDEX CONCURRENTLY" in ran.items[f"public.{name}"]["detail"] for name in left)
    before = indexes(database)
    assert one.apply().report["counts"] == {"skipped": 1}
    assert indexes(database) == before
    assert one.rollback().code == 0
    assert names(database) == left


@fault(30, "an unfinished REINDEX CONCURRENTLY leaves the old half", does="reports it in verify, and touches it not")
def test_the_old_half_of_a_reindex_is_reported_and_left_alone(one: Project, database: Database) -> None:
    one.apply()
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT FROM t")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            send(database, "SET lock_timeout = '200ms'", "REINDEX INDEX CONCURRENTLY i")
        reader.rollback()
    left = names(database) - {"i"}
    assert len(left) == 1
    assert "_ccold" in left.copy().pop()
    ran = one.run("verify")
    assert ran.statuses == {"public.i": "ok", f"public.{left.copy().pop()}": "finding"}
    assert "old half of an unfinished REINDEX" in ran.stdout
    assert one.apply().report["counts"] == {"skipped": 1}
    assert names(database) == {"i"} | left


@fault(31, "a REINDEX CONCURRENTLY is under way", does="does not take its transient copy for a leftover")
def test_a_copy_that_is_being_built_is_no_leftover(one: Project, database: Database) -> None:
    one.apply()

    def reindex() -> None:
        with database.connect(application_name="somebody") as connection:
            connection.execute("REINDEX INDEX CONCURRENTLY i")

    with old_snapshot(database):
        thread = threading.Thread(target=reindex)
        thread.start()
        until_it_waits(database, "somebody")
        assert "i_ccnew" in names(database)
        ran = one.run("verify")
        assert one.apply().report["counts"] == {"skipped": 1}
    thread.join()
    assert ran.statuses == {"public.i": "ok"}
    assert names(database) == {"i"}


@fault(32, "pg_repack leaves index_OID behind", does="reports it in verify as pg_repack's, and touches it not")
def test_what_pg_repack_leaves_is_reported_and_left_alone(one: Project, database: Database) -> None:
    one.apply()
    broken_ready(database, "index_16423 ON t (a)")
    ran = one.run("verify")
    assert "left behind by pg_repack" in ran.items["public.index_16423"]["detail"]
    assert one.apply().report["counts"] == {"skipped": 1}
    assert flags(database, "index_16423") == INVALID


# taking off, and only what is its own


@fault(34, "a rollback file says plain DROP INDEX", does="drops concurrently all the same, so that nobody waits")
def test_a_rollback_lets_readers_and_writers_through(one: Project, database: Database) -> None:
    one.migration("1_a_rollback", "DROP INDEX i;")
    one.apply()
    with writer(database), database.connect() as application:
        process = one.start("rollback", "--yes")
        until_it_sends(database, "DROP INDEX CONCURRENTLY")
        # A plain DROP INDEX would have them wait behind it.
        application.execute("SET lock_timeout = '1s'")
        application.execute("INSERT INTO t VALUES (1000, 1)")
        assert application.execute("SELECT FROM t WHERE a = 1000").rowcount == 1
    assert process.wait().code == 0
    assert names(database) == set()


@fault(35, "an index was there before the first apply", does="leaves it at the rollback")
def test_a_rollback_leaves_what_was_there_before(one: Project, database: Database) -> None:
    send(database, "CREATE INDEX i ON t (a)", "COMMENT ON INDEX i IS 'mine'")
    one.migration("2_b", "CREATE INDEX CONCURRENTLY k ON t (b);")
    before = catalogue(database)
    assert one.apply().statuses == {"public.i": "skipped", "public.k": "changed"}
    assert one.rollback().code == 0
    assert catalogue(database) == before


# a run that fails at its end


@fault(
    36,
    "the last index cannot be built",
    does="keeps the good ones, exits 5, and prints the commands that go on and that undo",
)
def test_a_failure_on_the_last_keeps_the_others(project: Project, database: Database) -> None:
    before, good, hints = fails_at_the_end(project, database)
    assert names(database) == good
    assert hints.keys() == {"to go on", "to undo"}
    # It was not mended: it fails again, with nothing changed this time.
    assert command(hints["to go on"]) == 4
    assert names(database) == good
    send(database, "DELETE FROM t WHERE a = 42 AND b = 0")
    assert command(hints["to go on"]) == 0
    assert names(database) == good | {"u"}
    assert project.run("verify").code == 0
    assert command(hints["to undo"]) == 0
    assert indexes(database) == before


@fault(
    36,
    "the last index cannot be built",
    does="keeps the good ones, exits 5, and prints the commands that go on and that undo",
)
def test_the_command_that_undoes_takes_off_what_was_done(project: Project, database: Database) -> None:
    before, _, hints = fails_at_the_end(project, database)
    assert command(hints["to undo"]) == 0
    assert indexes(database) == before
    assert project.run("verify", "--absent").code == 0


@fault(
    36,
    "the last index cannot be built",
    does="prints the command that goes on with every option that bounds the run",
)
def test_the_command_that_goes_on_keeps_the_bounds(project: Project, database: Database) -> None:
    bounds = (
        *("--wait-budget", "20s", "--lock-timeout", "3s", "--jobs", "2", "--continue", "--max-replica-lag", "5m"),
        *("--min-free", "1MB", "--kill-blockers", "role=web", "--kill-blockers", "application=a b"),
    )
    _, _, hints = fails_at_the_end(project, database, *bounds)
    said = shlex.split(hints["to go on"])
    assert sorted(bounds) == sorted(word for word in said[3:] if word not in ("--config", str(project.config)))
    assert command(hints["to go on"]) == 4


@fault(
    36,
    "the last index of a saved plan cannot be built",
    does="names the files, not the plan: the database is no longer what it was made for",
)
def test_a_saved_plan_that_is_partly_done_goes_on_by_its_files(project: Project, database: Database) -> None:
    table(database)
    send(database, "INSERT INTO t VALUES (42, 0)")
    first = project.migration("1_a", ONE)
    last = project.migration("2_b", "CREATE UNIQUE INDEX CONCURRENTLY u ON t (a);")
    plan = str(project.folder / "plan.json")
    assert project.run("plan", "--out", plan).code == 0
    ran = project.apply(plan)
    assert ran.code == 5
    hint = ran.report["error"]["hint"].splitlines()
    going_on = next(line.removeprefix("to go on: ") for line in hint if line.startswith("to go on: "))
    assert shlex.split(going_on)[-2:] == [str(first), str(last)]
    send(database, "DELETE FROM t WHERE a = 42 AND b = 0")
    assert project.apply(plan).report["error"]["class"] == "PlanMoved"
    assert command(going_on) == 0
    assert names(database) == {"i", "u"}


# a rollback that the server refuses


@fault(
    35,
    "something has come to depend on an index since the rollback looked",
    does="is refused by the server, exits 4 with its message and detail, and the index stays as it was",
)
def test_a_drop_that_the_server_refuses_changes_nothing(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "CREATE UNIQUE INDEX CONCURRENTLY u ON t (a);")
    project.apply()
    with database.connect(autocommit=False) as other, ThreadPoolExecutor() as pool:
        other.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        rollback = pool.submit(project.rollback, "--wait-budget", "60s")
        # It has looked, and found nothing that needs the index.
        until_it_holds_back(database, rollback)
        other.execute("CREATE TABLE r (a int REFERENCES t (a))")
        other.commit()
        ran = rollback.result()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    message = ran.report["error"]["message"]
    assert "cannot drop index" in message
    assert "constraint r_a_fkey on table r depends on index" in message
    assert "nothing was changed" in message
    assert flags(database, "u") == GOOD
    send(database, "DROP TABLE r")
    assert project.rollback().code == 0
    assert names(database) == set()


def fails_at_the_end(
    project: Project, database: Database, *bounds: str
) -> tuple[list[object], set[str], dict[str, str]]:
    """A run that fails on its last index: the indexes before, the names kept, and the hint's commands."""
    table(database)
    send(database, "INSERT INTO t VALUES (42, 0)")
    project.migration("1_a", f"{ONE} CREATE INDEX CONCURRENTLY k ON t (b);")
    project.migration("2_b", "CREATE UNIQUE INDEX CONCURRENTLY u ON t (a);")
    before: list[object] = [*indexes(database)]
    ran = project.apply(*bounds)
    assert (ran.code, ran.statuses) == (5, {"public.i": "changed", "public.k": "changed", "public.u": "failed"})
    hint = ran.report["error"]["hint"]
    found = dict(line.split(": ", 1) for line in hint.splitlines() if line.startswith("to "))
    return before, {"i", "k"}, found


def command(text: str) -> int:
    """Run a command that a hint gives, without being asked."""
    program, *arguments = shlex.split(text)
    assert program == "perfctl"
    return run(*arguments, "--yes").code


# one definition, several spellings


@fault(
    38, "the server prints a definition otherwise than it was written", does="takes the two for one, by its own text"
)
@pytest.mark.parametrize(
    ("written", "there"),
    [
        pytest.param(
            "ON t (c) WHERE c IN ('x', 'y')",
            "ON t (c) WHERE c::text = ANY (ARRAY['x'::character varying, 'y'::character varying]::text[])",
            id="after a dump",
        ),
        pytest.param("ON t (lower(c))", "ON t (lower((c)::text))", id="cast"),
        pytest.param("ON t USING btree (a ASC NULLS LAST)", "ON t (a)", id="defaults"),
        pytest.param(
            "ON t (a) WHERE (b > 1 AND a > 2)", "ON public.t (a) WHERE ((b) > (1)) and (a > 2)", id="brackets"
        ),
    ],
)
def test_two_spellings_of_one_definition_are_one(
    project: Project, database: Database, written: str, there: str
) -> None:
    send(database, "CREATE TABLE t (a int, b int, c varchar(10))", f"CREATE INDEX i {there}")
    project.migration("1_a", f"CREATE INDEX CONCURRENTLY i {written};")
    assert project.apply().statuses == {"public.i": "skipped"}
    assert project.run("verify").code == 0


@fault(
    38,
    "a dump and restore prints casts elsewhere",
    does="still takes the restored index for the same",
)
def test_an_index_that_went_through_its_own_text_is_the_same(project: Project, database: Database) -> None:
    send(database, "CREATE TABLE t (a int, c varchar(10))")
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a) WHERE c IN ('x', 'y') AND a BETWEEN 1 AND 5;")
    project.apply()
    for _ in range(3):
        with database.connect() as connection:
            row = connection.execute("SELECT pg_get_indexdef('i'::regclass)").fetchone()
        assert row is not None
        send(database, "DROP INDEX i", row[0])
        assert project.run("verify").code == 0
        assert project.apply().statuses == {"public.i": "skipped"}


# names


@fault(39, "a name is longer than the server keeps", does="refuses it before anything is built")
def test_a_name_that_would_be_cut_is_refused(project: Project, database: Database) -> None:
    table(database)
    name = "i" * 64
    project.migration("1_a", f"CREATE INDEX CONCURRENTLY k ON t (b); CREATE INDEX CONCURRENTLY {name} ON t (a);")
    ran = project.apply()
    assert ran.code in (2, 3, 4)
    assert "63" in ran.stderr
    assert (names(database), journal(database)) == (set(), [])


@fault(39, "a name is longer than the server keeps", does="counts bytes, not letters")
@pytest.mark.parametrize(("name", "code"), [("ä" * 31, 0), ("ä" * 32, None)])
def test_bytes_are_what_counts(project18: Project, database18: Database, name: str, code: int | None) -> None:
    table(database18)
    project18.migration("1_a", f'CREATE INDEX CONCURRENTLY "{name}" ON t (a);')
    ran = project18.apply()
    assert ran.code == code if code is not None else ran.code in (2, 3, 4)


@fault(40, "another schema has an index of that name", does="builds its own and touches the other never")
def test_an_index_of_that_name_in_another_schema_is_another_one(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE SCHEMA s2", "CREATE TABLE s2.t (a int)", "CREATE INDEX i ON s2.t (a)")
    send(database, f"ALTER DATABASE {database.name} SET search_path = s2, public")
    other = [row for row in indexes(database) if row[0] == "s2"]
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON public.t (a);")
    assert project.apply().items["public.i"]["status"] == "changed"
    assert flags(database, "public.i") == GOOD
    assert project.rollback().code == 0
    assert indexes(database) == other


@fault(40, "another table has an index of that name", does="refuses and names the table")
def test_an_index_of_that_name_on_another_table_is_a_refusal(one: Project, database: Database) -> None:
    table(database, "u")
    send(database, "CREATE INDEX i ON u (a)")
    before = catalogue(database)
    ran = one.apply()
    assert ran.code == 4
    assert "the name belongs to an index of public.u" in ran.stderr
    assert catalogue(database) == before


# valid, and not all the same


@fault(
    46,
    "an index is valid and old transactions keep new plans from it",
    does="says in verify that it is not usable yet, and names how to find who keeps it",
)
def test_a_valid_index_that_no_plan_may_use_yet(project: Project, database: Database) -> None:
    send(database, "CREATE TABLE t (a int, b int) WITH (fillfactor = 50)", "INSERT INTO t VALUES (1, 1)")
    project.migration("1_a", "CREATE INDEX i ON t (b);")
    with database.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT pg_current_xact_id()")
        send(database, "UPDATE t SET b = 2", "UPDATE t SET b = 3")
        assert project.apply("--offline").code == 0
        ran = project.run("verify")
        old.rollback()
    assert ran.code == 1
    assert "new plans cannot use it yet" in ran.items["public.i"]["detail"]
    assert project.run("verify").code == 0


@fault(
    47, "an expression index has no statistics", does="runs the ANALYZE that the migration asks for, after the build"
)
def test_the_statistics_of_an_expression_are_gathered(project: Project, database: Database) -> None:
    table(database)
    project.migration("1_a", "ANALYZE t; CREATE INDEX CONCURRENTLY i ON t ((a % 7));")
    assert project.apply().code == 0
    with database.connect() as connection:
        assert connection.execute("SELECT FROM pg_stats WHERE tablename = 'i'").rowcount == 1


# files


@fault(
    49, "a file opens a transaction around its statements", does="refuses it before it connects, and says what to do"
)
def test_a_file_with_begin_and_commit_is_refused(one: Project, database: Database) -> None:
    one.migration("2_b", "BEGIN;\nCREATE INDEX k ON t (b);\nCOMMIT;\n")
    ran = one.apply()
    assert ran.code == 2
    assert '2_b.sql:1:1: error: "BEGIN" is not allowed' in ran.stderr
    assert "take BEGIN and COMMIT out" in ran.stderr
    assert (names(database), journal(database)) == (set(), [])


@fault(49, "a file holds several statements", does="sends each by itself, outside a transaction, and concurrently")
def test_the_statements_of_a_file_are_sent_one_by_one(project: Project, database: Database) -> None:
    table(database)
    project.migration(
        "1_a", f"SET maintenance_work_mem = '1MB'; {ONE} CREATE INDEX k ON t (b); CREATE INDEX j ON t (a, b) -- ;\n;"
    )
    ran = project.apply()
    assert ran.code == 0
    assert {flags(database, name) for name in "ikj"} == {GOOD}
    statements = [statement for (statement,) in journal(database, "statement")]
    assert len(statements) == 3
    assert all(statement.startswith("CREATE INDEX CONCURRENTLY") for statement in statements)


# refused before the first


@fault(53, "a right is missing for an index late in the list", does="refuses before the first and names the GRANT")
def test_a_missing_right_is_found_before_the_first(project: Project, database: Database) -> None:
    name = f"{database.name}_owner"
    table(database)
    send(
        database,
        f"CREATE ROLE {name} LOGIN",
        "CREATE SCHEMA late",
        "CREATE TABLE late.u (a int)",
        f"ALTER TABLE t OWNER TO {name}",
        f"ALTER TABLE late.u OWNER TO {name}",
        f"GRANT CREATE ON SCHEMA public TO {name}",
        f"GRANT USAGE ON SCHEMA late TO {name}",
        f"GRANT CREATE ON DATABASE {database.name} TO {name}",
    )
    project.configure(project.config.read_text().replace("postgres@/", f"{name}@/"))
    project.migration("1_a", f"{ONE} CREATE INDEX CONCURRENTLY late_a ON late.u (a);")
    try:
        ran = project.apply()
        assert (ran.code, ran.report["error"]["class"]) == (7, "Denied")
        grant = f'GRANT USAGE, CREATE ON SCHEMA "late" TO "{name}"'
        assert grant in ran.stderr
        assert (names(database), journal(database)) == (set(), [])
        send(database, grant)
        assert project.apply().code == 0
    finally:
        send(database, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


@fault(
    54, "an operator class or extension is missing", does="refuses in the plan with the server's reason and the place"
)
@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("USING gin (c gin_trgm_ops)", 'operator class "gin_trgm_ops" does not exist'),
        ("USING gin (a)", "has no default operator class"),
        ("USING nosuch (a)", 'access method "nosuch" does not exist'),
    ],
)
def test_what_the_server_lacks_is_found_in_the_plan(
    project: Project, database: Database, definition: str, words: str
) -> None:
    send(database, "CREATE TABLE t (a int, c text)")
    project.migration("1_a", f"{ONE}\nCREATE INDEX CONCURRENTLY g ON t {definition};")
    assert project.run("plan").items["public.g"]["status"] == "finding"
    ran = project.apply()
    assert ran.code == 4
    assert words in ran.stderr
    assert "1_a.sql:2:1" in ran.stderr
    assert (names(database), journal(database)) == (set(), [])


@fault(55, "a row does not fit into the index, or its expression fails", does="says why and leaves nothing")
@pytest.mark.parametrize(
    ("definition", "words"),
    [
        pytest.param("ON t (c)", "exceeds btree version 4 maximum", id="key too large"),
        pytest.param("ON t ((100 / a))", "division by zero", id="division"),
        pytest.param("ON t ((c::jsonb))", "invalid input syntax for type json", id="cast"),
    ],
)
def test_a_row_that_cannot_be_indexed_leaves_nothing(
    project: Project, database: Database, definition: str, words: str
) -> None:
    send(
        database,
        "CREATE TABLE t (a int, c text)",
        "INSERT INTO t SELECT 0, string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i",
    )
    method = "USING hash " if "jsonb" in definition else ""
    project.migration("1_a", f"CREATE INDEX CONCURRENTLY i {definition.replace('ON t ', f'ON t {method}')};")
    before = catalogue(database)
    ran = project.apply()
    assert (ran.code, ran.report["error"]["class"]) == (4, "Refused")
    assert words in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert catalogue(database) == before


@fault(56, "two indexes of one definition", does="builds the first and skips the other, naming the one that covers it")
def test_an_exact_duplicate_is_not_built(project: Project, database: Database) -> None:
    table(database)
    send(database, "CREATE INDEX there ON t (b)")
    project.migration("1_a", f"{ONE} CREATE INDEX CONCURRENTLY again ON public.t USING btree (a);")
    project.migration("2_b", "CREATE INDEX CONCURRENTLY k ON t (b ASC);")
    ran = project.apply()
    assert ran.statuses == {"public.i": "changed", "public.again": "skipped", "public.k": "skipped"}
    assert 'covered: "public.i"' in ran.items["public.again"]["detail"]
    assert 'covered: "public.there"' in ran.items["public.k"]["detail"]
    assert names(database) == {"i", "there"}
    assert project.run("verify").code == 0


@fault(
    36,
    "a table is dropped in the middle of a run",
    does="builds the indexes of the other tables, exits 5, and names the one that is gone",
)
def test_a_table_that_goes_in_the_middle(project: Project, database: Database) -> None:
    for name in ("t", "t2", "t3"):
        table(database, name)
    project.migration("1_a", " ".join(f"CREATE INDEX CONCURRENTLY {n}_i ON {n} (a);" for n in ("t", "t2", "t3")))
    with old_snapshot(database):
        process = project.start("apply", "--yes", "--jobs", "1", "--continue")
        until_it_sends(database, '"t_i"')
        send(database, "DROP TABLE t2")
    ran = process.wait()
    assert (ran.code, ran.report["error"]["class"]) == (5, "Incomplete")
    assert '"public.t2_i"' in ran.stderr
    assert '"public.t2" does not exist' in ran.stderr
    assert names(database) == {"t_i", "t3_i"}
