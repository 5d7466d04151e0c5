-- The relations of some plans as the planner sizes them: pages by the file's size now, rows by the last ANALYZE. The size
-- of a file is not to be had while its table is locked against readers, or about to be: there pages are of the last ANALYZE.
-- Takes: schemas text[], names text[] (pairs). Needs: nothing; of tables that the role may not read too.
WITH locked AS MATERIALIZED (
    SELECT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
)
SELECT
    c.oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    c.relkind::text AS relkind,
    CASE
        WHEN c.relkind = 'p' THEN coalesce(p.pages, 0)
        WHEN c.relkind = 'f' OR c.oid IN (SELECT relation FROM locked) THEN c.relpages
        ELSE (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint)
    END::bigint AS pages,
    c.reltuples::float8 AS rows,
    rn.nspname::text AS root_schema,
    r.relname::text AS root_name,
    coalesce(p.partitions, 0)::integer AS partitions,
    c.oid IN (SELECT relation FROM locked) AS is_locked
FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
LEFT JOIN pg_catalog.pg_class AS r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace
LEFT JOIN LATERAL (
    -- pg_partition_tree locks every partition.
    WITH RECURSIVE tree AS (
        SELECT c.oid
        UNION ALL
        SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.oid
    )
    SELECT
        count(*) AS partitions,
        sum(
            CASE
                WHEN l.relkind = 'f' OR l.oid IN (SELECT relation FROM locked) THEN l.relpages
                ELSE pg_catalog.pg_relation_size(l.oid) / pg_catalog.current_setting('block_size')::bigint
            END
        ) AS pages
    FROM tree
    JOIN pg_catalog.pg_class AS l ON l.oid = tree.oid
    WHERE l.relkind <> 'p'
) AS p ON c.relkind = 'p'
ORDER BY 2, 3
