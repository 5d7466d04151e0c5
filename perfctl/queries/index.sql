-- One index by name, with its flags and whether somebody is building it now.
-- Takes: schema text, name text. Needs: nothing. No row when there is none.
SELECT
    i.indexrelid AS oid,
    i.indrelid AS table_oid,
    c.relkind::text AS relkind,
    i.indisunique AS is_unique,
    i.indisvalid AS is_valid,
    i.indisready AS is_ready,
    i.indislive AS is_live,
    pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
    CASE WHEN c.relkind = 'i' THEN pg_catalog.pg_relation_size(i.indexrelid) ELSE 0 END AS size_bytes,
    (SELECT h.inhparent FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = i.indexrelid) AS parent_oid,
    b.pid AS builder_pid,
    a.application_name AS builder_application
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_progress_create_index AS b
    ON b.datname = current_database() AND b.index_relid = i.indexrelid
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
