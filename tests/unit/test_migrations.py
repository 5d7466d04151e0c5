"""Migration files into records: every form that is taken, every one that is refused, and where it stands."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfctl.errors import MigrationError
from perfctl.migrations.files import from_text, load, load_file
from perfctl.migrations.model import (
    Analyze,
    CommentOnIndex,
    CreateExtension,
    CreateIndex,
    CreateStatistics,
    DropIndex,
    Name,
    SetSetting,
    Source,
    Statement,
)
from perfctl.migrations.parse import parse


def statements(text: str) -> tuple[Statement, ...]:
    return parse(Source("m.sql", text, text.encode()))[0]


def notes(text: str) -> list[str]:
    return [f"{note.place}: {note.text}" for note in parse(Source("m.sql", text, text.encode()))[1]]


def create(text: str) -> CreateIndex:
    (statement,) = statements(text)
    assert isinstance(statement, CreateIndex)
    return statement


def refused(text: str) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        statements(text)
    return caught.value


# CREATE INDEX in all its forms


def test_a_plain_index_has_name_table_and_tail() -> None:
    made = create("CREATE INDEX i ON s.t (a, b DESC);")
    assert (made.name, made.table, made.tail) == (Name("s", "i"), Name("s", "t"), "(a, b DESC)")


def test_a_name_without_a_schema_is_left_to_the_search_path() -> None:
    made = create("CREATE INDEX i ON t (a)")
    assert (made.name, made.table) == (Name(None, "i"), Name(None, "t"))


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("CREATE INDEX i ON t (a)", "concurrently", False),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "concurrently", True),
        ("CREATE INDEX i ON t (a)", "if_not_exists", False),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", "if_not_exists", True),
        ("CREATE INDEX i ON t (a)", "unique", False),
        ("CREATE UNIQUE INDEX i ON t (a)", "unique", True),
        ("CREATE INDEX i ON t (a)", "only", False),
        ("CREATE INDEX i ON ONLY t (a)", "only", True),
        ("CREATE INDEX i ON t (a)", "method", "btree"),
        ("CREATE INDEX i ON t USING gin (a)", "method", "gin"),
        ("CREATE INDEX i ON t (a)", "tablespace", None),
        ("CREATE INDEX i ON t (a) TABLESPACE fast", "tablespace", "fast"),
        ("CREATE INDEX i ON t (a)", "partial", False),
        ("CREATE INDEX i ON t (a) WHERE a > 1", "partial", True),
        ("CREATE INDEX i ON t (a)", "expression", False),
        ("CREATE INDEX i ON t (lower(a))", "expression", True),
        ("CREATE INDEX i ON t (a, b) INCLUDE (c)", "columns", ("a", "b")),
        ("CREATE INDEX i ON t (a, (b -> 'x'))", "columns", ("a", "")),
    ],
)
def test_a_form_is_read(text: str, attribute: str, value: object) -> None:
    assert getattr(create(text), attribute) == value


@pytest.mark.parametrize(
    "tail",
    [
        "(a)",
        "(a DESC NULLS LAST, b ASC NULLS FIRST)",
        "USING gin (doc jsonb_path_ops)",
        "USING gin (doc) WITH (fastupdate = off)",
        "USING hash (a)",
        "USING brin (a) WITH (pages_per_range = 16)",
        "((doc #>> '{a,\"b\"}'))",
        "(lower(a), (b || ')'))",
        '(a COLLATE "C" text_pattern_ops)',
        "(a) INCLUDE (b, c)",
        "(a) NULLS NOT DISTINCT",
        "(a) TABLESPACE fast",
        "(a) WHERE b = 'ON t (x)' AND c IS NOT NULL",
        "(a) WHERE b LIKE '%s 50%%'",
        "(a) WHERE b = $$it's; here$$",
        "(a /* the key */) -- why\n  WHERE b",
    ],
)
def test_the_tail_is_the_text_as_written(tail: str) -> None:
    assert create(f"CREATE INDEX i ON t {tail}").tail == tail


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("t", Name(None, "t")),
        ("s.t", Name("s", "t")),
        ("s . t", Name("s", "t")),
        ("ONLY s.t", Name("s", "t")),
        ("ONLY (s.t)", Name("s", "t")),
        ("s.t *", Name("s", "t")),
        ('"S"."a.b"', Name("S", "a.b")),
        ('"say ""hi"""', Name(None, 'say "hi"')),
        ("Größe", Name(None, "größe")),
        ("s./* here */t", Name("s", "t")),
        ('U&"d\\0061t"', Name(None, "dat")),
    ],
)
def test_the_tail_begins_behind_the_table(table: str, name: Name) -> None:
    made = create(f"CREATE INDEX i ON {table} (a)")
    assert (made.table, made.tail) == (name, "(a)")


