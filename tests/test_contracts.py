"""Who may import whom, read from the sources; and what every test must do."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "perfctl"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FEATURES = ("indexes", "explain", "pool", "cache", "twin")
DRIVERS = {"psycopg", "psycopg_pool", "redis", "hiredis", "asyncpg", "sqlalchemy", "valkey"}
#: what makes a decision depend on more than its arguments
IMPURE = DRIVERS | {"os", "time", "random", "subprocess", "socket", "threading", "secrets", "tempfile", "shutil", "sys"}
IMPURE |= {"rich", "typer"}
ASKING = {"now", "utcnow", "today", "open", "read_text", "read_bytes", "exists", "is_file", "print", "input"}
PURE_NAMES = {
    "breakdown", "bringback", "canonical_text", "classify", "counters", "criterion", "decide", "draft", "estimate",
    "families", "gates", "gather", "glob", "items", "judge", "known_bad", "lint", "model", "outcome", "pace",
    "partitioned", "records", "replacement", "resources", "rights", "running", "schedule", "share", "slots", "stats",
    "tree", "undo", "windows",
}  # fmt: skip


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _typing_only(node: ast.AST) -> set[ast.AST]:
    """What stands under ``if TYPE_CHECKING``: names for the reader, never loaded."""
    return {
        inner
        for found in ast.walk(node)
        if isinstance(found, ast.If) and isinstance(found.test, ast.Name) and found.test.id == "TYPE_CHECKING"
        for inner in ast.walk(found)
    }


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that it imports, at its head or inside a function; those for type checkers alone left out."""
    found: set[str] = set()
    skipped = _typing_only(tree(module))
    for node in ast.walk(tree(module)):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports by dots"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
    return frozenset(found)


def own(module: str) -> set[str]:
    """What it imports of perfctl."""
    return {name for name in imports(module) if name.split(".")[0] == "perfctl"}


def foreign(module: str) -> set[str]:
    """The top names of what it imports from elsewhere."""
    return {name.split(".")[0] for name in imports(module)} - {"perfctl"}


def under(*names: str) -> list[str]:
    """The modules of those rooms."""
    return [m for m in MODULES if any(m == f"perfctl.{n}" or m.startswith(f"perfctl.{n}.") for n in names)]


def within(module: str, *rooms: str) -> bool:
    return any(module == f"perfctl.{room}" or module.startswith(f"perfctl.{room}.") for room in rooms)


