"""Which hot queries the configuration names, with which rules, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfctl import config
from perfctl.errors import ConfigError, UsageError
from perfctl.explain.check import Hot, hot, manner
from perfctl.explain.observe import Limits

HEAD = "version: 1\ntargets: {a: {database: {dsn: 'postgresql://u@h/d'}}}\nqueries:\n"


def loaded(folder: Path, queries: str) -> config.Loaded:
    (folder / "perfctl.yaml").write_text(HEAD + queries, encoding="utf-8")
    return config.load(folder / "perfctl.yaml", {}, folder)


def read(folder: Path, queries: str, *paths: Path) -> Hot:
    return hot(loaded(folder, queries), paths)


def test_files_and_inline_queries_are_held_to_the_rules_of_all(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "a.sql").write_text("-- override: cost: once a night\nSELECT 1", encoding="utf-8")
    found = read(
        tmp_path,
        "  dir: sql\n"
        "  rules:\n"
        "    - cost: 5\n"
        "  inline:\n"
        "    - name: b\n"
        "      sql: SELECT :x\n"
        "      params: {x: {type: int, value: 1}}\n"
        "      rules: [{rows: 1..5}]\n",
    )
    assert found.problems == ()
    assert {s.query.name: [(r.said.key, r.said.line) for r in s.rules] for s in found.subjects} == {
        "a": [], "b": [("rows", 8), ("cost", 6)],
    }  # fmt: skip


def test_a_bad_query_or_a_bad_rule_of_it_leaves_the_others(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "  inline:\n"
        "    - {name: a, sql: SELECT 1}\n"
        "    - {name: b, sql: SELEC 1}\n"
        "    - {name: c, sql: SELECT 1, rules: [{csot: 1}]}\n"
        "    - {name: d, sql: SELECT 1}\n"
        "    - {name: d, sql: SELECT 2}\n",
    )
    assert [each.query.name for each in found.subjects] == ["a"]
    assert [(each.name, each.line) for each in found.problems] == [("b", 6), ("d", 9), ("c", 7)]


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("  rules:\n    - csot: 5\n", 'perfctl.yaml:5: error: queries.rules.0: unknown rule "csot"'),
        ("  rules:\n    - cost: 5\n    - cost: x\n", "perfctl.yaml:6: error: queries.rules.1: cost: expected a number"),
        ("  rules:\n    - {cost: 5, rows: 1}\n", "perfctl.yaml:5: error: queries.rules.0: a rule is one key"),
        ("  dir: nowhere\n", "perfctl.yaml:4: error: queries.dir: there is no folder"),
    ],
)
def test_what_is_wrong_for_all_ends_it_with_its_line(tmp_path: Path, queries: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, queries)
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize("key", ["timeout", "lock_timeout"])
def test_a_limit_of_nothing_would_be_none_on_the_server_and_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"queries.{key}: expected a duration longer than 0s"):
        loaded(tmp_path, f"  {key}: 0s\n")
    assert Limits(0.0001, 0.0001).settings() == {"statement_timeout": "1ms", "lock_timeout": "1ms"}


def test_a_folder_that_nobody_configured_may_be_absent_and_a_file_stands_for_it(tmp_path: Path) -> None:
    assert read(tmp_path, "  analyze: true\n") == Hot(())
    (tmp_path / "q.sql").write_text("SELECT 1", encoding="utf-8")
    found = read(tmp_path, "  dir: nowhere\n", tmp_path / "q.sql")
    assert [each.query.name for each in found.subjects] == ["q"]


def test_names_and_globs_choose_and_a_wrong_one_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, "  inline:\n" + "".join(f"    - {{name: {n}, sql: {n[0]}}}\n" for n in ("S1", "S2", "T1")))
    assert [each.name for each in found.chosen(["S*"]).problems] == ["S1", "S2"]
    assert found.chosen([]) == found
    with pytest.raises(UsageError) as refused:
        found.chosen(["S1", "x"])
    assert (refused.value.message, refused.value.hint) == ('there is no hot query "x"', "known: S1, S2, T1")


def test_the_command_line_adds_to_the_configured_manner(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "  timeout: 3s\n  lock_timeout: 2s\n  generic: false\n")
    how = manner(settings, analyze=True)
    assert (how.limits.statement_timeout_s, how.limits.lock_timeout_s, how.analyze, how.generic) == (3, 2, True, False)
    assert manner(settings, timeout_s=7.0).limits.statement_timeout_s == 7.0
