"""Where the configuration is found, what it holds, where each value comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from perfctl.config import (
    Loaded,
    format_duration,
    json_schema,
    load,
    mask_dsn,
    mask_url,
    nearest,
    parse_duration,
    parse_size,
)
from perfctl.config.database import PG_VARIABLES
from perfctl.config.expand import expand
from perfctl.config.schema import made
from perfctl.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "perfctl.yaml.example"
DSN = "postgresql://app:hush@db.example:5433/shop"
ENVIRON = {"DATABASE_URL": DSN, "REDIS_URL": "redis://:hush@cache.example:6379/0"}
ONE = 'version: 1\ntargets:\n  one:\n    database: {dsn: "postgresql://db.example/shop"}\n'


def loaded(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    (folder / "perfctl.yaml").write_text(text)
    return load(None, environ or {}, folder)


def shown(found: Loaded) -> dict[str, tuple[str, str]]:
    return {key: (value, origin) for key, value, origin in found.shown()}


def conninfo(found: Loaded, name: str | None = None) -> dict[str, str]:
    database = found.target(name).database
    assert database is not None
    return database.conninfo()


# --- found ---------------------------------------------------------------------------------------


def place(folder: Path, name: str, target: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ONE.replace("one:", f"{target}:"))
    return path


def test_the_first_place_wins(tmp_path: Path) -> None:
    here = tmp_path / "repository" / "inner"
    here.mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": str(tmp_path / "home"), **ENVIRON}

    def wins(explicit: Path | None = None) -> str:
        return load(explicit, environ, here).target().name

    assert wins() == "env"
    place(tmp_path, "home/.config/perfctl/config.yaml", "home")
    assert wins() == "env", "XDG_CONFIG_HOME replaces ~/.config"
    place(tmp_path, "xdg/perfctl/config.yaml", "xdg")
    assert wins() == "xdg"
    place(tmp_path, "repository/perfctl.yaml", "above")
    assert wins() == "above"
    place(tmp_path, "repository/inner/perfctl.yaml", "here")
    assert wins() == "here"
    environ["PERFCTL_CONFIG"] = str(place(tmp_path, "by-variable.yaml", "variable"))
    assert wins() == "variable"
    place(here, "by-flag.yaml", "flag")
    assert wins(Path("by-flag.yaml")) == "flag"


def test_home_config_without_xdg(tmp_path: Path) -> None:
    place(tmp_path, "home/.config/perfctl/config.yaml", "home")
    (tmp_path / "work").mkdir()
    assert load(None, {"HOME": str(tmp_path / "home")}, tmp_path / "work").target().name == "home"


def test_nothing_at_all_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, tmp_path)
    assert caught.value.exit_code == 2
    assert "README" in str(caught.value.hint)


def test_env_target(tmp_path: Path) -> None:
    found = load(None, ENVIRON, tmp_path)
    assert found.path is None
    assert [*found.settings.targets] == ["env"]
    assert conninfo(found)["host"] == "db.example"
    assert shown(found)["targets.env.database.dsn"] == (
        "postgresql://app:***@db.example:5433/shop",
        "environment DATABASE_URL",
    )
    assert shown(found)["targets.env.cache.url"] == ("redis://:***@cache.example:6379/0", "environment REDIS_URL")
    assert found.settings.indexes.migrations == tmp_path / "sql/migrations"


@pytest.mark.parametrize("name", ["PGHOST", "PGSERVICE", "PGDATABASE", "PGUSER"])
def test_env_target_of_libpq_variables(tmp_path: Path, name: str) -> None:
    found = load(None, {name: "x"}, tmp_path)
    assert conninfo(found) == {"connect_timeout": "5"}
    assert ("x", f"environment {name}") in [
        (value, origin.partition(",")[0]) for value, origin in shown(found).values()
    ]


def test_env_target_with_a_cache_only(tmp_path: Path) -> None:
    target = load(None, {"REDIS_URL": "redis://h"}, tmp_path).target("env")
    assert target.database is None
    assert target.cache is not None


def test_the_environment_does_not_redirect_a_named_target(tmp_path: Path) -> None:
    environ = {**ENVIRON, "PGHOST": "elsewhere", "PGHOSTADDR": "192.0.2.1", "PGPASSWORD": "hush", "PGPORT": "6000"}
    found = loaded(tmp_path, ONE, environ)
    assert conninfo(found) == {"host": "db.example", "hostaddr": "", "dbname": "shop", "connect_timeout": "5"}
    rows = shown(found)
    assert rows["targets.one.database.port"] == ("6000", "environment PGPORT")
    assert rows["targets.one.database.password"] == ("***", "environment PGPASSWORD")
    assert "targets.one.database.host" not in rows
    assert "targets.one.database.hostaddr" not in rows


def test_a_service_may_have_the_last_word(tmp_path: Path) -> None:
    found = loaded(tmp_path, "version: 1\ntargets: {a: {database: {service: shop}}}", {"PGHOST": "h"})
    assert conninfo(found) == {"service": "shop", "connect_timeout": "5"}
    assert shown(found)["targets.a.database.host"] == (
        "h",
        "environment PGHOST, unless the service says otherwise",
    )


def test_variables_are_libpqs() -> None:
    from psycopg import pq

    known = {each.keyword.decode(): each.envvar and each.envvar.decode() for each in pq.Conninfo.get_defaults()}
    assert {key: known[key] for key in PG_VARIABLES} == PG_VARIABLES


# --- read ----------------------------------------------------------------------------------------


def test_everything_that_the_contract_shows(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """\
version: 1
default_target: production
targets:
  production:
    protected: true
    database: {dsn: "${DATABASE_URL}", schemas: [production, projects, auth]}
    pgbouncer: {dsn: "${PGBOUNCER_URL:-}"}
    cache: {url: "${REDIS_URL}", prefix: "cache:"}
    app: {pool_metrics: "https://api.internal/pool", cache_metrics: "https://api.internal/cache"}
