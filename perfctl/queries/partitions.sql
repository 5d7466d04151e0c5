-- The tables below some partitioned ones, parents before their children.
-- Takes: tables oid[]. Needs: nothing.
SELECT
    root.oid::bigint AS root_oid,
    t.parentrelid::bigint AS parent_oid,
    c.oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    c.relkind::text AS relkind,
    c.relpages::bigint AS pages,
    greatest(c.reltuples, 0)::float8 AS rows,
    CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid) ELSE 0 END AS size_bytes,
    pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
    pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS may_create
FROM unnest(%(tables)s::oid[]) AS root (oid)
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root.oid) AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.level > 0
ORDER BY root.oid, t.level, n.nspname, c.relname
