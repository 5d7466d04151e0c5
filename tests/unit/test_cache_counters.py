"""An application's counters as applications write them, and the families that they belong to."""

from __future__ import annotations

import json

import pytest

from perfctl.cache.counters import Counters, Reads, joined, read
from perfctl.errors import ConfigError

PROMETHEUS = """\
# HELP shop_cache_hits_total Reads that hit.
# TYPE shop_cache_hits_total counter
shop_cache_hits_total{family="user",pod="a"} 30
shop_cache_hits_total{family="user",pod="b"} 10
shop_cache_hits_total{family="report",pod="a"} 5
shop_cache_misses_total{family="user",pod="a"} 10
shop_cache_misses_total{family="report",pod="a"} 15
shop_cache_stale_total{family="user",pod="a"} 2
process_cpu_seconds_total 12.5
"""


@pytest.mark.parametrize(
    ("found", "hits", "misses"),
    [
        ({"hits": 3, "misses": 1}, 3, 1),
        ({"cache_hits": 3, "cache_misses": 1.0}, 3, 1),
        ({"hit_count": 3, "miss_count": 1, "hit_ratio": 0.1}, 3, 1),
        ({"cache": {"total_hits": 3, "total_misses": 1}}, 3, 1),
        ({"status": "ok", "data": {"stats": {"hits": 3, "misses": 1}}}, 3, 1),
        ({"hits": 0, "misses": 0}, 0, 0),
    ],
)
def test_json_by_many_names(found: object, hits: int, misses: int) -> None:
    whole = read(json.dumps(found)).whole
    assert (whole.hits, whole.misses) == (hits, misses)


@pytest.mark.parametrize(
    ("found", "ratio"),
    [({"hit_ratio": 0.85}, 0.85), ({"hit_rate": 85}, 0.85), ({"stats": {"hit_rate_percent": 0.5}}, 0.005)],
)
def test_a_ratio_alone(found: object, ratio: float) -> None:
    whole = read(json.dumps(found)).whole
    assert whole.hits is None
    assert whole.ratio == pytest.approx(ratio)


def test_nothing_was_read_yet() -> None:
    assert read('{"hits": 0, "misses": 0}').whole.ratio is None


def test_families_and_what_else_is_counted() -> None:
    text = '{"hits": 9, "misses": 3, "stale": 2, "families": {"user": {"hits": 8, "misses": 0}, "odd": {"x": 1}}}'
    assert read(text) == Counters(Reads(9, 3, extras={"stale": 2}), {"user": Reads(8, 0)})


def test_the_whole_is_the_sum_of_the_families() -> None:
    text = '{"prefixes": {"a": {"hits": 8, "misses": 2, "errors": 1}, "b": {"hits": 0, "misses": 5}}}'
    assert read(text).whole == Reads(8, 7, extras={"errors": 1})


def test_prometheus_by_family_over_all_pods() -> None:
    found = read(PROMETHEUS)
    assert found.whole == Reads(45, 25, extras={"stale": 2})
    assert found.families == {"user": Reads(40, 10, extras={"stale": 2}), "report": Reads(5, 15)}


@pytest.mark.parametrize("label", ["result", "status", "outcome"])
def test_prometheus_with_the_result_in_a_label(label: str) -> None:
    text = f'cache_requests_total{{{label}="hit"}} 6\ncache_requests_total{{{label}="miss"}} 2\n'
    assert read(text).whole == Reads(6, 2)


def test_a_counter_that_has_not_counted_yet_is_not_there() -> None:
    assert read('app_cache_operations_total{result="miss",cache_name="u"} 2\n').whole == Reads(0, 2)


def test_openmetrics_with_an_exemplar() -> None:
    text = '# TYPE cache_hits counter\ncache_hits_total 4 # {trace_id="x"} 1.0\ncache_misses_total 1\n# EOF\n'
    assert read(text.replace("cache_misses", "# TYPE cache_misses counter\ncache_misses")).whole == Reads(4, 1)


def test_the_same_reads_in_both_forms_count_once() -> None:
    text = 'cache_hits_total 4\ncache_misses_total 1\ncache_requests_total{result="hit"} 4\n'
    assert read(text).whole == Reads(4, 1)