indexes: {migrations: changes, wait_budget: 90s}
queries: {dir: /srv/queries}
criteria: {cache: {hit_ratio_min: 0.7}, pool: {size: 20}, api: {url: "http://api", p95_max: 200ms}}
""",
        ENVIRON,
    )
    target = found.target()
    assert target.name == "production"
    assert target.protected
    assert target.database is not None
    assert target.database.schemas == ("production", "projects", "auth")
    assert target.pgbouncer is None
    assert target.cache is not None
    assert target.cache.prefix == "cache:"
    settings = found.settings
    assert settings.indexes.migrations == tmp_path / "changes"
    assert settings.indexes.wait_budget_s == 90.0
    assert settings.queries.dir == Path("/srv/queries")
    assert settings.criteria.cache is not None
    assert settings.criteria.cache.hit_ratio_min == 0.7
    assert settings.criteria.pool is not None
    assert settings.criteria.pool.size == 20
    assert settings.criteria.api is not None
    assert settings.criteria.api.p95_max_s == 0.2
    assert found.warnings == ()


def test_defaults_and_their_origin(tmp_path: Path) -> None:
    found = loaded(tmp_path, ONE)
    rows = shown(found)
    assert rows["indexes.wait_budget"] == ("15m", "default")
    assert rows["indexes.migrations"] == (str(tmp_path / "sql/migrations"), "default")
    assert rows["targets.one.database.connect_timeout"] == ("5s", "default")
    assert rows["targets.one.database.dsn"] == ("postgresql://db.example/shop", "perfctl.yaml:4")
    assert rows["version"] == ("1", "perfctl.yaml:1")


def test_origin_names_file_and_variable(tmp_path: Path) -> None:
    found = loaded(tmp_path, 'version: 1\ntargets: {a: {cache: {url: "${REDIS_URL}"}}}', ENVIRON)
    assert found.origins["targets.a.cache.url"].text == "perfctl.yaml:2, environment REDIS_URL"


def test_libpq_keywords_one_by_one(tmp_path: Path) -> None:
    text = """\
version: 1
targets:
  a:
    database:
      host: h1,h2
      port: 5432,5433
      dbname: shop
      user: app
      password: ${PW}
      sslmode: verify-full
      sslrootcert: system
      sslkey: keys/client.key
      target_session_attrs: read-write
      options: -c work_mem=64MB
      connect_timeout: 1500ms
