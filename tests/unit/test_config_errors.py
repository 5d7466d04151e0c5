"""What a wrong configuration gets: every mistake in one error, with its place and cure, and no secret."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from perfctl.config import load
from perfctl.errors import ConfigError

LATER = "version 2 is not known to this perfctl, which reads version 1"
INDENTATION = "the indentation fits nothing above it, or text follows a closed quote"
NOT_REDIS = (
    "expected an address that begins with redis://, rediss://, valkey://, valkeys://, unix://, redis+sentinel://,"
    " rediss+sentinel://"
)
NOT_POSTGRESQL = 'not a PostgreSQL address: expected postgresql://user@host/database or "host=… dbname=…"'
NO_HOME = "the path begins with the home of a user who does not exist"
PORT = "not a readable address: expected host or host:port, the port a number"
REFERENCE = '"${" has to be followed by NAME}, NAME:-default} or NAME:?message}; a plain "$" is "$$"'
HEAD = "version: 1\ntargets:\n  a:\n    cache: {url: redis://h}\n"


def error(folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> ConfigError:
    """The error that a file gets."""
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "perfctl.yaml").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(None, environ or {}, folder)
    assert caught.value.exit_code == 2
    return caught.value


def first_line(folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> str:
    return error(folder, text, environ).message.splitlines()[0]


def key(text: str) -> str:
    return text.partition(": ")[0]


def test_all_mistakes_in_one_run(tmp_path: Path) -> None:
    text = """\
version: 1
default_target: prodution
targets:
  production:
    protectd: true  # a comment
    database: {dsn: "${DATABASE_URL}", schemas: production, application_name: x}
    cache: {url: "${REDIS_URL}", prefix: 7, database: 3}
indexes: {wait_budget: 15}
criteria: {cache: {hit_ratio_min: 70}, pool: {size: "20"}, api: {p95_max: 0s}}
queries: {dir: a, dir: b}
"""
    assert error(tmp_path, text).message == snapshot("""\
perfctl.yaml:2:17: error: default_target: no such target
  | default_target: prodution
  |                 ^^^^^^^^^
  = did you mean "production"?

perfctl.yaml:5:5: error: unknown key "protectd" under targets.production
  |     protectd: true
  |     ^^^^^^^^
  = did you mean "protected"?

perfctl.yaml:6:21: error: targets.production.database.dsn: environment variable "DATABASE_URL" is not set
  |     database: {dsn: ***, schemas: production, application_name: ***}
  |                     ^^^

perfctl.yaml:6:49: error: targets.production.database.schemas: expected a list such as [first, second]
  |     database: {dsn: ***, schemas: production, application_name: ***}
  |                                   ^^^^^^^^^^

perfctl.yaml:6:61: error: unknown key "application_name" under targets.production.database
  |     database: {dsn: ***, schemas: production, application_name: ***}
  |                                               ^^^^^^^^^^^^^^^^
  = perfctl sets it, so that its sessions can be told apart

perfctl.yaml:7:18: error: targets.production.cache.url: environment variable "REDIS_URL" is not set
  |     cache: {url: ***, prefix: 7, database: ***}
  |                  ^^^

perfctl.yaml:7:42: error: targets.production.cache.prefix: expected text
  |     cache: {url: ***, prefix: 7, database: ***}
  |                               ^
  = put the value in quotes

perfctl.yaml:7:45: error: unknown key "database" under targets.production.cache
  |     cache: {url: ***, prefix: 7, database: ***}
  |                                  ^^^^^^^^
  = known here: url, prefix, password_file

perfctl.yaml:8:24: error: indexes.wait_budget: expected a duration such as 500ms, 3s, 15m, 2h: the unit is missing
  | indexes: {wait_budget: 15}
  |                        ^^

perfctl.yaml:9:35: error: criteria.cache.hit_ratio_min: expected a number from 0 to 1, such as 0.7, without quotes
  | criteria: {cache: {hit_ratio_min: 70}, pool: {size: "20"}, api: {p95_max: 0s}}
  |                                   ^^

perfctl.yaml:9:53: error: criteria.pool.size: expected a whole number from 1 up, without quotes
  | criteria: {cache: {hit_ratio_min: 70}, pool: {size: "20"}, api: {p95_max: 0s}}
  |                                                     ^^^^

perfctl.yaml:9:60: error: missing key "url" under criteria.api
  | criteria: {cache: {hit_ratio_min: 70}, pool: {size: "20"}, api: {p95_max: 0s}}
  |                                                            ^^^

