-- How many rows have been written to some tables since their statistics were reset.
-- Takes: tables oid[]. Needs: nothing; where track_counts is off the figure stands still. A session reports what it
-- wrote at the end of a transaction, and no oftener than once a second (pgstat_report_stat,
-- src/backend/utils/activity/pgstat.c); what it did not report then comes when it ends, or after 10 idle seconds.
SELECT
    c.oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    coalesce(
        pg_catalog.pg_stat_get_tuples_inserted(c.oid)
        + pg_catalog.pg_stat_get_tuples_updated(c.oid)
        + pg_catalog.pg_stat_get_tuples_deleted(c.oid),
        0
    ) AS rows_written
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%(tables)s::oid[])