def test_several_caches_are_not_added_up() -> None:
    text = "a_cache_hits_total 4\na_cache_misses_total 1\nb_cache_hits_total 1\n"
    with pytest.raises(ConfigError, match="several caches: a_, b_"):
        read(text)
    assert read(text + "perfctl_cache_hits_total 1\nperfctl_cache_misses_total 3\n").whole == Reads(1, 3)


@pytest.mark.parametrize(
    ("text", "hits", "misses"),
    [
        ("cache_hits_total 10\ncache_requests_total 100\n", 10, 90),
        ("cache_misses_total 10\ncache_lookups_total 100\n", 90, 10),
        ('cache_hits_total 10\ncache_requests_total{result="hit"} 1\ncache_requests_total{result="miss"} 9\n', 1, 9),
        ('cache_requests_total{result="hit"} 1\ncache_reads_total{result="hit"} 1\ncache_reads_total{result="miss"} 9',
         1, 9),
        ('cache_hits_total{family="a"} 5\n# TYPE cache_misses_total counter\n', 5, 0),
        ("cache_hits_total 1\ncache_misses_total 9\nnginx_cache_requests_total 5\nhttp_cache_errors_total 2\n", 1, 9),
    ],
)  # fmt: skip
def test_prometheus_tells_misses_in_some_manner(text: str, hits: int, misses: int) -> None:
    assert read(text).whole == Reads(hits, misses)


def test_misses_by_family_follow_from_reads_by_family() -> None:
    text = 'cache_hits_total{family="a"} 5\ncache_requests_total{family="a"} 9\ncache_requests_total{family="b"} 2\n'
    assert read(text) == Counters(Reads(5, 6), {"a": Reads(5, 4), "b": Reads(0, 2)})


def test_a_ratio_of_no_requests_is_no_ratio() -> None:
    assert read('{"hit_ratio": 0.0, "total_requests": 0}').whole.ratio is None
    assert read('{"hit_ratio": 0.0, "total_requests": 3}').whole.ratio == 0


def test_half_of_a_surrogate_pair_in_a_name() -> None:
    found = read('{"families": {"a\\ud800": {"hits": 1, "misses": 1}}}')
    assert list(found.families) == ["a\\ud800"]
    assert joined(found.families, b"cache:x:*", prefix=b"cache:", delimiter=b":") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1, 2]",
        '{"hits": 3}',
        '{"hits": true, "misses": false}',
        '{"hits": -3, "misses": 1}',
        '{"hits": "3", "misses": NaN}',
        '{"hit_ratio": 850}',
        '{"hits": 1' + "0" * 400 + ', "misses": 1}',
        '{"families": {"a": {"hit_ratio": 0.5}}}',
        "{nonsense",
        "[" * 100_000,
        "<html><body>Log in</body></html>",
        "up 1\n",
        "cache_hits_total NaN\n",
        "cache_hits_total 3\n",
        'cache_requests_total{status="HIT"} 3\ncache_requests_total{status="EXPIRED"} 30\n',
        "cache_misses_total 3\n",
        "cache_requests_total 3\n",
        "cache_hits_total 3\ncache_operations_total 9\n",
        "cache_hits_total 30\ncache_requests_total 9\n",
        "cache_hits_total 3\ncache_misses_total NaN\n",
        "cache_hits_total 3\ncache_misses_total +Inf\n",
        "cache_hits_total 3\ncache_misses_total -1\n",
        "cache_hits_total 3\ncache_misses_total 1e19\n",
        'cache_requests_total{result="hit" 4\n',
    ],
)
def test_what_is_not_understood_is_never_a_figure(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert "hits and misses" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (b"cache:user_analyses:*", "user_analyses"),
        (b"cache:user_analyses:*:page:*", "user_analyses"),
        (b"user_analyses:*", "user_analyses"),
        (b"cache:user:*:list", "user"),
        (b"cache:user:page:*", "user:page"),
        (b"cache:report:*", "report:*"),
        (b"cache:user_analysesX:*", None),
        (b"cache:*", None),
        (b"", None),
    ],
)
def test_which_family_keys_belong_to(name: bytes, family: str | None) -> None:
    known = ("user", "user:page", "user_analyses", "report:*", "cache:orders", "")
    assert joined(known, name, prefix=b"cache:", delimiter=b":") == family


def test_an_application_that_names_the_prefix_too() -> None:
    assert joined(["cache:orders"], b"cache:orders:*", prefix=b"cache:", delimiter=b":") == "cache:orders"
