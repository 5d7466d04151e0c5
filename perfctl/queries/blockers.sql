-- Who a concurrent index build or drop would wait for now: writers of the table (RowExclusiveLock or stronger),
-- holders of old snapshots anywhere in the database, and prepared transactions, which no pid stands for.
-- Takes: tables oid[]. Needs: pg_read_all_stats to see other roles' queries and snapshots.
WITH held AS (
    SELECT l.pid, l.virtualtransaction, min(l.relation) AS relation, array_agg(DISTINCT l.mode) AS modes
    FROM pg_catalog.pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND l.relation = ANY(%(tables)s::oid[])
        AND l.granted
        AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
    GROUP BY l.pid, l.virtualtransaction
)
SELECT
    a.pid,
    a.usename::text AS role,
    a.application_name AS application,
    a.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS age_s,
    left(a.query, 200) AS query,
    h.relation AS table_oid,
    CASE WHEN h.relation IS NULL THEN 'snapshot' ELSE 'lock' END AS reason,
    coalesce(a.backend_type = 'autovacuum worker', false) AS autovacuum
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN held AS h ON h.pid = a.pid
WHERE
    a.datname = current_database()
    AND a.pid <> pg_catalog.pg_backend_pid()
    AND (h.relation IS NOT NULL OR (a.backend_xmin IS NOT NULL AND a.backend_type = 'client backend'))
UNION ALL
SELECT
    NULL,
    x.owner::text,
    'prepared transaction ' || x.gid,
    'prepared',
    extract(epoch FROM pg_catalog.clock_timestamp() - x.prepared)::float8,
    pg_catalog.format('ROLLBACK PREPARED %%L', x.gid),
    h.relation,
    'lock',
    false
FROM pg_catalog.pg_prepared_xacts AS x
JOIN pg_catalog.pg_locks AS own ON own.locktype = 'transactionid' AND own.transactionid = x.transaction AND own.granted
JOIN held AS h ON h.pid IS NULL AND h.virtualtransaction = own.virtualtransaction
WHERE x.database = current_database()
ORDER BY 5 DESC NULLS LAST
