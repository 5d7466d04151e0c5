"""Reads what the servers of a cache tell of themselves: INFO and the slow log, without anything that takes long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from perfctl.cache.records import Seen, SlowCommand, SlowLog, Unread, Vitals
from perfctl.errors import CommandFailed, Denied
from perfctl.servers.deployment import Deployment, info
from perfctl.servers.redis import Node

_Found = TypeVar("_Found")

#: entries of a slow log that are read, many times what it holds unless told otherwise, and that are told
_SLOW_READ = 2000
_SLOW_TOLD = 5

#: The servers cut an argument that is longer, and what is left of it is of no family.
_CUT_AT = 128

#: commands whose first argument is a key
_FIRST_A_KEY = frozenset(
    b"GET SET SETEX PSETEX SETNX GETSET GETDEL GETEX APPEND STRLEN GETRANGE SETRANGE INCR INCRBY DECR DECRBY MGET MSET "
    b"DEL UNLINK EXISTS EXPIRE PEXPIRE PERSIST TYPE TTL PTTL DUMP RESTORE RENAME COPY SORT "
    b"HGET HSET HMGET HMSET HGETALL HKEYS HVALS HLEN HDEL HSCAN HINCRBY "
    b"LPUSH RPUSH LPOP RPOP LRANGE LLEN LTRIM LREM LINDEX LSET LINSERT LPOS "
    b"SADD SREM SMEMBERS SCARD SISMEMBER SMISMEMBER SPOP SRANDMEMBER SSCAN SINTER SUNION SDIFF "
    b"SINTERSTORE SUNIONSTORE SDIFFSTORE "
    b"ZADD ZREM ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZCARD ZCOUNT ZSCORE ZINCRBY ZSCAN "
    b"ZREMRANGEBYRANK ZREMRANGEBYSCORE ZPOPMIN ZPOPMAX ZINTERSTORE ZUNIONSTORE "
    b"XADD XRANGE XREVRANGE XLEN XTRIM XDEL SETBIT GETBIT BITCOUNT PFADD PFCOUNT GEOADD GEOSEARCH".split()
)


def nodes(deployment: Deployment) -> list[Node]:
    """A connection to each server that is looked at. Raises Unreachable, Denied."""
    if deployment.kind != "cluster":
        return [deployment.node]
    return [deployment.open(each.address) for each in deployment.primaries()]


def look(nodes: Sequence[Node], db: int, family: Callable[[bytes], bytes] | None = None) -> Seen:
    """What each server tells, side by side; what a user may not ask is told as that. Raises Unreachable, Denied.

    ``family`` gives that of a key, to be told with slow commands.
    """
    found = _side_by_side(lambda node: (read(node, db), _slow(node, family)), nodes)
    logs = [log for _, log in found]
    return Seen(
        tuple(vitals for vitals, _ in found),
        tuple(each for each in logs if isinstance(each, SlowLog)),
        tuple(each for each in logs if isinstance(each, Unread))[:1],
    )


def figures(nodes: Sequence[Node], db: int) -> tuple[Vitals, ...]:
    """What each server's INFO tells, side by side. Raises Unreachable, Denied."""
    return tuple(_side_by_side(lambda node: read(node, db), nodes))


def _side_by_side(ask: Callable[[Node], _Found], nodes: Sequence[Node]) -> list[_Found]:
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as threads:
        try:
            return list(threads.map(ask, nodes))
        except BaseException:
            # A signal, or one server that failed: nobody is to wait for the others' answers.
            for node in nodes:
                node.close()
            raise


def read(node: Node, db: int) -> Vitals:
    """What one server's INFO tells. Raises Unreachable, Denied."""
    # Not in the default sections: the statistics by command, which show that the others were reset.
    return vitals_of(str(node.address), info(node, "all"), db)