@pytest.mark.parametrize(
    "word", ["ONLY", "on", "using", "create", "Index", "concurrently", "if", "a b", "x(y)", 'q"q', "é", "名前"]
)
def test_a_quoted_name_may_be_any_word(word: str) -> None:
    quoted = '"' + word.replace('"', '""') + '"'
    made = create(f"CREATE INDEX CONCURRENTLY {quoted} ON {quoted}.{quoted} ({quoted})")
    assert (made.name, made.table, made.tail) == (Name(word, word), Name(word, word), f"({quoted})")


def test_two_spellings_of_one_index_have_one_definition() -> None:
    first = create("CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON s.t (x)")
    second = create('create index b on "s".t /* the key */ using btree (X)')
    assert first.definition == second.definition


@pytest.mark.parametrize(
    "other",
    [
        "CREATE INDEX i ON s.t (y)",
        "CREATE UNIQUE INDEX i ON s.t (x)",
        "CREATE INDEX i ON s.t (x) WHERE x > 1",
        "CREATE INDEX i ON s.t (x) INCLUDE (y)",
        "CREATE INDEX i ON u.t (x)",
        "CREATE INDEX i ON s.t USING hash (x)",
        "CREATE INDEX i ON s.t (x DESC)",
    ],
)
def test_another_index_has_another_definition(other: str) -> None:
    assert create(other).definition != create("CREATE INDEX i ON s.t (x)").definition


_WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1
).filter(lambda word: len(word.encode()) <= 63)
_GAPS = st.sampled_from(
    [" ", "\n", "\t ", " /* note */ ", " -- to the end; 'of' \"line\n", " /* ä /* nested */ ; */ ", "\n\n"]
)


@given(words=st.tuples(_WORDS, _WORDS, _WORDS, _WORDS), gaps=st.lists(_GAPS, min_size=8, max_size=8), before=_GAPS)
def test_any_name_and_gap_comes_back_as_written(words: tuple[str, str, str, str], gaps: list[str], before: str) -> None:
    index, schema, table, column = words
    i, s, t, c = ('"' + word.replace('"', '""') + '"' for word in words)
    tail = f"({gaps[5]}{c}{gaps[6]}DESC)"
    text = f"{before}CREATE{gaps[0]}INDEX{gaps[1]}{i}{gaps[2]}ON{gaps[3]}{s}.{t}{gaps[4]}{tail}{gaps[7]};\n{before}"
    made = create(text)
    assert (made.name, made.table, made.columns) == (Name(schema, index), Name(schema, table), (column,))
    assert made.tail == f"{gaps[4]}{tail}{gaps[7]}".strip()
    assert text[: text.index("CREATE")].count("\n") + 1 == made.place.line


@given(count=st.integers(1, 6), gaps=st.lists(_GAPS, min_size=6, max_size=6))
def test_every_statement_of_a_file_has_its_own_place(count: int, gaps: list[str]) -> None:
    text = "".join(f"{gap}CREATE INDEX i{n} ON t (a);" for n, gap in zip(range(count), gaps, strict=False))
    made = statements(text)
    lines = text.split("\n")
    assert len(made) == count
    assert all(lines[s.place.line - 1][s.place.column - 1 :].startswith("CREATE") for s in made)


