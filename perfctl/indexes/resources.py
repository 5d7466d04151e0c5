"""How much memory and how many workers a build gets. Pure.

Each participant of a parallel build, the leader too, needs 32 MB of ``maintenance_work_mem``, and the memory is for the
command, not for each of them (https://www.postgresql.org/docs/current/sql-createindex.html).
"""

from __future__ import annotations

from perfctl.indexes.model import Estimate, Server

_MB = 1024
_PARTICIPANT_KB = 32 * _MB
_CEILING_KB = 1024 * _MB
#: a sort holds the keys and what tells them apart, a little more than the index that comes of it
_SORT_FACTOR = 1.5

#: access methods that build with parallel workers, and since which major version
PARALLEL_SINCE = {"btree": 11, "brin": 17, "gin": 18}


def default_jobs(cores: int | None) -> int:
    """Builds at once when nobody says how many: half of the server's cores, for it has other work; 1 to 8."""
    return max(1, min(8, (cores or 1) // 2))


def settings(method: str, estimate: Estimate, server: Server, *, jobs: int, cores: int | None) -> dict[str, str]:
    """``maintenance_work_mem`` and ``max_parallel_maintenance_workers`` where they should not be the server's own.

    Memory: enough to sort the index in one go, never less than the server's setting, at most a gigabyte and half of
    shared_buffers for all jobs together. Workers: those that the server allows, as far as cores and memory go round.
    """
    chosen: dict[str, str] = {}
    workers = _workers(method, server, jobs, cores)
    floor_kb = server.maintenance_work_mem_kb
    most_kb = max(floor_kb, min(_CEILING_KB, server.shared_buffers_kb // 2 // jobs))
    want_kb = max(int(estimate.size_bytes * _SORT_FACTOR) // 1024, _PARTICIPANT_KB * (workers + 1) if workers else 0)
    memory_kb = min(most_kb, max(floor_kb, want_kb))
    if memory_kb > floor_kb:
        chosen["maintenance_work_mem"] = f"{-(-memory_kb // _MB)}MB"
    if workers != server.max_parallel_maintenance_workers:
        chosen["max_parallel_maintenance_workers"] = str(workers)
    return chosen


def _workers(method: str, server: Server, jobs: int, cores: int | None) -> int:
    if PARALLEL_SINCE.get(method, 10**6) > server.major:
        # It makes no use of them: the setting is left alone.
        return server.max_parallel_maintenance_workers
    if cores is None:
        return server.max_parallel_maintenance_workers
    return min(server.max_parallel_maintenance_workers, max(0, cores // jobs - 1))
