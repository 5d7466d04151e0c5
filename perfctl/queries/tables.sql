-- Tables and other relations by name, with what building an index on them needs to know.
-- Takes: schemas text[], names text[] (pairs). Needs: nothing.
SELECT
    c.oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    c.relkind::text AS relkind,
    c.relpersistence::text AS persistence,
    c.relpages::bigint AS pages,
    greatest(c.reltuples, 0)::float8 AS rows,
    CASE WHEN c.relkind IN ('r', 'm', 't') THEN pg_catalog.pg_relation_size(c.oid) ELSE 0 END AS size_bytes,
    pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
    pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS may_create,
    (
        SELECT string_agg(
            pg_catalog.format(
                '%%I %%s%%s',
                a.attname,
                pg_catalog.format_type(a.atttypid, a.atttypmod),
                CASE
                    WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
                        THEN pg_catalog.format(' COLLATE %%I.%%I', cn.nspname, co.collname)
                END
            ),
            ', ' ORDER BY a.attnum
        )
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_collation AS co ON co.oid = a.attcollation
        LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = co.collnamespace
        WHERE c.relkind IN ('r', 'm', 'p') AND a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns
FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
