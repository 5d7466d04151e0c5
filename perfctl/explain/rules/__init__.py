"""The rules, each by the key that it has in YAML: a file a rule, named as its key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from perfctl.explain.rule import BadRule, Rule
from perfctl.explain.rules.buffers import Buffers
from perfctl.explain.rules.cost import Cost
from perfctl.explain.rules.forbid import Forbid
from perfctl.explain.rules.generic_equals_custom import GenericEqualsCustom
from perfctl.explain.rules.heap_fetches import HeapFetches
from perfctl.explain.rules.index_only import IndexOnly
from perfctl.explain.rules.join_method import JoinMethod
from perfctl.explain.rules.no_seq_scan import NoSeqScan
from perfctl.explain.rules.partitions_scanned import PartitionsScanned
from perfctl.explain.rules.planning_time import PlanningTime
from perfctl.explain.rules.q_error import QError
from perfctl.explain.rules.require import Require
from perfctl.explain.rules.rows import Rows
from perfctl.explain.rules.sort import Sort
from perfctl.explain.rules.temp import Temp
from perfctl.explain.rules.time import Time
from perfctl.explain.rules.uses_index import UsesIndex

RULES: Mapping[str, type[Rule]] = {
    "uses_index": UsesIndex,
    "no_seq_scan": NoSeqScan,
    "forbid": Forbid,
    "require": Require,
    "join_method": JoinMethod,
    "rows": Rows,
    "q_error": QError,
    "cost": Cost,
    "buffers": Buffers,
    "temp": Temp,
    "time": Time,
    "heap_fetches": HeapFetches,
    "partitions_scanned": PartitionsScanned,
    "sort": Sort,
    "index_only": IndexOnly,
    "generic_equals_custom": GenericEqualsCustom,
    "planning_time": PlanningTime,
}


def unknown(key: str) -> str:
    """That there is no such rule, in words, and which one is near."""
    near = difflib.get_close_matches(key, RULES, 1)
    return f'unknown rule "{key}"; ' + (f'did you mean "{near[0]}"?' if near else f"known: {', '.join(RULES)}")


def read(key: str, value: Any) -> Rule:
    """The rule that a key and its value stand for. Raises BadRule."""
    if key not in RULES:
        raise BadRule(unknown(key))
    try:
        return RULES[key].read(value)
    except BadRule as bad:
        raise BadRule(f"{key}: {bad}") from None