# the other statements


def test_one_drop_of_three_names_is_three_drops() -> None:
    made = statements('DROP INDEX CONCURRENTLY IF EXISTS a, s.b, "C d" CASCADE')
    assert [s.name for s in made if isinstance(s, DropIndex)] == [Name(None, "a"), Name("s", "b"), Name(None, "C d")]
    assert all(isinstance(s, DropIndex) and s.concurrently and s.if_exists and s.cascade for s in made)


def test_a_plain_drop_is_told_from_a_concurrent_one() -> None:
    (made,) = statements("DROP INDEX a RESTRICT")
    assert isinstance(made, DropIndex)
    assert (made.concurrently, made.if_exists, made.cascade) == (False, False, False)


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("COMMENT ON INDEX s.i IS 'it''s'", "it's"),
        ("COMMENT ON INDEX s.i IS E'a\\nb'", "a\nb"),
        ("COMMENT ON INDEX s.i IS $$x$$", "x"),
        ("COMMENT ON INDEX s.i IS NULL", None),
        ("COMMENT ON INDEX s.i IS ''", None),
    ],
)
def test_a_comment_is_read(text: str, comment: str | None) -> None:
    (made,) = statements(text)
    assert isinstance(made, CommentOnIndex)
    assert (made.name, made.comment) == (Name("s", "i"), comment)


def test_analyze_of_several_tables_is_one_for_each() -> None:
    made = statements("ANALYZE s.t (a, b), u")
    assert [(s.table, s.columns) for s in made if isinstance(s, Analyze)] == [
        (Name("s", "t"), ("a", "b")),
        (Name(None, "u"), ()),
    ]


@pytest.mark.parametrize(
    ("text", "name", "tail"),
    [
        ("CREATE STATISTICS s.x ON a, b FROM s.t", Name("s", "x"), "ON a, b"),
        ("CREATE STATISTICS x (ndistinct) ON a, b FROM s.t", Name(None, "x"), "(ndistinct) ON a, b"),
        ("CREATE STATISTICS IF NOT EXISTS s.x (mcv) ON a, (b % 2) FROM s.t", Name("s", "x"), "(mcv) ON a, (b % 2)"),
        (
            "CREATE STATISTICS x ON a, (extract(year FROM b)) FROM s.t",
            Name(None, "x"),
            "ON a, (extract(year FROM b))",
        ),
        ('CREATE STATISTICS "if" ON a, b FROM s.t', Name(None, "if"), "ON a, b"),
    ],
)
def test_extended_statistics_are_read(text: str, name: Name, tail: str) -> None:
    (made,) = statements(text)
    assert isinstance(made, CreateStatistics)
    assert (made.name, made.table, made.tail) == (name, Name("s", "t"), tail)


def test_an_extension_is_read() -> None:
    (made,) = statements('CREATE EXTENSION IF NOT EXISTS "pg_trgm" WITH SCHEMA public')
    assert isinstance(made, CreateExtension)
    assert made.name == "pg_trgm"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("SET maintenance_work_mem = '1GB'", "maintenance_work_mem", "1GB"),
        ("SET maintenance_work_mem TO 65536", "maintenance_work_mem", "65536"),
        ("SET max_parallel_maintenance_workers = 4", "max_parallel_maintenance_workers", "4"),
        ("SET SESSION synchronous_commit = off", "synchronous_commit", "off"),
        ("SET row_security = on", "row_security", "on"),
        ("SET vacuum_cost_delay = 0.5", "vacuum_cost_delay", "0.5"),
        ('SET search_path = a, "B c"', "search_path", '"a", "B c"'),
        ("SET maintenance_io_concurrency = -1", "maintenance_io_concurrency", "-1"),
    ],
)
def test_a_build_setting_is_read(text: str, name: str, value: str) -> None:
    (made,) = statements(text)
    assert isinstance(made, SetSetting)
    assert (made.name, made.value) == (name, value)