perfctl.yaml:9:75: error: criteria.api.p95_max: expected a duration longer than 0s
  | criteria: {cache: {hit_ratio_min: 70}, pool: {size: "20"}, api: {p95_max: 0s}}
  |                                                                           ^^

perfctl.yaml:10:19: error: duplicate key "dir", first given on line 10
  | queries: {dir: a, dir: ***}
  |                   ^^^\
""")


def test_carets_point_at_the_value_behind_a_mask(tmp_path: Path) -> None:
    text = 'version: 1\ntargets: {a: {database: {dsn: "postgresql://u@h/a-long-name", gssencmode: on, port: 0}}}\n'
    assert error(tmp_path, text).message == snapshot("""\
perfctl.yaml:2:75: error: targets.a.database.gssencmode: expected one of disable, prefer, require
  | targets: {a: {database: {dsn: ***, gssencmode: on, port: 0}}}
  |                                                ^^

perfctl.yaml:2:85: error: targets.a.database.port: expected a port from 1 to 65535, or one for each host: 5432,5433
  | targets: {a: {database: {dsn: ***, gssencmode: on, port: 0}}}
  |                                                          ^\
""")


def test_wrong_shapes(tmp_path: Path) -> None:
    text = """\
version: 1
targets:
  - a
indexes: sql
criteria: {cache: [1], pool: {size: [1]}}
"""
    assert error(tmp_path, text).message == snapshot("""\
perfctl.yaml:2:1: error: targets: expected a section with keys of its own
  | targets:
  | ^^^^^^^

perfctl.yaml:4:10: error: indexes: expected a section with keys of its own
  | indexes: ***
  |          ^^^

perfctl.yaml:5:19: error: criteria.cache: expected a section with keys of its own
  | criteria: {cache: [***], pool: {size: [***]}}
  |                   ^^^^^

perfctl.yaml:5:37: error: criteria.pool.size: expected a whole number from 1 up, without quotes
  | criteria: {cache: [***], pool: {size: [***]}}
  |                                       ^^^^^\
