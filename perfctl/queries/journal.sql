-- What perfctl did in this database, oldest first.
-- Takes: nothing. Needs: SELECT on perfctl.step and perfctl.run.
SELECT
    s.id,
    s.run_id,
    s.kind,
    s.schema,
    s.name,
    s.table_schema,
    s.table_name,
    s.migration,
    s.migration_number,
    s.migration_sha256,
    s.statement,
    s.undo,
    s.object_oid::bigint AS object_oid,
    s.canonical,
    s.comment,
    s.state,
    s.detail,
    s.build_s::float8 AS build_s,
    s.wait_s::float8 AS wait_s,
    s.size_bytes,
    s.table_bytes,
    s.estimated_s::float8 AS estimated_s,
    s.undoes,
    s.started_at,
    r.role,
    r.origin
FROM perfctl.step AS s
JOIN perfctl.run AS r ON r.id = s.run_id
ORDER BY s.id
