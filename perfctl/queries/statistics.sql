-- Extended statistics by name. Takes: schemas text[], names text[] (pairs). Needs: nothing.
SELECT
    s.oid,
    n.nspname::text AS schema,
    s.stxname::text AS name,
    s.stxrelid AS table_oid,
    pg_catalog.pg_get_statisticsobjdef(s.oid) AS definition
FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_statistic_ext AS s ON s.stxnamespace = n.oid AND s.stxname = wanted.name
