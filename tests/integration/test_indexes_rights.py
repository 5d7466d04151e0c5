"""Roles that may not, passwords that are wrong: refused before the first index, and nothing secret is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perfctl.embedded import PostgresServer, find_postgres, start_postgres
from tests.fix_catalogue import catalogue, journal, names
from tests.fix_perfctl import Project, run
from tests.fix_servers import Database
from tests.fix_sessions import send, table, writer

CANARY = "kanarienvogel-7f3a"
TWO = "CREATE INDEX CONCURRENTLY i ON t (a);\nCREATE INDEX CONCURRENTLY j ON u (a);\n"


@pytest.fixture
def role(project: Project, database: Database) -> Iterator[str]:
    """A role that may log in and owns nothing; the project connects as it."""
    name = f"{database.name}_guest"
    table(database, "t")
    table(database, "u")
    send(database, f"CREATE ROLE {name} LOGIN")
    project.configure(project.config.read_text().replace("postgres@/", f"{name}@/"))
    project.migration("1_a", TWO)
    yield name
    send(database, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def test_a_role_that_owns_no_table_is_denied_with_all_that_is_missing(
    project: Project, database: Database, role: str
) -> None:
    before = catalogue(database)
    ran = project.apply()
    assert (ran.code, ran.report["error"]["class"]) == (7, "Denied")
    assert f'role "{role}" does not own table "public.t"' in ran.stderr
    assert f'role "{role}" does not own table "public.u"' in ran.stderr
    assert f'role "{role}" may not create in schema "public"' in ran.stderr
    assert f'role "{role}" may not create schema "perfctl" for the journal' in ran.stderr
    assert f'GRANT "postgres" TO "{role}"' in ran.stderr
    assert (catalogue(database), journal(database)) == (before, [])


def test_an_owner_of_one_table_is_denied_for_the_other(project: Project, database: Database, role: str) -> None:
    send(
        database,
        f"ALTER TABLE t OWNER TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
        f"GRANT CREATE ON DATABASE {database.name} TO {role}",
    )
    ran = project.apply()
    assert ran.code == 7
    assert '"public.t"' not in ran.stderr
    assert 'does not own table "public.u"' in ran.stderr
    assert names(database) == set()


@pytest.mark.usefixtures("role")
def test_the_grants_that_are_named_are_enough(project: Project, database: Database) -> None:
    send(
        database,
        "CREATE ROLE owner_of_all",
        "ALTER TABLE t OWNER TO owner_of_all",
        "ALTER TABLE u OWNER TO owner_of_all",
    )
    try:
        said = project.apply().stderr
        grants = [line.strip().removeprefix("= ") for line in said.splitlines() if line.strip().startswith("= GRANT")]
        send(database, *grants)
        assert project.apply().code == 0
        assert project.run("verify").code == 0
        assert project.rollback().code == 0
        assert names(database) == set()
    finally:
        send(database, "DROP OWNED BY owner_of_all CASCADE", "DROP ROLE owner_of_all")


def test_a_drop_of_somebody_elses_index_is_denied_before_the_first_build(
    project: Project, database: Database, role: str
) -> None:
    table(database, "foreign_table")
    send(
        database,
        "CREATE INDEX old ON foreign_table (a)",
        f"ALTER TABLE t OWNER TO {role}",
        f"ALTER TABLE u OWNER TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
        f"GRANT CREATE ON DATABASE {database.name} TO {role}",
    )
    project.migration("2_b", "DROP INDEX CONCURRENTLY old;")
    ran = project.apply()
    assert ran.code == 7
    assert 'does not own table "public.foreign_table"' in ran.stderr
    assert names(database) == {"old"}


def test_a_role_that_owns_nothing_may_plan_and_verify(project: Project, role: str) -> None:
    plan = project.run("plan")
    assert plan.code in (1, 7)
    assert role in plan.stdout
    assert project.run("verify").code == 1


def test_a_role_that_may_not_see_the_journal_is_told_the_grants_for_an_apply(
    project: Project, database: Database, role: str
) -> None:
    as_guest = project.config.read_text()
    project.configure(as_guest.replace(f"{role}@/", "postgres@/"))
    assert project.apply("--only", "i").code == 0
    send(database, f"ALTER TABLE u OWNER TO {role}", f"GRANT CREATE ON SCHEMA public TO {role}")
    project.configure(as_guest)
    ran = project.apply()
    assert ran.code == 7
    assert f'GRANT USAGE ON SCHEMA perfctl TO "{role}"' in ran.stderr


def test_a_role_without_the_journal_may_verify_what_another_applied(project: Project, role: str) -> None:
    as_guest = project.config.read_text()
    project.configure(as_guest.replace(f"{role}@/", "postgres@/"))
    assert project.apply().code == 0
    project.configure(as_guest)
    assert project.run("verify").code == 0
    assert project.run("status").code == 0


def test_a_role_that_may_make_no_temporary_table_can_still_verify(
    project: Project, database: Database, role: str
) -> None:
    as_guest = project.config.read_text()
    project.configure(as_guest.replace(f"{role}@/", "postgres@/"))
    assert project.apply().code == 0
    send(
        database,
        f"REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA perfctl TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA perfctl TO {role}",
    )
    project.configure(as_guest)
    ran = project.run("verify")
    assert (ran.code, set(ran.statuses.values())) == (0, {"ok"})


def test_without_temporary_tables_and_journal_it_is_unknown(project: Project, database: Database, role: str) -> None:
    send(database, "CREATE INDEX i ON t (a)", f"REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC")
    ran = project.run("verify", "--format", "json")
    assert (ran.code, ran.statuses["public.i"]) == (1, "unknown")
    assert f'GRANT TEMPORARY ON DATABASE "{database.name}" TO "{role}"' in ran.items["public.i"]["detail"]


def test_an_owner_that_may_make_no_temporary_table_is_denied_with_the_grant(
    project: Project, database: Database, role: str
) -> None:
    send(
        database,
        f"ALTER TABLE t OWNER TO {role}",
        f"ALTER TABLE u OWNER TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
        f"GRANT CREATE ON DATABASE {database.name} TO {role}",
        f"REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC",
    )
    project.migration("1_a", f"{TWO} COMMENT ON INDEX i IS 'x';")
    plan = project.run("plan")
    ran = project.apply()
    grant = f'GRANT TEMPORARY ON DATABASE "{database.name}" TO "{role}"'
    assert (ran.code, ran.report["error"]["class"]) == (7, "Denied")
    assert ran.stderr.count(grant) == 1
    assert [item["remedy"] for item in plan.report["items"]] == [grant]
    send(database, grant)
    assert project.apply().code == 0


# what others do


@pytest.fixture
def owner(database: Database, role: str) -> str:
    """The role once it has all that builds need; it may not see what other roles do."""
    send(
        database,
        f"ALTER TABLE t OWNER TO {role}",
        f"ALTER TABLE u OWNER TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
        f"GRANT CREATE ON DATABASE {database.name} TO {role}",
    )
    return role


def test_a_role_that_cannot_see_others_is_told_so_before_it_builds(
    project: Project, database: Database, owner: str
) -> None:
    grant = f'GRANT pg_read_all_stats TO "{owner}"'
    assert any(grant in note for note in project.run("plan").report["notes"])
    ran = project.apply("--only", "i")
    assert (ran.code, grant in ran.stderr.split("CREATE INDEX")[0]) == (0, True)
    assert any(grant in note for note in ran.report["notes"])
    send(database, grant)
    assert not any("note: role" in note for note in project.run("plan").report["notes"])
    assert "note: role" not in project.apply().stderr


def test_a_role_that_may_end_nobody_is_told_so_before_it_builds(
    project: Project, database: Database, owner: str
) -> None:
    ran = project.apply("--kill-blockers", "role=*")
    grant = f'GRANT pg_read_all_stats, pg_signal_backend TO "{owner}"'
    assert grant in ran.stderr.split("CREATE INDEX")[0]
    assert any(grant in note for note in ran.report["notes"])
    send(database, grant)
    project.rollback()
    assert "--kill-blockers" not in project.apply("--kill-blockers", "role=*").stderr


def test_a_session_that_may_not_be_ended_is_told_once(project: Project, database: Database, owner: str) -> None:
    send(database, f'GRANT pg_read_all_stats TO "{owner}"')
    with writer(database):
        ran = project.apply(
            "--only", "i", "--kill-blockers", "application=web", "--blocker-age", "0s", "--wait-budget", "8s"
        )
    said = [note for note in ran.report["notes"] if note.startswith("could not end pid")]
    assert len(said) == 1
    assert "web" in said[0]
    assert ran.stderr.count("could not end pid") == 1
    assert (ran.code, names(database)) == (6, set())


# passwords


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A PostgreSQL that asks for a password."""
    with start_postgres(find_postgres(18), password="the right one") as server:
        yield server


