-- Which of some functions are volatile, so that running them may change something; those of pg_catalog that only give
-- another answer each time are left out.
-- Takes: schemas text[] (null where none is said), names text[] (pairs). Needs: nothing.
SELECT DISTINCT n.nspname::text AS schema, p.proname::text AS name
FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_proc AS p ON p.proname = wanted.name
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace AND (wanted.schema IS NULL OR n.nspname = wanted.schema)
WHERE
    p.provolatile = 'v'
    AND (wanted.schema IS NOT NULL OR pg_catalog.pg_function_is_visible(p.oid))
    AND NOT (
        n.nspname = 'pg_catalog'
        AND p.proname IN (
            'random', 'random_normal', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'uuidv4', 'uuidv7',
            'pg_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_total_relation_size', 'pg_database_size',
            'currval', 'lastval', 'txid_current', 'pg_current_xact_id'
        )
    )