def names(module: str) -> Iterator[str]:
    """Every dotted name that it uses, as written."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node)


PURE = [m for m in MODULES if m.split(".")[-1] in PURE_NAMES and within(m, *FEATURES)]
PURE += [m for m in MODULES if within(m, "explain.rules", "explain.plan", "explain.rule")]
PURE += [f"perfctl.hotqueries.{name}" for name in ("head", "model", "parse", "placeholders", "statement")]


def test_the_rules_meet_the_sources() -> None:
    assert len(MODULES) > 40
    assert len(PURE) >= len(PURE_NAMES)
    assert len(set(PURE)) == len(PURE)
    assert set(PURE) <= MODULES.keys()


@pytest.mark.parametrize("module", under("errors"))
def test_errors_imports_nothing_of_perfctl(module: str) -> None:
    assert own(module) == set()


@pytest.mark.parametrize("module", under("report", "config", "migrations", "hotqueries"))
def test_report_config_and_the_readers_import_only_errors(module: str) -> None:
    room = module.split(".")[1]
    assert {name for name in own(module) if not within(name, room, "errors")} == set()


@pytest.mark.parametrize(
    ("room", "libraries"),
    [
        ("report", set()),
        ("config", {"yaml", "pydantic", "pydantic_core", "psycopg"}),
        ("migrations", {"postgast"}),
        # google: the errors of what postgast gives its trees in
        ("hotqueries", {"postgast", "google", "yaml"}),
    ],
)
def test_they_bring_their_parser_and_no_other_library(room: str, libraries: set[str]) -> None:
    for module in under(room):
        assert foreign(module) - sys.stdlib_module_names - libraries == set(), module


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_meets_no_server_clock_or_environment(module: str) -> None:
    assert foreign(module) & IMPURE == set()
    impure = ("servers", "queries", "config", "cli", "render", "embedded", "hotqueries.files")
    asking = ("explain.observe", "explain.reach", "explain.look", "explain.check")
    assert not any(within(name, *impure, *asking) for name in own(module))


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_asks_for_no_time_and_no_file(module: str) -> None:
    calls = {node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}
    called = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    called |= {call.id for call in calls if isinstance(call, ast.Name)}
    assert (
        called & {"now", "utcnow", "today", "open", "read_text", "read_bytes", "exists", "is_file", "print", "input"}
        == set()
    )


def test_only_the_server_modules_name_a_drivers_errors() -> None:
    postgres = {m for m in MODULES if any(name.endswith("psycopg.Error") for name in names(m))}
    redis = {m for m in MODULES if any(name.endswith("redis.RedisError") for name in names(m))}
    assert postgres <= {"perfctl.servers.postgres"} | set(under("runtime"))
    assert redis <= {"perfctl.servers.redis"} | set(under("runtime"))


def test_only_one_module_fetches_web_pages() -> None:
    fetching = {"http.client", "urllib.request", "httpx", "requests", "aiohttp"}
    found = {m for m in MODULES if imports(m) & fetching or any(name.startswith("http.client.") for name in names(m))}
    assert found - set(under("runtime", "demo", "embedded")) == {"perfctl.servers.http"}


def test_no_driver_error_is_imported_by_name() -> None:
    found = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DRIVERS
        for alias in node.names
        if alias.name.endswith("Error")
    }
    # It reads connection strings with libpq's own parser, which says no by an error.
    parser = {"perfctl.config.address"}
    assert found <= {"perfctl.servers.postgres", "perfctl.servers.redis"} | parser | set(under("runtime"))


def test_a_driver_is_imported_only_where_servers_are_met() -> None:
    allowed = {"perfctl.servers.postgres", "perfctl.servers.redis"} | set(under("runtime", "embedded", "demo"))
    # It reads libpq's connection strings, by libpq's own parser.
    allowed |= set(under("config"))
    assert {module for module in MODULES if foreign(module) & DRIVERS} <= allowed


@pytest.mark.parametrize("module", under("embedded", "demo"))
def test_the_servers_of_demo_and_tests_load_a_driver_only_when_they_use_it(module: str) -> None:
    heads = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in tree(module).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert heads & DRIVERS == set()


@pytest.mark.parametrize("module", under(*FEATURES))
def test_no_feature_imports_another(module: str) -> None:
    others = [feature for feature in FEATURES if feature != module.split(".")[1]]
    assert {name for name in own(module) if within(name, *others)} == set()


@pytest.mark.parametrize("module", under(*FEATURES, "servers", "queries", "embedded"))
def test_a_feature_knows_no_renderer_and_no_configuration(module: str) -> None:
    assert {name for name in own(module) if within(name, "render", "config", "demo")} == set()


@pytest.mark.parametrize("module", under("render"))
def test_a_renderer_imports_report_and_errors_only(module: str) -> None:
    strangers = {name for name in own(module) if not within(name, "render", "report", "errors")}
    assert strangers <= {"perfctl"}


def test_rich_is_imported_only_where_a_terminal_is_written() -> None:
    allowed = {"perfctl.render.text", "perfctl.cli.session", "perfctl.cli.bar", "perfctl.cli.walk_bar"} | set(
        under("demo")
    )
    assert {module for module in MODULES if "rich" in foreign(module)} <= allowed


def test_typer_is_imported_by_the_command_line_alone() -> None:
    assert {module for module in MODULES if "typer" in foreign(module)} <= set(under("cli"))


@pytest.mark.parametrize("module", [m for m in MODULES if not within(m, "cli", "__main__", "demo")])
def test_nothing_imports_the_command_line(module: str) -> None:
    assert {name for name in own(module) if within(name, "cli")} == set()


def test_the_runtime_imports_nothing_else_of_perfctl() -> None:
    assert {name for m in under("runtime") for name in own(m) if not within(name, "runtime")} == set()


def test_exceptions_are_never_swallowed_whole_outside_main() -> None:
    bare = {
        f"{module}:{node.lineno}"
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    }
    assert bare == set()


def _tests() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(ROOT)}::{node.name}", node


#: helpers that assert for a test: their names say so
ASSERTING = ("raises", "fail", "until", "validate", "check_schema", "assert_", "expect")


def test_every_test_asserts_something() -> None:
    silent = [
        name
        for name, function in _tests()
        if not any(
            isinstance(node, ast.Assert)
            or (isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].startswith(ASSERTING))
            for node in ast.walk(function)
        )
    ]
    assert silent == []
