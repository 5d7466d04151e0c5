-- Whether autovacuum has work on some tables that a chain of builds keeps it from.
-- Takes: tables oid[]. Needs: nothing. The limit is relation_needs_vacanalyze's (src/backend/postmaster/autovacuum.c).
SELECT
    c.oid,
    coalesce(pg_catalog.pg_stat_get_dead_tuples(c.oid), 0) AS dead_rows,
    CASE
        WHEN
            pg_catalog.current_setting('autovacuum')::boolean
            AND pg_catalog.current_setting('track_counts')::boolean
            AND coalesce((o.autovacuum_enabled)::boolean, true)
            THEN
                least(
                    coalesce(
                        o.autovacuum_vacuum_threshold::float8,
                        pg_catalog.current_setting('autovacuum_vacuum_threshold')::float8
                    )
                    + coalesce(
                        o.autovacuum_vacuum_scale_factor::float8,
                        pg_catalog.current_setting('autovacuum_vacuum_scale_factor')::float8
                    )
                    * greatest(c.reltuples, 0),
                    -- PostgreSQL 18 has it; -1 is no cap, and so is null
                    nullif(
                        coalesce(
                            o.autovacuum_vacuum_max_threshold::float8,
                            pg_catalog.current_setting('autovacuum_vacuum_max_threshold', true)::float8
                        ),
                        -1
                    )
                )
    END AS dead_rows_limit,
    v.pid AS vacuum_pid,
    extract(epoch FROM pg_catalog.current_setting('autovacuum_naptime')::interval)::float8 AS naptime_s
FROM unnest(%(tables)s::oid[]) AS wanted (oid)
JOIN pg_catalog.pg_class AS c ON c.oid = wanted.oid
LEFT JOIN pg_catalog.pg_stat_progress_vacuum AS v ON v.relid = c.oid AND v.datname = current_database()
CROSS JOIN LATERAL (
    SELECT
        max(split_part(option, '=', 2)) FILTER (WHERE option LIKE 'autovacuum\_enabled=%%') AS autovacuum_enabled,
        max(split_part(option, '=', 2)) FILTER (WHERE option LIKE 'autovacuum\_vacuum\_threshold=%%')
            AS autovacuum_vacuum_threshold,
        max(split_part(option, '=', 2)) FILTER (WHERE option LIKE 'autovacuum\_vacuum\_scale\_factor=%%')
            AS autovacuum_vacuum_scale_factor,
        max(split_part(option, '=', 2)) FILTER (WHERE option LIKE 'autovacuum\_vacuum\_max\_threshold=%%')
            AS autovacuum_vacuum_max_threshold
    FROM unnest(c.reloptions) AS option
) AS o
WHERE c.relkind IN ('r', 'm')
