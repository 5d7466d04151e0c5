-- Who holds tables locked against readers; of a partition also the table that it is of.
-- Takes: nothing. Needs: nothing; of others' sessions only with pg_read_all_stats more than the process.
SELECT
    n.nspname::text AS schema,
    c.relname::text AS name,
    (SELECT r.relname::text FROM pg_catalog.pg_class AS r WHERE r.oid = pg_catalog.pg_partition_root(c.oid)) AS root_name,
    l.pid,
    a.usename::text AS usename,
    a.application_name::text AS application,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE
    l.locktype = 'relation'
    AND l.mode = 'AccessExclusiveLock'
    AND l.granted
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
ORDER BY 1, 2, 4
