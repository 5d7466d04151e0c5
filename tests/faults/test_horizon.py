"""A build keeps every dead row of the database from being vacuumed away while it reads its table."""

from __future__ import annotations

import json

from tests.faults.declare import fault
from tests.fix_perfctl import Project
from tests.fix_servers import Database
from tests.fix_sessions import send, table

SLOW = (
    "CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
    " $$ BEGIN IF i = 1 THEN PERFORM pg_sleep(60); END IF; RETURN i; END $$"
)


@fault(18, "a long build keeps dead rows everywhere from being vacuumed", "tells in its events how far back it holds")
def test_how_far_back_a_build_holds_is_told(project: Project, database: Database) -> None:
    table(database)
    send(database, SLOW)
    project.migration("1_a", "CREATE INDEX CONCURRENTLY i ON t (slow(a));")
    process = project.start("apply", "--yes", form="ndjson")
    assert process.popen.stdout is not None
    held = 0
    for line in process.popen.stdout:
        held = json.loads(line).get("xmin_age") or 0
        if held >= 20:
            break
        send(database, *["SELECT pg_current_xact_id()"] * 5)
    process.popen.terminate()
    assert process.wait().code == 143
    assert held >= 20
