-- The server and what this role may do on it.
-- Takes: nothing. Needs: nothing. One row.
SELECT
    current_database() AS database,
    (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) AS database_oid,
    current_user AS role,
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_version_num')::integer AS version_num,
    pg_catalog.pg_is_in_recovery() AS in_recovery,
    pg_catalog.current_schemas(false)::text[] AS search_path,
    pg_catalog.current_setting('search_path') AS search_path_setting,
    pg_catalog.has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
    pg_catalog.has_database_privilege(current_database(), 'TEMPORARY') AS may_create_temporary,
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS may_see_others,
    pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS may_end_others,
    pg_catalog.to_regnamespace('perfctl') IS NOT NULL AS has_journal_schema,
    j.step IS NOT NULL AS has_journal,
    coalesce(
        pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('perfctl')::oid, 'USAGE'), false
    ) AS may_use_journal_schema,
    coalesce(
        pg_catalog.has_table_privilege(j.step, 'INSERT')
        AND pg_catalog.has_table_privilege(j.step, 'UPDATE')
        AND pg_catalog.has_table_privilege(j.step, 'SELECT')
        AND pg_catalog.has_table_privilege(j.run, 'INSERT'),
        false
    ) AS may_write_journal,
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024 AS maintenance_work_mem_kb,
    pg_catalog.current_setting('max_parallel_maintenance_workers')::integer AS max_parallel_maintenance_workers,
    pg_catalog.current_setting('max_parallel_workers')::integer AS max_parallel_workers,
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 1024 AS shared_buffers_kb,
    extract(epoch FROM pg_catalog.current_setting('deadlock_timeout')::interval)::float8 AS deadlock_timeout_s,
    -- null for who may not know it: pg_settings leaves the row out
    (SELECT s.setting FROM pg_catalog.pg_settings AS s WHERE s.name = 'data_directory') AS data_directory,
    pg_catalog.current_setting('block_size')::integer AS block_size,
    (
        SELECT array_agg(e.extname::text)
        FROM pg_catalog.pg_extension AS e
    ) AS extensions
-- to_regclass would raise an error for a role without USAGE on the schema
FROM (
    SELECT
        max(c.oid) FILTER (WHERE c.relname = 'step') AS step,
        max(c.oid) FILTER (WHERE c.relname = 'run') AS run
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = pg_catalog.to_regnamespace('perfctl') AND c.relkind = 'r'
) AS j
