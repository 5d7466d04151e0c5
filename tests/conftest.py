"""Fixtures for all tests."""

from __future__ import annotations

pytest_plugins = [
    "tests.fix_servers",
    "tests.fix_perfctl",
    "tests.fix_explain",
    "tests.fix_http",
    "tests.fix_redis",
    "tests.fix_redis_cluster",
    "tests.fix_redis_sentinel",
    "tests.fix_redis_proxy",
]
