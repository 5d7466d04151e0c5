-- One session's index build or drop: its phase, its measure, and who it waits for.
-- Takes: pid integer. Needs: pg_read_all_stats to see other roles' queries. One row while the session lives.
-- A build that waits for its table's lock has no row in the progress view: pg_blocking_pids tells there.
SELECT
    a.pid,
    nullif(p.index_relid, 0)::bigint AS index_oid,
    p.phase,
    coalesce(p.lockers_total, 0) AS lockers_total,
    coalesce(p.lockers_done, 0) AS lockers_done,
    coalesce(p.blocks_total, 0) AS blocks_total,
    coalesce(p.blocks_done, 0) AS blocks_done,
    coalesce(p.tuples_total, 0) AS tuples_total,
    coalesce(p.tuples_done, 0) AS tuples_done,
    coalesce(a.wait_event_type = 'Lock', false) AS is_waiting,
    w.pid AS blocker_pid,
    b.usename::text AS blocker_role,
    b.application_name AS blocker_application,
    b.state AS blocker_state,
    extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start)::float8 AS blocker_age_s,
    left(b.query, 200) AS blocker_query
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN pg_catalog.pg_stat_progress_create_index AS p ON p.pid = a.pid
LEFT JOIN LATERAL (
    SELECT blocking.pid
    FROM unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocking (pid)
    LIMIT 1
) AS w ON a.wait_event_type = 'Lock'
LEFT JOIN pg_catalog.pg_stat_activity AS b ON b.pid = w.pid
WHERE a.pid = %(pid)s
