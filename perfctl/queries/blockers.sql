-- Who a concurrent index build or drop would wait for now: holders of a lock on the table that keeps it from
-- beginning, writers of the table, holders of old snapshots anywhere in the database, and prepared transactions,
-- which no pid stands for. Follows WaitForLockers and WaitForOlderSnapshots (src/backend/commands/indexcmds.c):
-- vacuums, and from 14 on concurrent builds of plain columns, are not waited for.
-- Takes: tables oid[], own integer[] (sessions to leave out). Needs: pg_read_all_stats to see other roles'
-- queries and snapshots.
WITH held AS (
    SELECT
        l.pid,
        l.virtualtransaction,
        l.relation,
        bool_or(
            l.mode IN (
                'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'
            )
        ) AS keeps_off
    FROM pg_catalog.pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND l.relation = ANY(%(tables)s::oid[])
        AND l.granted
        AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
    GROUP BY l.pid, l.virtualtransaction, l.relation
),

not_waited_for AS (
    SELECT v.pid
    FROM pg_catalog.pg_stat_progress_vacuum AS v
    UNION ALL
    SELECT b.pid
    FROM pg_catalog.pg_stat_progress_create_index AS b
    JOIN pg_catalog.pg_index AS i ON i.indexrelid = b.index_relid
    WHERE
        b.command LIKE '%%CONCURRENTLY'
        AND i.indexprs IS NULL
        AND i.indpred IS NULL
        AND pg_catalog.current_setting('server_version_num')::integer >= 140000
)

SELECT
    a.pid,
    a.usename::text AS role,
    a.application_name AS application,
    a.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS age_s,
    left(a.query, 200) AS query,
    h.relation AS table_oid,
    CASE WHEN h.relation IS NULL THEN 'snapshot' WHEN h.keeps_off THEN 'holder' ELSE 'writer' END AS reason,
    a.xact_start AS started_at,
    a.backend_type = 'client backend' AS is_client,
    a.backend_type = 'autovacuum worker' AND a.query LIKE '%%(to prevent wraparound)%%' AS is_wraparound
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN held AS h ON h.pid = a.pid
WHERE
    a.datname = current_database()
    AND a.pid <> pg_catalog.pg_backend_pid()
    AND a.pid <> ALL(%(own)s::integer[])
    AND a.leader_pid IS NULL
    AND (
        h.relation IS NOT NULL
        OR (
            a.backend_xmin IS NOT NULL
            AND a.backend_type <> 'autovacuum worker'
            AND NOT EXISTS (SELECT FROM not_waited_for AS n WHERE n.pid = a.pid)
        )
    )
UNION ALL
SELECT
    NULL,
    x.owner::text,
    'prepared transaction ' || x.gid,
    'prepared',
    extract(epoch FROM pg_catalog.clock_timestamp() - x.prepared)::float8,
    pg_catalog.format('ROLLBACK PREPARED %%L', x.gid),
    h.relation,
    CASE WHEN h.keeps_off THEN 'holder' ELSE 'writer' END,
    x.prepared,
    false,
    false
FROM pg_catalog.pg_prepared_xacts AS x
JOIN pg_catalog.pg_locks AS own ON own.locktype = 'transactionid' AND own.transactionid = x.transaction AND own.granted
JOIN held AS h ON h.pid IS NULL AND h.virtualtransaction = own.virtualtransaction
WHERE x.database = current_database()
ORDER BY 5 DESC NULLS LAST
