"""How long a query takes, and by which index the server finds its rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from perfctl.hotqueries.model import HotQuery
from perfctl.servers.postgres import Postgres

#: A query is run until either is reached, so that slow ones do not make the show long.
RUNS = 15
BOUND_S = 0.3


@dataclass(frozen=True, slots=True)
class Timing:
    """One query's time as its caller sees it, and how the server reads the tables."""

    median_ms: float
    runs: int
    #: the plan's scans, as ``Seq Scan on findings`` or ``Index Scan using idx_findings_fingerprint``
    scans: tuple[str, ...]
    #: the indexes in the plan
    indexes: tuple[str, ...]


def measure(pg: Postgres, query: HotQuery) -> Timing:
    """The median of several runs after one that fills the caches; the plan is that of the same parameters.

    The values are those of the query's first set.
    """
    values = query.bound(query.sets[0])
    pg.numbered(query.sql, values)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < RUNS and (not taken or time.perf_counter() - began < BOUND_S):
        start = time.perf_counter()
        pg.numbered(query.sql, values)
        taken.append((time.perf_counter() - start) * 1000)
    ((plan,),) = pg.numbered(f"EXPLAIN (FORMAT JSON) {query.sql}", values)
    nodes = list(scans(plan[0]["Plan"]))
    return Timing(
        median(taken), len(taken), tuple(_said(node) for node in nodes),
        tuple(dict.fromkeys(node["Index Name"] for node in nodes if "Index Name" in node)),
    )  # fmt: skip


def scans(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The nodes of a plan that read a table or an index, the outermost first."""
    if "Index Name" in node or node["Node Type"] == "Seq Scan":
        yield node
    for child in node.get("Plans", ()):
        yield from scans(child)


def _said(node: Mapping[str, Any]) -> str:
    kind = ("Parallel " if node.get("Parallel Aware") else "") + node["Node Type"]
    return f"{kind} using {node['Index Name']}" if "Index Name" in node else f"{kind} on {node['Relation Name']}"