""")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "perfctl.yaml:1:1: error: the file holds nothing"),
        ("# only this\n", "perfctl.yaml:1:1: error: the file holds nothing"),
        ("---\n", "perfctl.yaml:1:1: error: the file holds nothing"),
        ("- 1\n", "perfctl.yaml:1:1: error: expected a section with keys of its own"),
        ("targets: {}\n", 'perfctl.yaml:1:1: error: missing key "version"'),
        ("version: 2\nx: 1\n", f"perfctl.yaml:1:10: error: {LATER}"),
        ("version: one\n", "perfctl.yaml:1:10: error: version: expected 1, the version of this format"),
        ("version: 0\n", "perfctl.yaml:1:10: error: version: expected 1, the version of this format"),
        ("version: 1\ntargets:\n\ta: 1\n", "perfctl.yaml:3:1: error: a tab in the indentation"),
        ("version: 1\ntargets:\n  \ta: 1\n", "perfctl.yaml:3:3: error: a tab in the indentation"),
        ("version:\t1\n", "perfctl.yaml:1:9: error: a tab"),
        ('version: 1\nqueries: {dir: "a\n', "perfctl.yaml:3:1: error: a quote is opened and not closed"),
        ("version: 1\nqueries: {dir: a\n", 'perfctl.yaml:3:1: error: expected "," or the bracket that closes this'),
        ("version: 1\nqueries: dir: a\n", 'perfctl.yaml:2:13: error: a ":" where no key can be'),
        ("version: 1\nqueries:\n  dir: a\n b: c\n", f"perfctl.yaml:4:2: error: {INDENTATION}"),
        ("version: 1\nqueries\nindexes: {}\n", 'perfctl.yaml:3:1: error: expected "key: value"'),
        ("version: 1\nqueries: {dir: @a}\n", "perfctl.yaml:2:16: error: a value cannot begin with this character"),
        ("version: 1\nqueries: {dir: *a}\n", "perfctl.yaml:2:16: error: an alias (*name) without its anchor (&name)"),
        ("version: 1\nqueries: {dir: !a b}\n", "perfctl.yaml:2:16: error: queries.dir: tags are not used in this file"),
        ("version: 1\nqueries: !a {dir: b}\n", "perfctl.yaml:2:10: error: queries: tags are not used in this file"),
        ("version: !!int x\n", "perfctl.yaml:1:10: error: version: tags are not used in this file"),
        ("version: 1\n---\nversion: 1\n", "perfctl.yaml:2:1: error: expected a single document"),
        ("version: 1\nqueries: &a {dir: *a}\n", "perfctl.yaml:2:14: error: an alias that contains itself"),
        ("version: 1\n? [a]\n: b\n", "perfctl.yaml:2:3: error: a key has to be a word"),
        ("version: 1\n<<: {queries: {}}\n", 'perfctl.yaml:2:1: error: unknown key "***"'),
        ("version: 1\nversion: 1\n", 'perfctl.yaml:2:1: error: duplicate key "version", first given on line 1'),
        ("version: 1\nqueries: {dir: \x07}\n", "perfctl.yaml:2:16: error: a control character (U+0007)"),
        ("version: 1\nqueries: {dir: \x00}\n", "perfctl.yaml:2:16: error: a control character (U+0000)"),
        ("[" * 999, "perfctl.yaml: error: nested too deeply"),
        (b"\xef\xbb\xbfversion: 1\n", "perfctl.yaml:1:1: error: the file begins with a byte order mark"),
        (b"version: 1\n# \xe4\n", "perfctl.yaml:2:3: error: not UTF-8"),
        ("version: 1\n".encode("utf-16"), "perfctl.yaml:1:1: error: not UTF-8"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_as_settings(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert first_line(tmp_path, text) == line


def test_crlf_is_fine(tmp_path: Path) -> None:
    (tmp_path / "perfctl.yaml").write_bytes(HEAD.replace("\n", "\r\n").encode())
    assert load(None, {}, tmp_path).target().name == "a"
    assert first_line(tmp_path, HEAD.replace("\n", "\r\n") + "x: 1\r\n").startswith("perfctl.yaml:5:1:")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^gone.yaml: error: no such file or directory$"):
        load(Path("gone.yaml"), {}, tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(None, {"PERFCTL_CONFIG": "gone.yaml"}, tmp_path)
    assert caught.value.hint == "PERFCTL_CONFIG names it"


def test_a_folder_and_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "perfctl.yaml").mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        load(None, {"DATABASE_URL": "postgresql://h"}, tmp_path)
    (tmp_path / "perfctl.yaml").rmdir()
    (tmp_path / "perfctl.yaml").symlink_to("gone")
    with pytest.raises(ConfigError, match="no such file"):
        load(None, {"DATABASE_URL": "postgresql://h"}, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "perfctl.yaml").touch(mode=0)
    with pytest.raises(ConfigError, match="permission denied"):
        load(None, {}, tmp_path)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("protected: yes", "expected true or false"),
        ('protected: "true"', "expected true or false"),
        ("protected:", "expected true or false"),
        ("database: {port: 70000}", "expected a port from 1 to 65535, or one for each host: 5432,5433"),
        ("database: {port: https}", "expected a port from 1 to 65535, or one for each host: 5432,5433"),
        ("database: {sslmode: full}", "expected one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("database: {host: 'postgresql://h/d'}", "expected a host name, a socket's folder or host1,host2"),
        ("database: {dbname: 2024}", "expected text"),
        ("database: {connect_timeout: 5}", "expected a duration such as 500ms, 3s, 15m, 2h: the unit is missing"),
        ("database: {connect_timeout: 0s}", "expected a duration longer than 0s"),
        ("database: {connect_timeout_s: 5}", 'unknown key "connect_timeout_s" under targets.b.database'),
        ("database: {application_name: x}", 'unknown key "application_name" under targets.b.database'),
        ("database: {url: x}", 'unknown key "url" under targets.b.database'),
        ("database: {dsn: 'mysql://h/d'}", NOT_POSTGRESQL),
        ("database: {dsn: ''}", NOT_POSTGRESQL),
        ("database: {dsn: 'postgresql://h:x/d'}", PORT),
        ("database: {dsn: '${EMPTY}'}", 'environment variable "EMPTY" is empty'),
        ("database: {host: '${UNSET}'}", 'environment variable "UNSET" is not set'),
        ("database: {host: '${UNSET:?ask the team}'}", 'environment variable "UNSET" is not set: ask the team'),
        ("database: {host: '${'}", REFERENCE),
        ("database: {schemas: [a, 1]}", "expected text"),
        ("database: {password: x, password_file: pw}", "password and password_file are both given"),
        ("database: {password_file: gone}", "the password file cannot be read: No such file or directory"),
        ("database: {password_file: ~nobody-of-that-name/x}", NO_HOME),
        ("database: {password_file: .}", "the password file is not a file"),
        ("database: {password_file: open}", "the password file can be read by others (mode 0640)"),
        ("cache: {prefix: x}", 'missing key "url" under targets.b.cache'),
        ("cache: {url: 'http://h'}", NOT_REDIS),
        ("cache: {url: 'redis:///0'}", "the address names no host"),
        ("pgbouncer: {}", 'missing key "dsn" under targets.b.pgbouncer'),
        ("app: {pool_metrics: ftp://h}", "expected an address that begins with http://, https://"),
        ("cache: {url: '${UNSET:-}'}", "the target reaches nothing"),
    ],
)  # fmt: skip
def test_one_mistake_in_a_target(tmp_path: Path, inside: str, message: str) -> None:
    for name, mode in (("pw", 0o600), ("open", 0o640)):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(mode)
    found = error(tmp_path, f"{HEAD}  b:\n    {inside}\n", {"EMPTY": ""}).message
    assert found.count("error:") == 1
    line, _, text = found.splitlines()[0].partition(" error: ")
    assert text.removeprefix(f"{key(text)}: ") == message
    assert key(text).startswith("targets.b") or " key " in text
    assert re.fullmatch(r"perfctl\.yaml:[56]:\d+:", line)


def test_names_of_targets(tmp_path: Path) -> None:
    found = first_line(tmp_path, HEAD + "  'b*':\n    cache: {url: redis://h}\n")
    assert found == "perfctl.yaml:5:3: error: targets.***: a target's name is made of letters, digits, '.', '_' and '-'"


def test_the_cure_for_an_open_password_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0o644)
    found = error(tmp_path, HEAD + "  b: {database: {password_file: pw}}\n").message
    assert found.endswith(f"  = run: chmod 600 {tmp_path / 'pw'}")


def test_another_librarys_parameter(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://u:CANARY@h/d?schema=public&pgbouncer=true"}
    database = load(None, environ, tmp_path).target().database
    assert database is not None
    with pytest.raises(ConfigError) as caught:
        database.conninfo()
    assert caught.value.message == (
        'environment DATABASE_URL: error: libpq does not know the parameter "pgbouncer", "schema"'
    )


# --- no password anywhere ------------------------------------------------------------------------

CANARY = "CANARY"


def everything(caught: ConfigError) -> str:
    seen = [str(caught), repr(caught), str(caught.hint), *traceback.format_exception(caught)]
    return "\n".join((*seen, repr(caught.__cause__), repr(caught.__context__)))


@pytest.mark.parametrize(
    "inside",
    [
        "database: {dsn: 'postgres//u:CANARY@h'}",
        "database: {dsn: 'postgresql://u:%zzCANARY@h'}",
        "database: {dsn: 'postgresql://u:x/CANARY@h/d'}",
        "database: {dsn: 'postgresql://u:x@CANARY@h/d'}",
        "database: {dsn: 'CANARY'}",
        "database: {dsn: [CANARY]}",
        "database: {dsn: {CANARY: 1, CANARY: 2}}",
        "database: {dsn: {'postgres://u:CANARY@h': 1}}",
        "database: {dsn: 'postgresql://u:CANARY@h', nope: 1}",
        "database: {nope: 'postgresql://u:CANARY@h'}",
        "database: {passwrod: CANARY, nope: 1}",
        "database: {password: CANARY, nope: 1}",
        "database: {password: [CANARY], nope: 1}",
        "database: {nope: 1} # CANARY",
        "database: {nope: &CANARY 1}",
        "database: {password: !CANARY x}",
        "database: {password: *CANARY}",
        "database: {password: @CANARY}",
        "database: {password: %CANARY}",
        'database: {password: "CANARY\\q"}',
        'database: {password: "CANARY}',
        'database: {password: "x" CANARY}',
        "database: {password: CANARY: CANARY}",
        "database: {password: CANARY\x07}",
        "database:\n      password: CANARY\n\t  host: h",
        "database:\n      password: CANARY\n     host: h",
        "database:\n      password: |\n        CANARY\n        x: CANARY\n      nope: 1",
        "database:\n      password: 'x\n        CANARY'\n      nope: 1",
        "database: 'postgresql://u:CANARY@h'",
        "database: ['postgresql://u:CANARY@h']",
        "database: {host: 'postgresql://u:CANARY@h'}",
        "database: {host: 'u:CANARY@h'}",
        "database: {sslmode: 'u:CANARY@h'}",
        "database: {'postgresql://u:CANARY@h': 1}",
        "cache: {url: 'redis://:x/CANARY@h'}",
        "cache: {url: 'redis://:CANARY@h:port'}",
        "cache: {url: 'CANARY://h'}",
        "cache: {url: 'redis://:CANARY@h', nope: 1}",
        "cache: 'redis://:CANARY@h'",
        "app: {pool_metrics: 'https://u:CANARY@h', nope: 1}",
        "app: {pool_metrics: 'CANARY'}",
        "database: {dsn: '${SECRET}', nope: 1}",
        "database: {dsn: '${SECRET}x y', nope: 1}",
        "database: {connect_timeout: '${SECRET}'}",
        "database: {connect_timeout: '${NUMBER}'}",
        "database: {port: '${SECRET}'}",
        "protected: '${SECRET}'",
        "database: {password: '${UNSET:-CANARY}${UNSET}'}",
        "'postgresql://u:CANARY@h'",
        "- CANARY",
    ],
)
def test_no_secret_in_an_error(tmp_path: Path, inside: str) -> None:
    environ = {"SECRET": "CANARY", "NUMBER": "8675309"}
    found = everything(error(tmp_path, f"{HEAD}  b:\n    {inside}\n", environ))
    assert CANARY not in found
    assert "8675309" not in found


def test_no_secret_when_any_one_character_is_missing(tmp_path: Path) -> None:
    text = """\
