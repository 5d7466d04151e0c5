-- What a unique index holds apart: its key columns, its WHERE, and whether NULLs count as equal.
-- Takes: oid oid. Needs: nothing. One row, none when the index is gone.
SELECT
    n.nspname::text AS schema,
    t.relname::text AS table,
    ARRAY(
        SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k, true)
        FROM generate_series(1, i.indnkeyatts) AS k
    ) AS keys,
    pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
    coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_are_equal
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
WHERE i.indexrelid = %(oid)s