"""
    assert conninfo(loaded(tmp_path, text, {"PW": "hush"})) == {
        "host": "h1,h2",
        "port": "5432,5433",
        "dbname": "shop",
        "user": "app",
        "password": "hush",
        "sslmode": "verify-full",
        "sslrootcert": "system",
        "sslkey": str(tmp_path / "keys/client.key"),
        "target_session_attrs": "read-write",
        "options": "-c work_mem=64MB",
        "connect_timeout": "2",
    }


def test_a_keyword_wins_over_the_dsn(tmp_path: Path) -> None:
    text = f'version: 1\ntargets: {{a: {{database: {{dsn: "{DSN}?connect_timeout=9", dbname: other}}}}}}'
    found = conninfo(loaded(tmp_path, text))
    assert (found["dbname"], found["host"], found["connect_timeout"]) == ("other", "db.example", "9")


def test_connect_timeout_of_the_environment(tmp_path: Path) -> None:
    environ = {"PGCONNECT_TIMEOUT": "30"}
    assert "connect_timeout" not in conninfo(loaded(tmp_path, ONE, environ))
    assert shown(loaded(tmp_path, ONE, environ))["targets.one.database.connect_timeout"][0] == "30"
    mine = ONE.replace("shop", "shop?connect_timeout=7")
    assert conninfo(loaded(tmp_path, mine, environ))["connect_timeout"] == "7"


def test_sqlalchemys_spelling_of_a_url(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql+asyncpg://app@db.example/shop"}
    assert conninfo(load(None, environ, tmp_path))["host"] == "db.example"


def test_valkeys_spelling_of_a_url(tmp_path: Path) -> None:
    cache = load(None, {"REDIS_URL": "valkeys://h:1/0"}, tmp_path).target().cache
    assert cache is not None
    assert cache.url.get_secret_value() == "valkeys://h:1/0"


def test_password_file(tmp_path: Path) -> None:
    secret = tmp_path / "pw"
    secret.write_text("hush\nsecond line\n")
    secret.chmod(0o600)
    text = (
        "version: 1\ntargets: {a: {database: {host: h, password_file: pw}, cache: {url: redis://h, password_file: pw}}}"
    )
    found = loaded(tmp_path, text)
    assert conninfo(found)["password"] == "hush"
    cache = found.target().cache
    assert cache is not None
    assert cache.password() == "hush"
    assert "hush" not in str(found.shown())
    secret.write_text("\n")
    with pytest.raises(ConfigError, match="first line is empty"):
        conninfo(found)
    secret.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        conninfo(found)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3:00", "3:00"),
        ("yes", "yes"),
        ("2026-01-01", "2026-01-01"),
        ("'010'", "010"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1e3", "1e3"),
        ("1_000", "1_000"),
        ("True", "True"),
        ("no", "no"),
        ("off", "off"),
        ("=", "="),
    ],
)
def test_what_yaml_1_1_would_bend_stays_text(tmp_path: Path, written: str, value: str) -> None:
    cache = (
        loaded(tmp_path, f"version: 1\ntargets: {{a: {{cache: {{url: redis://h, prefix: {written}}}}}}}").target().cache
    )
    assert cache is not None
    assert cache.prefix == value


def test_a_reference_may_stand_for_any_kind(tmp_path: Path) -> None:
    text = """\
version: 1
targets: {a: {protected: "${P}", database: {host: "${H:-}", port: "${N}", dbname: d, sslmode: "${S:-require}"}}}
criteria: {cache: {hit_ratio_min: "${R}"}, pool: {size: "${N}"}}
"""
    found = loaded(tmp_path, text, {"P": "true", "N": "20", "R": "0.5"})
    assert found.target().protected
    assert conninfo(found) == {"port": "20", "dbname": "d", "sslmode": "require", "connect_timeout": "5"}
    assert found.settings.criteria.pool is not None
    assert found.settings.criteria.pool.size == 20


def test_a_value_cannot_change_the_structure(tmp_path: Path) -> None:
    text = 'version: 1\ntargets: {a: {cache: {url: redis://h, prefix: "${P}"}}}'
    cache = loaded(tmp_path, text, {"P": 'x"}, b: {${HOME} $$'}).target().cache
    assert cache is not None
    assert cache.prefix == 'x"}, b: {${HOME} $$'


def test_sections_without_an_address_are_absent(tmp_path: Path) -> None:
    text = """\