def test_a_setting_holds_for_what_comes_after_it() -> None:
    made = statements(
        "CREATE INDEX a ON t (x); SET work_mem = '1GB'; CREATE INDEX b ON t (y); SET work_mem = '2GB';"
        "CREATE INDEX c ON t (z)"
    )
    assert [s.settings for s in made if isinstance(s, CreateIndex)] == [
        (),
        (("work_mem", "1GB"),),
        (("work_mem", "2GB"),),
    ]


# psql's own lines


def test_psql_lines_are_passed_over_with_a_note() -> None:
    text = "\\set ON_ERROR_STOP on\n\\timing\nCREATE INDEX i ON t (a);\n  \\echo done\n"
    assert [s.place.line for s in statements(text)] == [3]
    assert notes(text) == [
        'm.sql:1:1: psql command "\\set" passed over',
        'm.sql:2:1: psql command "\\timing" passed over',
        'm.sql:4:3: psql command "\\echo" passed over',
    ]


def test_a_psql_line_with_wide_letters_shifts_no_place() -> None:
    (made,) = statements("\\echo größer – 名前\nCREATE INDEX i ON t (a);")
    assert (made.place.line, made.place.column, made.text) == (2, 1, "CREATE INDEX i ON t (a)")


@pytest.mark.parametrize(
    "word", ["i other.sql", "! rm file", "copy t from file", "gexec", "connect db", "o file", "if"]
)
def test_a_psql_line_that_does_something_is_refused(word: str) -> None:
    error = refused(f"CREATE INDEX i ON t (a);\n\\{word}\n")
    assert error.message.startswith(f'm.sql:2:1: error: psql command "\\{word.split()[0]}" is not allowed')


@pytest.mark.parametrize(
    "text",
    [
        "COMMENT ON INDEX i IS 'first\n\\! second'",
        "/* first\n\\! second */ CREATE INDEX i ON t (a)",
        'CREATE INDEX "a\n\\! b" ON t (a)',
        "CREATE INDEX i ON t (a) WHERE b = $x$\n\\! c\n$x$",
    ],
)
def test_a_backslash_inside_a_string_name_or_comment_is_no_psql_line(text: str) -> None:
    assert len(statements(text)) == 1
    assert notes(text) == []


# what is refused, and where


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ALTER TABLE t ADD COLUMN a int", "ALTER TABLE t"),
        ("BEGIN", "BEGIN"),
        ("REINDEX INDEX CONCURRENTLY i", "REINDEX INDEX CONCURRENTLY"),
        ("CREATE TABLE t (a int)", "CREATE TABLE t"),
        ("DROP TABLE t", "DROP TABLE t"),
        ("SELECT pg_terminate_backend(1)", "SELECT pg_terminate_backend(1)"),
        ("COMMENT ON TABLE t IS 'x'", "COMMENT ON TABLE"),
        ("VACUUM t", "VACUUM t"),
        ("DO $$ BEGIN END $$", "DO $$ BEGIN"),
        ("COPY t FROM PROGRAM 'x'", "COPY t FROM"),
        ("ALTER INDEX i RENAME TO j", "ALTER INDEX i"),
        ("DROP EXTENSION x", "DROP EXTENSION x"),
    ],
)
def test_any_other_statement_is_refused_with_its_words(text: str, words: str) -> None:
    error = refused(f"CREATE INDEX i ON t (a);\n\n  {text};")
    assert error.message.startswith(f'm.sql:3:3: error: "{words}" is not allowed in an index migration\n')
    assert error.message.endswith(f"  |   {text};\n  |   ^")
    assert error.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("CREATE INDEX ON t (a)", "without a name"),
        ("CREATE INDEX i ON db.s.t (a)", "names a database"),
        ("DROP INDEX db.s.i", "too many dots"),
        ("ANALYZE", "whole database"),
        ("CREATE STATISTICS ON a, b FROM t", "needs a name"),
        ("SET LOCAL work_mem = '1GB'", "local"),
        ("SET work_mem TO DEFAULT", "only SET name = value"),
        ("RESET work_mem", "only SET name = value"),
        ("SET ROLE admin", "does not bear on building"),
        ("SET session_authorization = x", "does not bear on building"),
    ],
)
def test_a_form_that_cannot_be_followed_is_refused(text: str, why: str) -> None:
    error = refused(text)
    assert error.message.startswith("m.sql:1:1: error: ")
    assert why in error.message