FORMS = [
    f"{{dsn: 'postgresql://postgres:{CANARY}@/postgres?host={{host}}&port={{port}}'}}",
    f"{{dsn: 'host={{host}} port={{port}} user=postgres dbname=postgres password={CANARY}'}}",
    f"{{host: '{{host}}', port: {{port}}, user: postgres, dbname: postgres, password: '{CANARY}'}}",
    "{host: '{host}', port: {port}, user: postgres, dbname: postgres, password_file: secret}",
    "{host: '{host}', port: {port}, user: postgres, dbname: postgres, password: '${CANARY_VARIABLE}'}",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", [("apply", "--yes"), ("plan",), ("rollback", "--yes", "-vv")])
def test_a_wrong_password_is_denied_and_shown_nowhere(
    guarded: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CANARY_VARIABLE", CANARY)
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(CANARY)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "1_a.sql").write_text("CREATE INDEX CONCURRENTLY i ON t (a);")
    project = Project(tmp_path, guarded.dsn())
    database = form.replace("{host}", str(guarded.socket_dir)).replace("{port}", str(guarded.port))
    project.configure(f"version: 1\ntargets:\n  test:\n    database: {database}\nindexes: {{migrations: migrations}}\n")
    ran = project.run(*command)
    assert (ran.code, ran.report["error"]["class"]) == (7, "Denied")
    assert "password authentication failed" in ran.stderr
    assert CANARY not in ran.stdout + ran.stderr
    assert ran.report["error"]["hint"]


def test_a_wrong_password_of_the_environments_target_is_shown_nowhere(
    guarded: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.sql").write_text("CREATE INDEX CONCURRENTLY i ON t (a);")
    dsn = guarded.dsn().replace("the%20right%20one", CANARY)
    monkeypatch.setenv("DATABASE_URL", dsn)
    for form in ("text", "json"):
        ran = run("indexes", "plan", "m.sql", "--format", form)
        assert ran.code == 7
        assert CANARY not in ran.stdout + ran.stderr


def test_the_right_password_is_in_no_process_title_output_or_journal(guarded: PostgresServer, tmp_path: Path) -> None:
    project = Project(tmp_path, guarded.dsn())
    project.migrations.mkdir()
    project.configure(
        "version: 1\ntargets:\n  test:\n    database: {dsn: '{dsn}'}\nindexes: {migrations: migrations}\n"
    )
    database = Database(guarded, "postgres")
    table(database)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (a);")
    shown = [project.run(*command, "-vv") for command in (("plan",), ("apply", "--yes"), ("verify",))]
    with database.connect() as connection:
        everything = connection.execute(
            "SELECT run::text FROM perfctl.run UNION ALL SELECT step::text FROM perfctl.step"
        ).fetchall()
    assert [ran.code for ran in shown] == [0, 0, 0]
    secret = str(guarded.password)
    assert secret not in "".join(ran.stdout + ran.stderr for ran in shown) + str(everything)
