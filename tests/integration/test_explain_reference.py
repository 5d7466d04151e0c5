"""The 27 hot queries of the reference system: each misses its index, finds it, and misses it again when it is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fix_explain import Hot, execute, new_hot
from tests.fix_perfctl import ROOT, new_project, with_the_27
from tests.fix_servers import REFERENCE, Cluster, Database

QUERIES = ROOT / "sql" / "queries"
INDEXES = """
    SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indexrelid::regclass::text ~ 'idx_'
"""


def served() -> dict[str, str]:
    """By query, the index that it is to use, as its file says."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in QUERIES.glob("*.sql")}
    return {name: text.split("-- index: ")[1].split("\n")[0] for name, text in texts.items()}


def reference(folder: Path, database: Database) -> Hot:
    """The reference queries, for a database."""
    hot = new_hot(folder, database)
    hot.configure(f"dir: '{QUERIES}'")
    return hot


def test_every_query_misses_its_index_before_and_finds_it_after(tmp_path: Path, reference_db: Database) -> None:
    hot = reference(tmp_path, reference_db)
    before = hot.check()
    assert (before.code, len(before.statuses), set(before.statuses.values())) == (1, 27, {"finding"})
    for query, index in served().items():
        assert f'there is no index "{index}"' in before.items[query]["detail"]
    (tmp_path / "project").mkdir()
    assert with_the_27(new_project(tmp_path / "project", reference_db)).apply().code == 0
    after = hot.check()
    assert after.code == 0
    # A table of a few pages is read whole, and a range index of it costs as much: the full size is below.
    assert {name for name, status in after.statuses.items() if status != "ok"} <= {"audit_log_of_period"}


@pytest.fixture(scope="module")
def full(pg_cluster: Callable[[int], Cluster]) -> Iterator[Database]:
    """The reference system with its 27 indexes, of a size at which each is chosen."""
    with pg_cluster(18).fresh() as database:
        migration = (ROOT / "sql" / "migrations" / "003_performance_indexes.sql").read_text(encoding="utf-8")
        plain = migration.replace(" CONCURRENTLY", "")
        with database.connect() as connection:
            connection.execute("SET perfctl.scale = '0.1'")
            for file in ("schema.sql", "data.sql"):
                connection.execute((REFERENCE / file).read_bytes())
            connection.execute(plain.encode())
            connection.execute("VACUUM (ANALYZE)")
        yield database


def test_dropping_any_one_index_fails_exactly_the_queries_that_it_serves(tmp_path: Path, full: Database) -> None:
    hot = reference(tmp_path, full)
    ran = hot.check()
    assert (ran.code, set(ran.statuses.values())) == (0, {"ok"}), ran.stdout
    for index, definition in execute(full, INDEXES):
        execute(full, f"DROP INDEX {index}")
        ran = hot.check()
        execute(full, definition)
        expected = {query for query, wanted in served().items() if wanted == index.split(".")[-1]}
        assert expected
        assert {name for name, status in ran.statuses.items() if status == "finding"} == expected, index
        assert {status for name, status in ran.statuses.items() if name not in expected} == {"ok"}, index


def test_an_index_of_the_right_name_that_cannot_serve_is_not_enough(tmp_path: Path, full: Database) -> None:
    hot = reference(tmp_path, full)
    wrong = "CREATE INDEX idx_jobs_live_key ON production.jobs (created_at)"
    right = execute(full, f"{INDEXES} AND indexrelid::regclass::text ~ 'idx_jobs_live_key'")[0][1]
    execute(full, "DROP INDEX production.idx_jobs_live_key", wrong)
    ran = hot.check("live_job_by_key")
    execute(full, "DROP INDEX production.idx_jobs_live_key", right)
    assert ran.statuses == {"live_job_by_key": "finding"}
    assert 'index "idx_jobs_live_key" is not used; instead: ' in ran.items["live_job_by_key"]["detail"]


def test_with_analyze_every_query_is_run(tmp_path: Path, full: Database) -> None:
    ran = reference(tmp_path, full).check("--analyze")
    assert (ran.code, set(ran.statuses.values())) == (0, {"ok"})
    angles = [
        angle for item in ran.items.values() for angle in item["data"]["angles"] if angle["name"] != "generic plan"
    ]
    assert len(angles) == 27
    assert all(angle["blocks"] > 0 for angle in angles)