def test_a_syntax_error_has_line_column_and_caret() -> None:
    error = refused("-- ok\nCREATE INDEX i ON t (a) WERE b;\n")
    assert error.message == (
        'm.sql:2:25: error: syntax error at or near "WERE"\n'
        "  | CREATE INDEX i ON t (a) WERE b;\n"
        "  |                         ^"
    )


def test_a_syntax_error_behind_wide_letters_is_placed_by_letters() -> None:
    error = refused('-- größe 名前\nCREATE INDEX "größe" ON t (a) WERE b;\n')
    assert error.message.splitlines()[0] == 'm.sql:2:31: error: syntax error at or near "WERE"'


def test_a_statement_behind_wide_letters_is_placed_by_letters() -> None:
    made = statements('/* 名前 */ CREATE INDEX i ON t (a); /* ü */ CREATE INDEX "ö" ON t (b)')
    assert [s.place.column for s in made] == [10, 43]
    assert [s.text for s in made] == ["CREATE INDEX i ON t (a)", 'CREATE INDEX "ö" ON t (b)']


@pytest.mark.parametrize("text", ["CREATE INDEX i ON t (", "CREATE INDEX i ON t (a) WHERE b = 'x", "/* no end"])
def test_a_file_that_ends_too_early_is_refused_on_its_last_line(text: str) -> None:
    assert refused(f"-- head\n{text}\n").message.startswith("m.sql:2:")


def test_a_caret_stands_under_its_letter_behind_a_tab() -> None:
    lines = refused("\tSELECT 1").message.splitlines()
    assert lines[1].index("S") == lines[2].index("^")


@pytest.mark.parametrize("text", ["", "\n\n", "-- only a comment\n", ";;"])
def test_a_file_without_statements_has_none(text: str) -> None:
    assert statements(text) == ()


def test_a_name_of_63_bytes_is_taken() -> None:
    assert create(f"CREATE INDEX {'i' * 63} ON t (a)").name.name == "i" * 63


@pytest.mark.parametrize("name", ["i" * 70, '"' + "é" * 35 + '"'])
def test_a_name_of_70_bytes_is_refused_with_its_length(name: str) -> None:
    error = refused(f"CREATE INDEX {name} ON t (a)")
    assert "has 70 bytes; PostgreSQL keeps 63" in error.message


# files


def write(folder: Path, name: str, data: bytes | str = "CREATE INDEX i ON t (a);") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_a_folder_gives_its_migrations_by_number(tmp_path: Path) -> None:
    for name in ("10_c.sql", "9_b.sql", "002_a.sql", "plain.sql", "readme.txt"):
        write(tmp_path, name)
    assert [(m.number, m.name) for m in load([tmp_path])] == [(2, "002_a"), (9, "9_b"), (10, "10_c"), (None, "plain")]


@pytest.mark.parametrize("undo", ["1_a_rollback.sql", "1_a.down.sql", "1_a-undo.sql", "1_a_revert.sql"])
def test_the_file_that_undoes_a_migration_is_found(tmp_path: Path, undo: str) -> None:
    write(tmp_path, "1_a.sql")
    write(tmp_path, undo, "DROP INDEX CONCURRENTLY i;")
    (migration,) = load([tmp_path])
    assert migration.rollback is not None
    assert migration.rollback.path.name == undo