version: 1
nope: 1
targets:
  a:
    database: {dsn: "postgresql://u:CANARY@h/d", schemas: [x]}
    cache: {url: 'redis://:CANARY@h'} # note
  b: {database: {host: h, password: CANARY}}
"""
    for at, character in enumerate(text):
        if character.isupper() or text[at - 4 : at + 1] == "nope:":
            continue
        found = everything(error(tmp_path, text[:at] + text[at + 1 :]))
        assert CANARY not in found, at


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:CANARY@h/d?CANARY=1",
        "host=h password='CANARY",
        "host=h password=x CANARY",
        "host=h CANARY=x",
        "postgresql://u:CANARY%00@h/d",
        "postgresql://u:CANARY\udcff@h/d",
        "postgresql://[h:1/CANARY",
        "password=CANARY nonsense",
    ],
)
def test_no_secret_when_libpq_cannot_read_a_dsn(tmp_path: Path, dsn: str) -> None:
    text = 'version: 1\ntargets: {a: {database: {dsn: "${D}"}}}\n'
    (tmp_path / "perfctl.yaml").write_text(text)

    def read() -> object:
        database = load(None, {"D": dsn}, tmp_path).target().database
        return database and database.conninfo()

    with pytest.raises(ConfigError) as caught:
        read()
    assert CANARY not in everything(caught.value)
    assert caught.value.message.startswith("perfctl.yaml:2:31: error:")


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgres//u:CANARY@h"},
        {"DATABASE_URL": "mysql://u:CANARY@h"},
        {"REDIS_URL": "redis://:x/CANARY@h"},
        {"REDIS_URL": "CANARY"},
    ],
)
def test_no_secret_of_the_environment(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ, tmp_path)
    assert CANARY not in everything(caught.value)
    assert caught.value.message.startswith(f"environment {next(iter(environ))}: error: ")


def test_no_secret_in_what_is_in_force(tmp_path: Path) -> None:
    text = """\
