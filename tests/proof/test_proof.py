"""A short run of the proof, and that it would notice what it is looking for."""

from __future__ import annotations

import os

import psycopg
import pytest

from perfctl.embedded import MissingServer, find_postgres
from tests.fix_servers import Database
from tests.proof import checks
from tests.proof.proof import rounds
from tests.proof.stage import Options

TABLE = "CREATE TABLE t (a int, b int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i"


@pytest.mark.parametrize(("major", "count"), [(18, 6), (15, 4)])
def test_every_index_is_right_or_absent_whatever_is_killed(major: int, count: int) -> None:
    try:
        find_postgres(major)
    except MissingServer as error:
        if str(major) in os.environ.get("PERFCTL_REQUIRE_PG", ""):
            pytest.fail(str(error))
        pytest.skip(str(error))
    written = 0
    for played in rounds(Options(major, seed=1), range(1, count + 1)):
        written += played.transactions
        assert not played.problems, "\n".join([str(played), *played.problems, played.evidence])
    assert written > 0


def test_the_proof_sees_a_broken_index(database18: Database) -> None:
    with database18.connect() as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO t VALUES (1, 1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)")
    assert checks.flags(database18) == ["public.i is broken: valid False, ready False, live True"]
    assert checks.names(database18, {}) == ["public.i should not be there"]


def test_the_proof_sees_a_row_that_an_index_lacks(database18: Database) -> None:
    assert checks.has_amcheck(database18)
    with database18.connect() as connection:
        connection.execute(TABLE)
        connection.execute("CREATE INDEX i ON t (a)")
        assert checks.amcheck(database18) == (1, [])
        ready = "UPDATE pg_index SET indisready = %s WHERE indexrelid = 'i'::regclass"
        connection.execute(ready, [False])
        connection.execute("INSERT INTO t VALUES (1000, 0)")
        connection.execute(ready, [True])
    read, wrong = checks.amcheck(database18)
    assert read == 1
    assert "lacks matching index tuple" in wrong[0]


def test_the_proof_sees_a_session_that_is_left(database18: Database) -> None:
    with database18.connect(application_name="perfctl/1/i"):
        (left,) = checks.sessions(database18, within_s=0.0)
    assert "a session of perfctl is left" in left
