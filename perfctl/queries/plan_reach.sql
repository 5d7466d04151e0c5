-- What some words of queries and plans may lead to a call of: functions, and what calls them without naming them. A
-- word with "(" behind it is a call, one with "::" before it a cast; the empty word is there for what no word tells of.
-- Takes: words text[]. Needs: nothing.
WITH wanted AS (
    SELECT DISTINCT word FROM unnest(%(words)s::text[]) AS each (word)
), proc AS (
    SELECT
        p.oid, n.nspname, p.proname, p.prokind, p.prorettype, l.lanname,
        -- t.f is f(t)
        CASE
            WHEN p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1 AND a.typtype IN ('c', 'd', 'p')
            THEN p.proname::text
            ELSE p.proname || '('
        END AS word,
        n.nspname IN ('pg_catalog', 'information_schema') AS is_system,
        -- Those of pg_catalog that only give another answer each time change nothing.
        p.provolatile = 'v' AND NOT (
            n.nspname = 'pg_catalog'
            AND p.proname IN (
                'random', 'random_normal', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'uuidv4', 'uuidv7',
                'pg_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_total_relation_size', 'pg_database_size',
                'currval', 'lastval', 'txid_current', 'pg_current_xact_id'
            )
        ) AS is_volatile
    FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
    LEFT JOIN pg_catalog.pg_type AS a ON a.oid = p.proargtypes[0]
), own AS (
    -- Those that may change something, or whose text may.
    SELECT oid, format('%%I.%%I(', nspname, proname) AS call
    FROM proc
    WHERE is_volatile OR (NOT is_system AND lanname NOT IN ('c', 'internal'))
), named AS (
    SELECT
        t.oid, t.typname, t.typtype, t.typbasetype, t.typrelid,
        n.nspname IN ('pg_catalog', 'information_schema') AS is_system
    FROM pg_catalog.pg_type AS t
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
), found (word, what, function, text) AS (
    SELECT
        p.word, NULL,
        CASE WHEN p.is_volatile THEN p.nspname || '.' || p.proname END,
        CASE WHEN NOT p.is_volatile THEN pg_catalog.pg_get_functiondef(p.oid) END
    FROM proc AS p
    WHERE
        p.prokind IN ('f', 'w')
        AND (p.is_volatile OR NOT p.is_system)
        AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
        AND p.word IN (SELECT word FROM wanted)
    UNION ALL
    SELECT
        p.word, 'aggregate ' || p.proname, NULL,
        (
            SELECT string_agg(own.call, ' ')
            FROM own
            WHERE own.oid IN (
                a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                a.aggminvtransfn, a.aggmfinalfn
            )
        )
    FROM pg_catalog.pg_aggregate AS a
    JOIN proc AS p ON p.oid = a.aggfnoid
    WHERE NOT p.is_system
    UNION ALL
    SELECT o.oprname::text, 'operator ' || o.oprname, NULL, own.call
    FROM pg_catalog.pg_operator AS o
    JOIN own ON own.oid = o.oprcode
    UNION ALL
    SELECT
        -- EXPLAIN does not show an implicit one, and types of pg_catalog have several names.
        CASE WHEN c.castcontext = 'i' OR t.is_system THEN '' ELSE t.typname::text END,
        format('the cast from %%s to %%s', c.castsource::regtype, c.casttarget::regtype), NULL, own.call
    FROM pg_catalog.pg_cast AS c
    JOIN own ON own.oid = c.castfunc
    JOIN named AS t ON t.oid = c.casttarget
    UNION ALL
    SELECT DISTINCT '', 'an operator class of ' || a.amproclefttype::regtype, NULL, own.call
    FROM pg_catalog.pg_amproc AS a
    JOIN own ON own.oid = a.amproc
    UNION ALL
    SELECT t.typname::text, 'type ' || t.typname, NULL, own.call
    FROM pg_catalog.pg_range AS r
    JOIN named AS t ON t.oid = r.rngtypid
    JOIN own ON own.oid = r.rngcanonical
    UNION ALL
    SELECT
        t.typname::text, 'domain ' || t.typname, NULL,
        concat_ws(
            ' ', t.typbasetype::regtype,
            (
                SELECT string_agg(pg_catalog.pg_get_constraintdef(k.oid), ' ')
                FROM pg_catalog.pg_constraint AS k
                WHERE k.contypid = t.oid
            )
        )
    FROM named AS t
    WHERE t.typtype = 'd' AND NOT t.is_system
    UNION ALL
    SELECT
        CASE WHEN c.relkind = 'c' THEN t.typname::text ELSE '::' || t.typname END, 'type ' || t.typname, NULL,
        (
            SELECT string_agg('::' || a.atttypid::regtype, ' ')
            FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        )
    FROM named AS t
    JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
    WHERE
        NOT t.is_system
        AND (t.typname IN (SELECT word FROM wanted) OR '::' || t.typname IN (SELECT word FROM wanted))
    UNION ALL
    SELECT c.relname::text, 'view ' || c.relname, NULL, pg_catalog.pg_get_viewdef(c.oid)
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE
        c.relkind = 'v'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        AND c.relname IN (SELECT word FROM wanted)
    UNION ALL
    SELECT c.relname::text, 'policy ' || p.polname, NULL, pg_catalog.pg_get_expr(p.polqual, p.polrelid)
    FROM pg_catalog.pg_policy AS p
    JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
    WHERE c.relrowsecurity
)
SELECT word, what, function, text
FROM found
WHERE word IN (SELECT word FROM wanted) AND (function IS NOT NULL OR text IS NOT NULL)
ORDER BY 1, 2, 3
