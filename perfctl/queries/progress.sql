-- What sessions that build or drop an index are doing: phase, measure, and who each waits for.
-- Takes: pids integer[]. Needs: pg_read_all_stats to see other roles' queries. One row for each session that lives.
-- A build that waits for its table's lock has no row in the progress view: pg_blocking_pids tells there. It gives 0
-- for a prepared transaction, which is found by the transaction that the session waits for.
SELECT
    a.pid,
    a.application_name AS application,
    a.state,
    CASE WHEN a.state = 'idle' THEN extract(epoch FROM pg_catalog.clock_timestamp() - a.state_change)::float8 END
        AS idle_s,
    nullif(p.index_relid, 0)::bigint AS index_oid,
    p.phase,
    coalesce(p.lockers_total, 0) AS lockers_total,
    coalesce(p.lockers_done, 0) AS lockers_done,
    coalesce(p.blocks_total, 0) AS blocks_total,
    coalesce(p.blocks_done, 0) AS blocks_done,
    coalesce(p.tuples_total, 0) AS tuples_total,
    coalesce(p.tuples_done, 0) AS tuples_done,
    -- how many transactions back the oldest row version is that it keeps from being vacuumed away
    age(a.backend_xmin) AS xmin_age,
    CASE WHEN a.wait_event_type = 'Lock' THEN a.wait_event END AS wait_lock,
    w.pid AS blocker_pid,
    coalesce(b.usename::text, x.owner::text) AS blocker_role,
    b.application_name AS blocker_application,
    coalesce(b.state, CASE WHEN x.gid IS NOT NULL THEN 'prepared' END) AS blocker_state,
    extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(b.xact_start, x.prepared))::float8 AS blocker_age_s,
    coalesce(left(b.query, 200), pg_catalog.format('ROLLBACK PREPARED %%L', x.gid)) AS blocker_query,
    coalesce(b.xact_start, x.prepared) AS blocker_started_at,
    coalesce(b.backend_type = 'client backend', false) AS blocker_is_client,
    x.gid AS prepared
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN pg_catalog.pg_stat_progress_create_index AS p ON p.pid = a.pid
LEFT JOIN LATERAL (
    SELECT blocking.pid
    FROM unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocking (pid)
    LIMIT 1
) AS w ON a.wait_event_type = 'Lock'
LEFT JOIN pg_catalog.pg_stat_activity AS b ON b.pid = w.pid
LEFT JOIN LATERAL (
    SELECT
        prepared.gid,
        prepared.owner,
        prepared.prepared
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_prepared_xacts AS prepared ON prepared.transaction = l.transactionid
    WHERE l.pid = a.pid AND NOT l.granted AND l.locktype = 'transactionid'
    LIMIT 1
) AS x ON w.pid = 0
WHERE a.pid = ANY(%(pids)s::integer[])
