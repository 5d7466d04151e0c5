"""One report in every form: complete, in order, and with nothing in it that acts on a terminal."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import jsonschema
import pytest
from inline_snapshot import snapshot
from rich.console import Console

from perfctl import __version__
from perfctl.errors import Incomplete, UsageError
from perfctl.render import FORMATS, to_text
from perfctl.render import json as as_json
from perfctl.render.plain import escape
from perfctl.render.text import render
from perfctl.report import Item, Report, Status

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
ITEMS = (
    Item("index", "production.idx_a", Status.CHANGED, "built in 1.2 s, 21 MB", data={"size_bytes": 22020096}),
    Item("index", "production.idx_b", Status.SKIPPED, "there, valid, same definition"),
    Item(
        "index", "production.idx_long_name", Status.FAILED, "could not create unique index\nkey (a)=(1) is duplicated"
    ),
    Item(
        "index",
        "auth.idx_c",
        Status.PLANNED,
        "build: not there",
        remedy="perfctl indexes apply",
        data={"statement": "CREATE INDEX CONCURRENTLY idx_c\n  ON auth.t (a)", "waits_for": ["pid 7 (app)"]},
    ),
)
REPORT = Report("indexes apply", "production", ITEMS, AT, 12.34, notes=('PostgreSQL 18.1, database "app"',))
HOSTILE = ("col[/]", "[red]x", "\x1b[31mred\x1b[0m", "a\x07\r\x9b\x00b", "\u202eright to left", ":smile:", "100%\u2028")


def hostile(text: str) -> Report:
    """A report with that text wherever a server's text may stand."""
    item = Item("index", text, Status.FINDING, text, text, {"statement": text, "waits_for": [text], "key": text})
    return Report("indexes plan", text, (item,), AT, 0.1, notes=(text,), error=Incomplete(text, hint=text))


def on_terminal(report: Report, *, width: int = 100, color: bool = False) -> str:
    stream = io.StringIO()
    render(report, Console(file=stream, width=width, force_terminal=color, markup=False, emoji=False, highlight=False))
    return stream.getvalue()


def test_plain_text_is_aligned_and_never_wrapped() -> None:
    assert to_text(REPORT, "text") == snapshot("""\
PostgreSQL 18.1, database "app"
changed  production.idx_a          built in 1.2 s, 21 MB
skipped  production.idx_b          there, valid, same definition
failed   production.idx_long_name  could not create unique index
         key (a)=(1) is duplicated
planned  auth.idx_c                build: not there
         CREATE INDEX CONCURRENTLY idx_c
           ON auth.t (a)
         waits for pid 7 (app)
         = perfctl indexes apply
indexes apply on production: 1 changed, 1 skipped, 1 failed, 1 planned in 12.3 s
""")


def test_a_terminals_table_holds_the_same_facts() -> None:
    shown = on_terminal(REPORT)
    assert all(item.name in shown and item.status in shown for item in ITEMS)
    assert "key (a)=(1) is duplicated" in shown
    assert "= perfctl indexes apply" in shown
    assert "waits for pid 7 (app)" in shown


def test_a_dry_run_says_so() -> None:
    dry = Report("indexes apply", None, (), AT, 0.04, dry_run=True)
    assert to_text(dry, "text") == "indexes apply (dry run): nothing in 0.0 s\n"


def test_json_is_one_object_that_fits_its_schema() -> None:
    found = json.loads(to_text(REPORT, "json"))
    jsonschema.validate(found, as_json.schema())
    assert found.pop("perfctl") == __version__
    assert found == snapshot(
        {
            "schema_version": 1,
            "command": "indexes apply",
            "target": "production",
            "dry_run": False,
            "started_at": "2026-11-23T10:00:00Z",
            "duration_s": 12.34,
            "exit_code": 5,
            "exit_name": "incomplete",
            "counts": {"changed": 1, "skipped": 1, "failed": 1, "planned": 1},
            "items": [
                {
                    "kind": "index",
                    "name": "production.idx_a",
                    "status": "changed",
                    "detail": "built in 1.2 s, 21 MB",
                    "remedy": None,
                    "data": {"size_bytes": 22020096},
                },
                {
                    "kind": "index",
                    "name": "production.idx_b",
                    "status": "skipped",
                    "detail": "there, valid, same definition",
                    "remedy": None,
                    "data": {},
                },
                {
                    "kind": "index",
                    "name": "production.idx_long_name",
                    "status": "failed",
                    "detail": """\
could not create unique index
key (a)=(1) is duplicated\
""",
                    "remedy": None,
                    "data": {},
                },
                {
                    "kind": "index",
                    "name": "auth.idx_c",
                    "status": "planned",
                    "detail": "build: not there",
                    "remedy": "perfctl indexes apply",
                    "data": {
                        "statement": """\
CREATE INDEX CONCURRENTLY idx_c
  ON auth.t (a)\
""",
                        "waits_for": ["pid 7 (app)"],
                    },
                },
            ],
            "notes": ['PostgreSQL 18.1, database "app"'],
            "error": None,
        }
    )


def test_the_schema_is_itself_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(as_json.schema())


@pytest.mark.parametrize("error", [Incomplete("x", hint="y"), KeyboardInterrupt(), ValueError("secret")])
def test_json_of_an_error_fits_its_schema(error: BaseException) -> None:
    found = as_json.as_dict(Report("indexes apply", None, ITEMS, AT, 1.0, error=error))
    jsonschema.validate(json.loads(json.dumps(found)), as_json.schema())
    assert found["error"]["class"] == type(error).__name__
    assert "secret" not in json.dumps(found)


def test_json_gives_the_time_in_utc() -> None:
    assert as_json.as_dict(REPORT)["started_at"] == "2026-11-23T10:00:00Z"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", FORMATS)
def test_no_form_lets_a_control_character_through(form: str, text: str) -> None:
    shown = to_text(hostile(text), form)
    assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028"} - {"\n"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_acts_on_a_terminal(text: str) -> None:
    shown = on_terminal(hostile(text))
    assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028"} - {"\n"}


@pytest.mark.parametrize("text", ["col[/]", "[red]x", ":smile:", "[link=http://x]y[/link]"])
def test_no_name_is_read_as_markup(text: str) -> None:
    assert on_terminal(hostile(text), color=True).count(text) >= 4


@pytest.mark.parametrize("text", HOSTILE)
def test_json_gives_back_every_name_as_it_was(text: str) -> None:
    assert json.loads(to_text(hostile(text), "json"))["items"][0]["name"] == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 名前", "plain é 名前"),
        ("a\tb", "a\tb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b", "\\x9b"),
        ("\u202e", "\\u202e"),
        ("a\nb", "a\\x0ab"),
    ],
)
def test_what_acts_is_made_visible(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="xml"):
        to_text(REPORT, "xml")