version: 1
targets:
  a:
    database: {dsn: "${A:-}", schemas: [x], connect_timeout: 1s}
    pgbouncer: {dsn: "${A:-}"}
    cache: {url: redis://h}
    app:
  b:
    database: {dsn: "${A:-}", host: h}
indexes:
criteria: {api: {url: "${A:-}", p95_max: 1s}}
"""
    found = loaded(tmp_path, text, {"A": ""})
    a = found.target("a")
    assert (a.database, a.pgbouncer, a.app, found.settings.criteria.api) == (None, None, None, None)
    assert conninfo(found, "b")["host"] == "h"
    assert found.settings.indexes.wait_budget_s == 900


def test_aliases_are_followed(tmp_path: Path) -> None:
    text = "version: 1\ntargets:\n  a: &a {cache: {url: redis://h}}\n  b: *a\n"
    assert [*loaded(tmp_path, text).settings.targets] == ["a", "b"]


def test_a_password_in_the_file_is_warned_about(tmp_path: Path) -> None:
    text = """\
version: 1
targets:
  literal: {database: {host: h, password: hush}}
  dsn: {database: {dsn: "postgresql://u:hush@h"}}
  keywords: {database: {dsn: "host=h password=hush"}}
  url: {cache: {url: "redis://:hush@h"}}
  default: {cache: {url: "${R:-redis://:hush@h}"}}
  fine: {database: {dsn: "postgresql://u:${P}@h"}, cache: {url: "redis://:${P:-}@h"}}
  none: {database: {dsn: "postgresql://u@h"}, cache: {url: "redis://h:6379/0"}}
"""
    warnings = loaded(tmp_path, text, {"P": "x"}).warnings
    assert [each.partition(" ")[0] for each in warnings] == [f"perfctl.yaml:{line}:" for line in (3, 4, 5, 6, 7)]
    assert "hush" not in str(warnings)


# --- chosen --------------------------------------------------------------------------------------

TWO = "version: 1\ntargets: {production: {cache: {url: redis://p}}, staging: {cache: {url: redis://s}}}\n"


def test_target_by_name_by_default_or_the_only_one(tmp_path: Path) -> None:
    assert loaded(tmp_path, TWO).target("staging").name == "staging"
    assert loaded(tmp_path, TWO + "default_target: staging").target().name == "staging"
    assert loaded(tmp_path, ONE).target(None).name == "one"


def test_no_target_or_the_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, TWO).target("prodution")
    assert caught.value.message == 'unknown target "prodution"; the targets are: "production", "staging"'
    assert caught.value.hint == 'did you mean "production"?'
    with pytest.raises(ConfigError, match="several targets"):
        loaded(tmp_path, TWO).target()
    with pytest.raises(ConfigError, match="names no target"):
        loaded(tmp_path, "version: 1").target()


# --- example and schema --------------------------------------------------------------------------


def expanded(node: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: expanded(each, environ) for key, each in node.items()}
    if isinstance(node, list):
        return [expanded(each, environ) for each in node]
    return expand(node, environ).text if isinstance(node, str) else node


def test_the_schema_that_ships_is_the_one_that_the_settings_make() -> None:
    path = ROOT / "perfctl" / "config" / "schema.json"
    wanted = json.dumps(made(), indent=2) + "\n"
    if path.read_text() != wanted:
        path.write_text(wanted)
        pytest.fail(f"{path.name} was behind; it is written anew: look at it and commit it")


def test_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described_and_no_other_is_allowed() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in sections)
    keys = {key: each for section in sections for key, each in section["properties"].items()}
    assert [key for key, each in keys.items() if not each.get("description")] == []
    assert {"wait_budget", "p95_max", "connect_timeout"} <= keys.keys()
    assert not any(key.endswith("_s") for key in keys)


@pytest.mark.parametrize("environ", [ENVIRON, {**ENVIRON, "PGBOUNCER_URL": "postgresql://h:6432/pgbouncer"}])
def test_example_is_valid(environ: dict[str, str]) -> None:
    text = EXAMPLE.read_text()
    assert text.startswith("# yaml-language-server: $schema=")
    raw = yaml.safe_load(text)
    Draft202012Validator(json_schema()).validate(raw)
    Draft202012Validator(json_schema()).validate(expanded(raw, environ))
    found = load(EXAMPLE, environ, ROOT)
    assert found.target().name == "staging"
    assert found.warnings == ()
    assert conninfo(found, "production")["sslmode"] == "verify-full"


def test_schema_refuses_what_the_loader_refuses(tmp_path: Path) -> None:
    text = ONE + "indexes: {wait_budget: 15, lock_timeot: 3s}\ncriteria: {pool: {size: -1}}\n"
    errors = [*Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(text))]
    assert len(errors) == 3
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert caught.value.message.count("error:") == 3


# --- small parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("3s", 3.0), ("15m", 900.0), ("2h", 7200.0), ("1.5s", 1.5), ("0s", 0.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["15", "3 s", "-3s", "3sec", "3d", "", "s", "1h30m", "9999999h", "٣s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("64MB", 64 * 2**20), ("512kB", 2**19), ("1.5GB", 3 * 2**29)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["64", "64mb", "MB", "64 parsecs"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a${V}b", "axb"),
        ("${V:-d}", "x"),
        ("${U:-d}", "d"),
        ("${E:-d}", "d"),
        ("${U:-}", ""),
        ("${E}", ""),
        ("${U:-${V}}", "x"),
        ("${U:-a${U:-b}c}", "abc"),
        ("${V:?needed}", "x"),
        ("$$", "$"),
        ("$${V}", "${V}"),
        ("pa$word", "pa$word"),
        ("$V", "$V"),
        ("}{", "}{"),
        ("${V:-${UNSET}}", "x"),
    ],
)
def test_expand(text: str, result: str) -> None:
    found = expand(text, {"V": "x", "E": ""})
    assert (found.text, found.problems) == (result, [])


@pytest.mark.parametrize(
    ("text", "count"),
    [("${U}", 1), ("${U}${W}", 2), ("${U:?say}", 1), ("${", 1), ("${1}", 1), ("${U:-x", 1), ("${U-x}", 1)],
)
def test_expand_fails(text: str, count: int) -> None:
    assert len(expand(text, {}).problems) == count


def test_expand_passes_the_message_on() -> None:
    assert expand("${U:?ask the team}", {}).problems == ['environment variable "U" is not set: ask the team']


@pytest.mark.parametrize(
    ("dsn", "masked"),
    [
        (DSN, "postgresql://app:***@db.example:5433/shop"),
        ("postgres://h1:1,h2:2/d?sslmode=require", "postgresql://h1:1,h2:2/d?sslmode=require"),
        ("postgresql://u:p%40x@[::1]:5432/d", "postgresql://u:***@[::1]:5432/d"),
        ("postgresql:///d?host=/run/pg&password=hush", "postgresql://:***@%2Frun%2Fpg/d"),
        ("postgresql://u?x:hush@h/d", "postgresql://u%3Fx:***@h/d"),
        ("host=h password='a b' dbname=d", "dbname=d host=h password=***"),
        ("postgres//u:hush@h", "***"),
        ("postgresql://u:%zz@h", "***"),
        ("postgresql://u:hu/sh@h/d", "***"),
        ("postgresql://u:hu@sh@h/d", "***"),
        ("host=h password='a", "***"),
        ("hush", "***"),
    ],
)
def test_mask_dsn(dsn: str, masked: str) -> None:
    assert mask_dsn(dsn) == masked


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://u:hush@h:6379/0?protocol=3", "redis://u:***@h:6379/0?protocol=***"),
        ("redis://token@h", "redis://***@h"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=***"),
        ("https://h/metrics?hush", "https://h/metrics?***"),
        ("redis://:hu/sh@h", "***"),
        ("redis://:hu#sh@h", "***"),
        ("redis://:12?sh@h", "***"),
        ("hush", "***"),
    ],
)
def test_mask_url(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_masked_dsn_reaches_the_same_place() -> None:
    from psycopg.conninfo import conninfo_to_dict

    for dsn in (DSN, "postgresql://u:p@h1:1,h2:2/d?options=-c%20a%3Db&sslmode=require", "postgresql:///d?host=/run/pg"):
        masked = conninfo_to_dict(mask_dsn(dsn))
        assert masked.pop("password", None) in ("***", None)
        assert masked.items() <= conninfo_to_dict(dsn).items()


def test_nearest() -> None:
    assert nearest("Protectd", ["protected", "database"]) == "protected"
    assert nearest("zzz", ["protected"]) is None


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    place(tmp_path, "repository/perfctl.yaml", "a")
    inner = tmp_path / "repository" / "deep" / "er"
    inner.mkdir(parents=True)
    assert load(None, {}, inner).settings.indexes.migrations == tmp_path / "repository" / "sql/migrations"
