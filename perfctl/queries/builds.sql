-- Index builds that are running now, as far as this role may see them.
-- Takes: nothing. Needs: pg_read_all_stats to see other roles' (without it their index_oid is null).
SELECT
    p.pid,
    p.relid AS table_oid,
    nullif(p.index_relid, 0) AS index_oid,
    p.command,
    p.phase,
    coalesce(p.lockers_total, 0) AS lockers_total,
    coalesce(p.lockers_done, 0) AS lockers_done,
    nullif(p.current_locker_pid, 0) AS current_locker_pid,
    coalesce(p.blocks_total, 0) AS blocks_total,
    coalesce(p.blocks_done, 0) AS blocks_done,
    coalesce(p.tuples_total, 0) AS tuples_total,
    coalesce(p.tuples_done, 0) AS tuples_done,
    a.usename::text AS role,
    a.application_name AS application
FROM pg_catalog.pg_stat_progress_create_index AS p
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
WHERE p.datname = current_database()
