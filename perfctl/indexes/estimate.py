"""What a build is expected to take. A rough figure: it says "seconds" or "an hour", not how many seconds.

Sizes follow PostgreSQL's page layout (https://www.postgresql.org/docs/current/storage-page-layout.html): a B-tree
entry is an 8-byte header, the key, and a 4-byte line pointer, on pages filled to 90 %.
"""

from __future__ import annotations

from statistics import median

from perfctl.indexes.model import Entry, Estimate, Partition, Snapshot, Table, Wanted

# Measured on a modest two-core server: bytes of table read, and entries sorted, a second.
_SCAN_BYTES_S = 400e6
_ENTRIES_S = {"btree": 1.5e6, "hash": 1e6, "gin": 400e3, "gist": 100e3, "spgist": 200e3, "brin": 20e6}
_ENTRY_BYTES = {"hash": 22, "gist": 40, "spgist": 40}
_KEY_BYTES = 12
# A GIN index of JSONB documents is about a third of its table, by the documents it was measured on.
_GIN_SHARE = 0.35


def estimate(wanted: Wanted, seen: Snapshot, on: Partition | None = None) -> Estimate:
    """Bytes and seconds, ``on`` one partition or the table; corrected by the pace of earlier builds in the journal."""
    assert wanted.table is not None
    table = on or wanted.table
    canonical = seen.canonical.get(wanted.place)
    rows = canonical.rows if canonical and canonical.rows is not None else table.rows
    rows = min(rows, table.rows)
    if on is not None and wanted.statement.partial:
        rows = 0.1 * table.rows
    method = wanted.statement.method
    size = _size(method, rows, table, wanted, seen.server.block_size)
    # A concurrent build reads the table twice.
    base_s = 2 * table.size_bytes / _SCAN_BYTES_S + rows / _ENTRIES_S.get(method, 200e3)
    return Estimate(size_bytes=size, seconds=base_s * pace(seen.journal), base_s=base_s)


def pace(journal: tuple[Entry, ...]) -> float:
    """How many times longer this server's earlier builds took than was guessed; 1 without any worth measuring."""
    ratios = [
        entry.build_s / entry.estimated_s
        for entry in journal
        if entry.state == "done" and entry.build_s and entry.estimated_s and entry.estimated_s > 0.1
    ]
    return min(20.0, max(0.05, median(ratios))) if ratios else 1.0


def _size(method: str, rows: float, table: Table | Partition, wanted: Wanted, block_size: int) -> int:
    share = rows / table.rows if table.rows else 0.0
    match method:
        case "gin":
            size = table.size_bytes * _GIN_SHARE * share
        case "brin":
            size = table.pages / 128 * 32
        case "btree":
            size = rows * (8 + 4 + _KEY_BYTES * len(wanted.statement.columns)) / 0.9
        case _:
            size = rows * _ENTRY_BYTES.get(method, 32)
    return max(int(size), 2 * block_size)