def test_up_and_down_are_one_migration(tmp_path: Path) -> None:
    write(tmp_path, "1_a.up.sql")
    write(tmp_path, "1_a.down.sql", "DROP INDEX CONCURRENTLY i;")
    (migration,) = load([tmp_path])
    assert (migration.name, migration.rollback is not None) == ("1_a", True)


def test_a_migration_without_an_undo_has_none(tmp_path: Path) -> None:
    write(tmp_path, "1_a.sql")
    assert load([tmp_path])[0].rollback is None


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path, "1_a.sql")
    assert len(load([tmp_path, path])) == 1


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfCREATE INDEX i ON t (a);\r\n"
    assert load_file(write(tmp_path, "1.sql", data)).sha256 == hashlib.sha256(data).hexdigest()


def test_crlf_is_read_as_one_line_end(tmp_path: Path) -> None:
    path = write(tmp_path, "1.sql", b"-- x\r\nCREATE INDEX i\r\n  ON t (a)\r\n  WHERE b;\r\n")
    (made,) = load_file(path).indexes
    assert (made.place.line, made.place.column, made.tail) == (2, 1, "(a)\n  WHERE b")


def test_a_byte_order_mark_belongs_to_no_statement(tmp_path: Path) -> None:
    (made,) = load_file(write(tmp_path, "1.sql", b"\xef\xbb\xbfCREATE INDEX i ON t (a);")).indexes
    assert (made.place.line, made.place.column, made.text) == (1, 1, "CREATE INDEX i ON t (a)")


def test_a_nul_byte_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "1.sql", b"-- x\nCREATE\0 INDEX i ON t (a);")
    with pytest.raises(MigrationError, match="holds a NUL byte") as caught:
        load_file(path)
    assert caught.value.message.startswith(f"{path}:2: error: ")
    assert caught.value.hint


def test_other_than_utf8_is_refused_with_its_line_and_byte(tmp_path: Path) -> None:
    path = write(tmp_path, "1.sql", "-- x\nCREATE INDEX größe ON t (a);".encode("latin-1"))
    with pytest.raises(MigrationError, match="byte 0xf6 is not UTF-8") as caught:
        load_file(path)
    assert caught.value.message.startswith(f"{path}:2: error: ")


def test_two_migrations_of_one_number_are_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path, "003_a.sql")
    write(tmp_path, "3_b.sql")
    with pytest.raises(MigrationError, match=r"003_a\.sql.*3_b\.sql.*one number, 3"):
        load([tmp_path])


def test_a_folder_without_migrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no migrations in") as caught:
        load([tmp_path])
    assert caught.value.hint


def test_a_folder_with_undo_files_alone_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "1_a_rollback.sql", "DROP INDEX i;")
    with pytest.raises(MigrationError, match="no migrations in"):
        load([tmp_path])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="does not exist"):
        load([tmp_path / "nothing.sql"])


def test_a_mistake_in_the_undo_file_is_refused_too(tmp_path: Path) -> None:
    write(tmp_path, "1_a.sql")
    write(tmp_path, "1_a_rollback.sql", "DROP TABLE t;")
    with pytest.raises(MigrationError, match=r"1_a_rollback\.sql:1:1: error: \"DROP TABLE t\""):
        load([tmp_path])


def test_an_undo_file_named_outright_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "1_a_rollback.sql", "DROP INDEX CONCURRENTLY i;")
    assert len(load([path])[0].statements) == 1


@pytest.mark.parametrize("text", ["", "-- nothing yet\n", "\\set x 1\n"])
def test_a_file_without_a_statement_is_refused(text: str) -> None:
    with pytest.raises(MigrationError, match="holds no statement"):
        from_text(Path("m.sql"), text, "0")
