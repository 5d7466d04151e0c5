-- Indexes with their flags: all of some tables, those with given names, and every broken one in some schemas.
-- Takes: tables oid[], schemas text[] and names text[] (pairs), scope text[]. Needs: nothing.
-- indcheckxmin: a snapshot older than the index cannot use it (src/backend/access/heap/README.HOT); it is usable
-- for new snapshots once the pg_index row is older than the oldest transaction that a new snapshot still sees.
SELECT
    i.indexrelid AS oid,
    n.nspname::text AS schema,
    c.relname::text AS name,
    i.indrelid AS table_oid,
    tn.nspname::text AS table_schema,
    t.relname::text AS table_name,
    c.relkind::text AS relkind,
    i.indisunique AS is_unique,
    i.indisvalid AS is_valid,
    i.indisready AS is_ready,
    i.indislive AS is_live,
    NOT i.indcheckxmin OR age(i.xmin) > age(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::xid)
        AS is_usable,
    pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
    am.amname::text AS method,
    pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
    CASE WHEN c.relkind = 'i' THEN pg_catalog.pg_relation_size(i.indexrelid) ELSE 0 END AS size_bytes,
    ts.spcname::text AS tablespace,
    (
        SELECT k.conname::text
        FROM pg_catalog.pg_constraint AS k
        WHERE k.conindid = i.indexrelid
        LIMIT 1
    ) AS constraint_name,
    (SELECT h.inhparent FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = i.indexrelid) AS parent_oid,
    coalesce(pg_catalog.pg_stat_get_numscans(i.indexrelid), 0) AS scans,
    pg_catalog.obj_description(i.indexrelid, 'pg_class') AS comment,
    pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate,
    array_remove(
        ARRAY[
            CASE WHEN i.indisreplident THEN 'replica identity' END,
            CASE WHEN i.indisclustered THEN 'cluster mark' END,
            CASE
                WHEN EXISTS (
                    SELECT
                    FROM pg_catalog.pg_attribute AS ia
                    WHERE ia.attrelid = i.indexrelid AND ia.attstattarget >= 0
                )
                    THEN 'statistics target'
            END
        ],
        NULL
    ) AS marks
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_tablespace AS ts ON ts.oid = c.reltablespace
WHERE
    i.indrelid = ANY(%(tables)s::oid[])
    OR (n.nspname, c.relname) IN (
        SELECT wanted.schema, wanted.name
        FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS wanted (schema, name)
    )
    OR i.indexrelid IN (
        -- the parts of a partitioned index go when it goes
        SELECT h.inhrelid
        FROM pg_catalog.pg_inherits AS h
        JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
        JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
        WHERE
            p.relkind = 'I'
            AND (pn.nspname, p.relname) IN (
                SELECT wanted.schema, wanted.name
                FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS wanted (schema, name)
            )
    )
    OR (NOT (i.indisvalid AND i.indisready AND i.indislive) AND n.nspname = ANY(%(scope)s::text[]))
ORDER BY n.nspname, c.relname
