-- A hash of what ANALYZE has gathered about some tables: another one means other statistics.
-- Takes: tables oid[]. Needs: SELECT on the tables; what the role may not read is left out of the hash.
SELECT
    c.oid,
    md5(
        concat_ws(
            ' ', c.reltuples, c.relallvisible,
            (
                SELECT string_agg(
                    concat_ws(
                        ' ', s.attname, s.inherited, s.null_frac, s.avg_width, s.n_distinct, s.most_common_vals,
                        s.most_common_freqs, s.histogram_bounds, s.correlation
                    ),
                    ';' ORDER BY s.attname, s.inherited
                )
                FROM pg_catalog.pg_stats AS s
                WHERE s.schemaname = n.nspname AND s.tablename = c.relname
            )
        )
    ) AS hash
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%(tables)s::oid[])
