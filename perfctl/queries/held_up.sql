-- Who waits for a lock that some sessions hold: those whom a build that is not concurrent keeps from writing.
-- Takes: pids integer[]. Needs: pg_read_all_stats to see other roles' queries.
SELECT
    a.pid,
    a.usename::text AS role,
    a.application_name AS application,
    extract(epoch FROM pg_catalog.clock_timestamp() - a.query_start)::float8 AS waits_s,
    left(a.query, 200) AS query,
    blocking.pid AS by_pid
FROM pg_catalog.pg_stat_activity AS a
CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocking (pid)
WHERE
    a.wait_event_type = 'Lock'
    AND a.datname = current_database()
    AND a.backend_type = 'client backend'
    AND blocking.pid = ANY(%(pids)s::integer[])
    AND a.pid <> ALL(%(pids)s::integer[])