version: 1
targets:
  a:
    database: {dsn: "postgresql://u:CANARY@h/d?sslpassword=CANARY"}
    pgbouncer: {dsn: "host=h password='CANARY x'"}
    cache: {url: "redis://:CANARY@h/0?password=CANARY"}
    app: {pool_metrics: "https://u:CANARY@h/x?token=CANARY", cache_metrics: "https://CANARY@h"}
  b:
    database: {host: h, password: CANARY}
  c:
    database: {dsn: "${BROKEN}"}
  d:
    database: {dsn: "${WHOLE}", password: "${PART}"}
criteria: {api: {url: "https://u:CANARY@h"}}
"""
    environ = {
        "BROKEN": "password=CANARY nonsense",
        "WHOLE": "postgresql://u:CANARY@h",
        "PART": "CANARY",
        "PGPASSWORD": "CANARY",
    }
    (tmp_path / "perfctl.yaml").write_text(text)
    found = load(None, environ, tmp_path)
    settings = found.settings
    seen = [repr(found), str(found), repr(settings), str(settings), str(found.shown()), str(found.warnings)]
    seen += [str(settings.model_dump()), settings.model_dump_json(), repr(settings.targets["a"].database)]
    assert CANARY not in "\n".join(seen)
    assert ("targets.c.database.dsn", "***", "perfctl.yaml:11, environment BROKEN") in found.shown()


def test_nothing_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "perfctl.yaml").write_text(HEAD)
    found = load(None, {}, tmp_path)
    with pytest.raises(Exception, match="frozen"):
        found.settings.version = 1
    with pytest.raises(Exception, match="frozen"):
        found.target().protected = True
