-- The indexes of some tables with their key columns in order, expressions as PostgreSQL prints them.
-- Those of a table that is locked against readers are left out: to print one locks its table.
-- Takes: tables oid[]. Needs: nothing.
SELECT
    n.nspname::text AS schema,
    t.relname::text AS "table",
    c.relname::text AS name,
    am.amname::text AS method,
    ARRAY(
        SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k, false)
        FROM pg_catalog.generate_series(1, i.indnkeyatts) AS k
        ORDER BY k
    ) AS keys,
    i.indisvalid AND i.indisready AND i.indislive AS is_usable,
    pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
    (
        SELECT p.relname::text
        FROM pg_catalog.pg_partition_ancestors(i.indexrelid) WITH ORDINALITY AS a (relid, nr)
        JOIN pg_catalog.pg_class AS p ON p.oid = a.relid
        WHERE c.relispartition
        ORDER BY a.nr DESC
        LIMIT 1
    ) AS part_of
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
WHERE
    i.indrelid = ANY(%(tables)s::oid[])
    AND i.indrelid NOT IN (
        SELECT relation
        FROM pg_catalog.pg_locks
        WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
    )
ORDER BY 1, 2, 3
