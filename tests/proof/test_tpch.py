"""A short run of TPC-H's queries, their rules, and ANALYZE in between; and that a lost index is noticed."""

from __future__ import annotations

import os

import psycopg
import pytest

from tests.fix_servers import Cluster
from tests.proof import tpch

_MISSING = tpch.generator() is None
pytestmark = pytest.mark.skipif(
    _MISSING and not os.environ.get("PERFCTL_REQUIRE_TPCH"), reason="no tpchgen-cli here: it makes TPC-H's data"
)
SCALE = 0.01
ROUNDS = 3
#: a lineitem of 1,200 pages is read whole by these, and rightly: their rules are for a larger one
RED_AT_THIS_SCALE = {"q04", "q08", "q18"}
#: what is served by the index that the test drops
BY_SHIPDATE = {"q06", "q14", "q15"}


def test_analyze_changes_no_verdict_and_a_lost_index_does(pg_server: Cluster) -> None:
    program = tpch.generator()
    assert program is not None, "no tpchgen-cli here"
    with pg_server.fresh() as database:
        tpch.load(database.dsn, program, SCALE)
        found = tpch.rounds(database.dsn, ROUNDS)
        assert len(found.statuses) == 22
        assert found.red == dict.fromkeys(RED_AT_THIS_SCALE, ROUNDS), found.details
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute("DROP INDEX lineitem_shipdate")
        assert tpch.rounds(database.dsn, 1).red.keys() == RED_AT_THIS_SCALE | BY_SHIPDATE