def vitals_of(server: str, facts: Mapping[str, str], db: int) -> Vitals:
    """What the lines of INFO say; see https://valkey.io/commands/info/."""

    def whole(name: str) -> int | None:
        try:
            return int(facts[name])
        except (KeyError, ValueError):
            return None

    def real(name: str) -> float | None:
        try:
            return float(facts[name])
        except (KeyError, ValueError):
            return None

    stale = real("expired_stale_perc")
    return Vitals(
        server=server,
        run_id=facts.get("run_id", ""),
        uptime_s=whole("uptime_in_seconds"),
        # RESETSTAT sets back the count of commands too, and is the first that is counted again.
        was_reset=_worked(facts.get("cmdstat_config|resetstat", "")),
        hits=_reads_that_hit(whole("keyspace_hits"), facts),
        misses=whole("keyspace_misses"),
        commands=whole("total_commands_processed"),
        used_bytes=whole("used_memory"),
        peak_bytes=whole("used_memory_peak"),
        limit_bytes=whole("maxmemory"),
        overhead_bytes=whole("used_memory_overhead"),
        dataset_bytes=whole("used_memory_dataset"),
        fragmentation=real("mem_fragmentation_ratio"),
        fragmentation_bytes=whole("mem_fragmentation_bytes"),
        allocator_fragmentation=real("allocator_frag_ratio"),
        policy=facts.get("maxmemory_policy"),
        evicted=whole("evicted_keys"),
        expired=whole("expired_keys"),
        stale_share=None if stale is None else stale / 100,
        clients=whole("connected_clients"),
        blocked=whole("blocked_clients"),
        max_clients=whole("maxclients"),
        rejected=whole("rejected_connections"),
        keys=_keys(facts, db),
        replica=facts.get("role") == "slave",
    )


#: What looks at a key and not at its value, and counts as a read that hits all the same.
_LOOKS = ("type", "pttl", "dump", "object", "object|idletime")


def _reads_that_hit(hits: int | None, facts: Mapping[str, str]) -> int | None:
    """The reads that found a value, without those that only looked at a key.

    A look at a cache, perfctl's own too, would make a hit ratio of 100 % where nobody reads.
    """
    looks = sum(_carried_out(facts.get(f"cmdstat_{name}", "")) for name in _LOOKS)
    return None if hits is None else max(0, hits - looks)


def _worked(told: str) -> bool:
    """Whether a command was ever carried out; one that was denied has a line of statistics too."""
    return _carried_out(told) > 0


def _carried_out(told: str) -> int:
    """How often a command was carried out, by its line of statistics."""
    counts = dict(each.partition("=")[::2] for each in told.split(","))
    try:
        return max(0, int(counts.get("calls", "0")) - int(counts.get("failed_calls", "0")))
    except ValueError:
        return 0


def _keys(facts: Mapping[str, str], db: int) -> int | None:
    """``db0:keys=1,expires=0,avg_ttl=0``; a database without keys has no line."""
    if "keyspace_hits" not in facts:
        return None
    told = dict(each.partition("=")[::2] for each in facts.get(f"db{db}", "keys=0").split(","))
    return int(told.get("keys", "0"))


def _slow(node: Node, family: Callable[[bytes], bytes] | None) -> SlowLog | Unread:
    try:
        length = node.call("SLOWLOG", "LEN")
        entries = node.call("SLOWLOG", "GET", min(length, _SLOW_READ))
    except (Denied, CommandFailed) as error:
        return Unread.of("slow log", error)
    # An entry is its number, the time, microseconds, and the command with its arguments, which are nobody's business.
    found = [SlowCommand(_name(words), took / 1000, at, _family(words, family)) for _, at, took, words, *_ in entries]
    slowest = tuple(sorted(found, key=lambda each: -each.took_ms)[:_SLOW_TOLD])
    return SlowLog(str(node.address), length, slowest, _SLOW_READ if length > _SLOW_READ else None)


def _family(words: Sequence[bytes], family: Callable[[bytes], bytes] | None) -> bytes | None:
    """That of the first key; None of a command that may have a value, a script or a password in its place."""
    if family is None or len(words) < 2 or words[0].upper() not in _FIRST_A_KEY or len(words[1]) >= _CUT_AT:
        return None
    return family(words[1])


def _name(words: Sequence[bytes]) -> str:
    return words[0].decode("utf-8", "backslashreplace").upper()[:40] if words else "?"
