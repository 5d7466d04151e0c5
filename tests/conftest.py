"""Fixtures for all tests."""

from __future__ import annotations

pytest_plugins = ["tests.fix_servers", "tests.fix_perfctl", "tests.fix_explain", "tests.fix_redis"]
