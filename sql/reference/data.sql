-- The rows of the reference system: about one million at scale 1, the same on every server.
--
-- Scale: SET perfctl.scale = '0.1' before this file; without it, 1. No table ever has fewer than 100 source rows.
-- Same rows everywhere: every value comes from a row's number, through hashint8extended and integer arithmetic.
-- No random(), no now(): the platform's time runs from 2026-01-01 to 2026-04-01 (UTC), whatever the scale, so more
-- rows mean more traffic and not a longer history.
-- Shape: a few users, repositories and projects own much (the third power of an even hash), most jobs are done,
-- what is open is recent. The first rows of each table belong to the first user, project, repository and so on,
-- so that the sample values in ../queries find rows at any scale.

-- An even value in [0, 1) for row i; the salt keeps the columns of one row independent of each other.
CREATE FUNCTION pg_temp.even(i bigint, salt bigint) RETURNS double precision IMMUTABLE LANGUAGE sql AS
$$ SELECT (hashint8extended(i, salt) & 1073741823)::double precision / 1073741824 $$;

-- A number in [1, n], low ones far more often. Products, not power(): the C libraries round that differently.
CREATE FUNCTION pg_temp.skewed(i bigint, salt bigint, n bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS
$$ SELECT CASE WHEN i <= 3 THEN 1
        ELSE 1 + floor(pg_temp.even(i, salt) * pg_temp.even(i, salt) * pg_temp.even(i, salt) * n)::bigint END $$;

-- The same, less steep: the most frequent of 20,000 gets about 0.7 % of the rows instead of 3.7 %.
CREATE FUNCTION pg_temp.sloped(i bigint, salt bigint, n bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS
$$ SELECT CASE WHEN i <= 3 THEN 1 ELSE 1 + floor(pg_temp.even(i, salt) * pg_temp.even(i, salt) * n)::bigint END $$;

-- The owner, out of n, of row i of m, where rows follow their owners in time.
CREATE FUNCTION pg_temp.along(i bigint, m bigint, n bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS
$$ SELECT 1 + ((i - 1) * n) / m $$;

-- The instant of row i of n.
CREATE FUNCTION pg_temp.at(i bigint, n bigint) RETURNS timestamptz STABLE LANGUAGE sql AS
$$ SELECT timestamptz '2026-01-01 00:00:00+00' + interval '1 millisecond' * ((i * 7776000000) / n) $$;

-- A public identifier, such as usr_5f1d7a84db00d2fce00b.
CREATE FUNCTION pg_temp.ident(prefix text, i bigint) RETURNS text IMMUTABLE LANGUAGE sql AS
$$ SELECT prefix || '_' || left(md5(prefix || ':' || i), 20) $$;

-- A commit hash of 40 hexadecimal digits.
CREATE FUNCTION pg_temp.sha(i bigint) RETURNS text IMMUTABLE LANGUAGE sql AS
$$ SELECT md5('commit:' || i) || left(md5('tree:' || i), 8) $$;

CREATE TEMPORARY TABLE size AS
SELECT max(rows) FILTER (WHERE name = 'users')         AS users,
       max(rows) FILTER (WHERE name = 'sessions')      AS sessions,
       max(rows) FILTER (WHERE name = 'api_keys')      AS api_keys,
       max(rows) FILTER (WHERE name = 'audit_log')     AS audit_log,
       max(rows) FILTER (WHERE name = 'projects')      AS projects,
       max(rows) FILTER (WHERE name = 'repositories')  AS repositories,
       max(rows) FILTER (WHERE name = 'members')       AS members,
       max(rows) FILTER (WHERE name = 'pull_requests') AS pull_requests,
       max(rows) FILTER (WHERE name = 'analyses')      AS analyses,
       max(rows) FILTER (WHERE name = 'reviews')       AS reviews,
       max(rows) FILTER (WHERE name = 'comments')      AS comments,
       max(rows) FILTER (WHERE name = 'model_runs')    AS model_runs,
       max(rows) FILTER (WHERE name = 'jobs')          AS jobs
FROM (
    SELECT name,
           greatest(100, ceil(at_one * scale))::bigint AS rows
    FROM (SELECT coalesce(nullif(current_setting('perfctl.scale', true), ''), '1')::numeric AS scale) AS setting,
         (VALUES ('users', 20000), ('sessions', 60000), ('api_keys', 12000), ('audit_log', 160000),
                  ('projects', 4000), ('repositories', 12000), ('members', 44000), ('pull_requests', 80000),
                  ('analyses', 160000), ('reviews', 40000), ('comments', 64000), ('model_runs', 64000),
                  ('jobs', 80000)) AS base (name, at_one)
) AS scaled;

INSERT INTO auth.users (id, email, display_name, plan, is_active, created_at, last_login_at, preferences)
SELECT pg_temp.ident('usr', i),
       first || '.' || last || i || '@' || (ARRAY['Example.com', 'mail.example.org', 'corp.example.net'])[1 + i % 3],
       first || ' ' || last,
       CASE WHEN i <= 20 OR pg_temp.even(i, 3) < 0.02 THEN 'enterprise'
            WHEN pg_temp.even(i, 3) < 0.15 THEN 'team' ELSE 'free' END,
       i = 1 OR pg_temp.even(i, 4) < 0.94,
       timestamptz '2025-12-31 00:00:00+00' - interval '1 hour' * floor(pg_temp.even(i, 5) * 17520),
       CASE WHEN pg_temp.even(i, 6) < 0.9 THEN pg_temp.at(1 + floor(pg_temp.even(i, 7) * users)::bigint, users) END,
       jsonb_build_object(
           'theme', CASE WHEN pg_temp.even(i, 8) < 0.6 THEN 'dark' ELSE 'light' END,
           'notify', jsonb_build_object('email', pg_temp.even(i, 9) < 0.7, 'chat', pg_temp.even(i, 10) < 0.3))
FROM size,
     generate_series(1, users) AS i,
     LATERAL (SELECT (ARRAY['Ada', 'Ben', 'Chen', 'Dora', 'Emil', 'Fatou', 'Goran', 'Hana', 'Ines', 'Jonas',
                            'Kira', 'Liam'])
                     [1 + floor(pg_temp.even(i, 1) * 12)::int] AS first,
                     (ARRAY['Abbott', 'Berg', 'Costa', 'Diaz', 'Endo', 'Fischer', 'Gupta', 'Hughes', 'Ito',
                            'Jansen', 'Kaya'])
                     [1 + floor(pg_temp.even(i, 2) * 11)::int] AS last) AS person;

INSERT INTO auth.sessions (id, user_id, token_hash, created_at, expires_at, revoked_at, ip, user_agent)
SELECT i,
       pg_temp.ident('usr', pg_temp.skewed(i, 11, users)),
       md5('token:' || i) || md5('salt:' || i),
       pg_temp.at(i, sessions),
       pg_temp.at(i, sessions) + interval '14 days',
       CASE WHEN i > 1 AND pg_temp.even(i, 12) < 0.35 THEN pg_temp.at(i, sessions) + interval '6 hours' END,
       inet '10.0.0.0' + floor(pg_temp.even(i, 13) * 65536)::bigint,
       (ARRAY['Firefox/138', 'Chrome/140', 'Chrome/141', 'Safari/19', 'cli/2.4'])[1 + floor(pg_temp.even(i, 14) * 5)::int]
FROM size, generate_series(1, sessions) AS i;

INSERT INTO auth.api_keys (id, user_id, label, key_hash, scopes, created_at, last_used_at, revoked_at)
SELECT i,
       pg_temp.ident('usr', pg_temp.sloped(i, 15, users)),
       (ARRAY['ci', 'laptop', 'bot', 'editor', 'release'])[1 + floor(pg_temp.even(i, 16) * 5)::int] || '-' || i,
       md5('key:' || i),
       CASE WHEN pg_temp.even(i, 17) < 0.7 THEN ARRAY['read'] WHEN pg_temp.even(i, 17) < 0.95 THEN ARRAY['read', 'write']
            ELSE ARRAY['read', 'write', 'admin'] END,
       pg_temp.at(i, api_keys),
       CASE WHEN pg_temp.even(i, 18) < 0.6
            THEN pg_temp.at(i + floor(pg_temp.even(i, 19) * (api_keys - i))::bigint, api_keys) END,
       CASE WHEN i > 1 AND pg_temp.even(i, 20) < 0.4 THEN pg_temp.at(i, api_keys) + interval '30 days' END
FROM size, generate_series(1, api_keys) AS i;

INSERT INTO auth.audit_log (id, actor_id, action, object_type, object_id, ip, details, created_at)
SELECT i,
       pg_temp.ident('usr', pg_temp.skewed(i, 21, users)),
       (ARRAY['login', 'login', 'login', 'analysis.start', 'analysis.start', 'finding.ignore', 'review.submit',
              'key.create', 'member.add', 'project.update'])[1 + floor(pg_temp.even(i, 22) * 10)::int],
       (ARRAY['user', 'analysis', 'finding', 'review', 'project'])[1 + floor(pg_temp.even(i, 23) * 5)::int],
       1 + floor(pg_temp.even(i, 24) * analyses)::bigint,
       inet '10.0.0.0' + floor(pg_temp.even(i, 25) * 65536)::bigint,
       jsonb_build_object('via', CASE WHEN pg_temp.even(i, 26) < 0.7 THEN 'web' ELSE 'api' END,
                          'request', left(md5('request:' || i), 12)),
       pg_temp.at(i, audit_log)
FROM size, generate_series(1, audit_log) AS i;

INSERT INTO projects.projects (id, owner_id, slug, name, visibility, archived, settings, created_at)
SELECT i,
       pg_temp.ident('usr', pg_temp.sloped(i, 27, users)),
       initcap(first) || '-' || last || '-' || i,
       initcap(first) || ' ' || initcap(last),
       CASE WHEN pg_temp.even(i, 30) < 0.8 THEN 'private'
            WHEN pg_temp.even(i, 30) < 0.92 THEN 'internal' ELSE 'public' END,
       i > 3 AND pg_temp.even(i, 31) < 0.1,
       jsonb_build_object(
           'review', jsonb_build_object('required', 1 + floor(pg_temp.even(i, 32) * 3)::int,
                                        'auto_assign', pg_temp.even(i, 33) < 0.5),
           'model', CASE WHEN pg_temp.even(i, 34) < 0.6 THEN 'reviewer-large' ELSE 'reviewer-small' END),
       timestamptz '2025-12-31 00:00:00+00' - interval '1 hour' * floor(pg_temp.even(i, 35) * 17520)
FROM size,
     generate_series(1, projects) AS i,
     LATERAL (SELECT (ARRAY['blue', 'calm', 'dark', 'fast', 'green', 'iron', 'north', 'quiet', 'red',
                            'solar'])
                     [1 + floor(pg_temp.even(i, 28) * 10)::int] AS first,
                     (ARRAY['api', 'billing', 'console', 'engine', 'gateway', 'mobile', 'payments',
                            'search', 'shop', 'worker'])
                     [1 + floor(pg_temp.even(i, 29) * 10)::int] AS last) AS words;

INSERT INTO projects.repositories
    (id, project_id, provider, full_name, default_branch, language, archived, last_synced_at, created_at)
SELECT i,
       pg_temp.sloped(i, 36, projects),
       CASE WHEN pg_temp.even(i, 37) < 0.7 THEN 'github'
            WHEN pg_temp.even(i, 37) < 0.93 THEN 'gitlab' ELSE 'bitbucket' END,
       'org-' || pg_temp.sloped(i, 36, projects) || '/repo-' || i,
       CASE WHEN pg_temp.even(i, 38) < 0.8 THEN 'main' ELSE 'master' END,
       (ARRAY['Python', 'Python', 'TypeScript', 'TypeScript', 'Go', 'Java', 'Rust', 'C++'])
           [1 + floor(pg_temp.even(i, 39) * 8)::int],
       i > 3 AND pg_temp.even(i, 40) < 0.15,
       CASE WHEN i > 1 AND pg_temp.even(i, 41) < 0.99
            THEN pg_temp.at(repositories - floor(pg_temp.sloped(i, 42, repositories) / 20)::bigint, repositories) END,
       timestamptz '2025-12-31 00:00:00+00' - interval '1 hour' * floor(pg_temp.even(i, 43) * 17520)
FROM size, generate_series(1, repositories) AS i;

-- A user may be drawn twice for one project; the grouping keeps the first.
INSERT INTO projects.members (project_id, user_id, role, joined_at)
SELECT project, pg_temp.ident('usr', member),
       CASE WHEN pg_temp.even(i, 46) < 0.05 THEN 'owner' WHEN pg_temp.even(i, 46) < 0.2 THEN 'maintainer'
            WHEN pg_temp.even(i, 46) < 0.85 THEN 'developer' ELSE 'viewer' END,
       pg_temp.at(i, n)
FROM (
    SELECT pg_temp.sloped(j, 44, projects) AS project, pg_temp.sloped(j, 45, users) AS member,
           min(j) AS i, max(members) AS n
    FROM size, generate_series(1, members) AS j
    GROUP BY 1, 2
) AS drawn
ORDER BY i;

-- Nine of ten open ones are among the newest tenth; a few stay open for ever, the very first among them.
INSERT INTO projects.pull_requests (id, repository_id, number, author_id, title, state, head_sha, opened_at, updated_at)
SELECT i,
       repository,
       row_number() OVER (PARTITION BY repository ORDER BY i),
       pg_temp.ident('usr', pg_temp.skewed(i, 48, users)),
       (ARRAY['Fix', 'Add', 'Remove', 'Refactor', 'Speed up', 'Document'])
           [1 + floor(pg_temp.even(i, 49) * 6)::int] || ' '
           || (ARRAY['login flow', 'retry logic', 'cache keys', 'pagination', 'webhook parsing', 'test fixtures',
                     'error pages'])
              [1 + floor(pg_temp.even(i, 50) * 7)::int],
       CASE WHEN i = 1 OR pg_temp.even(i, 51) < CASE WHEN i > n - n / 10 THEN 0.55 ELSE 0.006 END THEN 'open'
            WHEN pg_temp.even(i, 52) < 0.88 THEN 'merged' ELSE 'closed' END,
       pg_temp.sha(i),
       pg_temp.at(i, n),
       pg_temp.at(i, n) + interval '1 minute' * floor(pg_temp.even(i, 53) * 2880)
FROM (
    SELECT i, pg_temp.skewed(i, 47, repositories) AS repository, pull_requests AS n, users
    FROM size, generate_series(1, pull_requests) AS i
) AS drawn
ORDER BY i;

-- What is queued or running is among the newest 2 %, but for the first row: the one that got stuck.
-- Row 2 has failed and row 3 was started by hand in the rarest region, so that such rows exist at any scale.
INSERT INTO production.analysis_sessions
    (seq, id, user_id, project_id, pull_request_id, status, duration_ms, tokens_used, error, metadata, created_at,
     finished_at)
SELECT i,
       pg_temp.ident('as', i),
       -- Four of five analyses are started by the author of the pull request.
       CASE WHEN i <= 3 THEN pg_temp.ident('usr', 1)
            WHEN pg_temp.even(i, 56) < 0.8 THEN pr.author_id
            ELSE pg_temp.ident('usr', pg_temp.skewed(i, 57, users)) END,
       repository.project_id,
       pr.id,
       status,
       CASE WHEN ended THEN ms END,
       CASE WHEN ended THEN 500 + floor(pg_temp.even(i, 58) * pg_temp.even(i, 59) * 60000)::int END,
       CASE WHEN status = 'failed' THEN (ARRAY['model timeout', 'clone failed', 'diff too large', 'rate limited'])
                                        [1 + floor(pg_temp.even(i, 60) * 4)::int] END,
       jsonb_build_object(
           'git', jsonb_build_object(
               'commit', pr.head_sha,
               'branch', (ARRAY['feature/', 'fix/', 'release/'])[1 + floor(pg_temp.even(pr.id, 61) * 3)::int] || pr.number),
           'pipeline', jsonb_build_object(
               'trigger', CASE WHEN i = 3 OR pg_temp.even(i, 62) < 0.02 THEN 'manual'
                               WHEN pg_temp.even(i, 62) < 0.1 THEN 'schedule'
                               WHEN pg_temp.even(i, 62) < 0.4 THEN 'push' ELSE 'pull_request' END,
               'runner', jsonb_build_object(
                   'region', CASE WHEN i = 3 OR pg_temp.even(i, 63) < 0.03 THEN 'ap-south-1'
                                  WHEN pg_temp.even(i, 63) < 0.3 THEN 'us-east-1' ELSE 'eu-central-1' END,
                   'cpus', (ARRAY[2, 4, 4, 8])[1 + floor(pg_temp.even(i, 64) * 4)::int])),
           'labels', CASE WHEN pg_temp.even(i, 65) < 0.1 THEN '["security", "backend"]'::jsonb
                          WHEN pg_temp.even(i, 65) < 0.5 THEN '["backend"]'::jsonb ELSE '[]'::jsonb END,
           'diff', jsonb_build_object('files', 1 + floor(pg_temp.even(i, 66) * pg_temp.even(i, 67) * 60)::int,
                                      'lines', 1 + floor(pg_temp.even(i, 68) * pg_temp.even(i, 69) * 2000)::int)),
       pg_temp.at(i, n),
       CASE WHEN ended THEN pg_temp.at(i, n) + interval '1 millisecond' * ms END
FROM (
    SELECT i, n, users, pull_request,
           2000 + floor(pg_temp.even(i, 70) * pg_temp.even(i, 71) * 180000)::int AS ms,
           status, status NOT IN ('queued', 'running') AS ended
    FROM (
        SELECT i, analyses AS n, users,
               CASE WHEN i <= 3 THEN 1
                    ELSE greatest(1, pg_temp.along(i, analyses, pull_requests)
                                     - floor(pg_temp.even(i, 54) * pg_temp.even(i, 55) * 400)::bigint) END AS pull_request,
               CASE WHEN i = 1 THEN 'running'
                    WHEN i = 2 THEN 'failed'
                    WHEN i > analyses - analyses / 50 AND pg_temp.even(i, 72) < 0.25 THEN 'queued'
                    WHEN i > analyses - analyses / 50 AND pg_temp.even(i, 72) < 0.4 THEN 'running'
                    WHEN pg_temp.even(i, 73) < 0.06 THEN 'failed'
                    WHEN pg_temp.even(i, 73) < 0.085 THEN 'cancelled'
                    ELSE 'completed' END AS status
        FROM size, generate_series(1, analyses) AS i
    ) AS numbered
) AS drawn
JOIN projects.pull_requests AS pr ON pr.id = pull_request
JOIN projects.repositories AS repository ON repository.id = pr.repository_id
ORDER BY i;

-- Most analyses find little, some find much; one that stays for an example of much is row 4. The fingerprint is that of
-- the place in the pull request: the next analysis of the same pull request finds the same thing again.
INSERT INTO production.findings
    (id, analysis_id, project_id, rule, severity, state, file_path, line, fingerprint, details, created_at)
SELECT i,
       analysis_id,
       project_id,
       (ARRAY['sql-injection', 'unused-import', 'long-function', 'missing-test', 'naming', 'null-check',
              'race-condition', 'n-plus-one'])[rule],
       CASE WHEN i = 1 OR pg_temp.even(i, 76) < 0.02 THEN 5 WHEN pg_temp.even(i, 76) < 0.08 THEN 4
            WHEN pg_temp.even(i, 76) < 0.3 THEN 3 WHEN pg_temp.even(i, 76) < 0.7 THEN 2 ELSE 1 END,
       CASE WHEN i = 1 OR pg_temp.even(i, 77) < 0.25 THEN 'open' WHEN pg_temp.even(i, 77) < 0.85 THEN 'fixed'
            ELSE 'ignored' END,
       (ARRAY['src/api/', 'src/auth/', 'src/db/', 'src/jobs/', 'web/', 'tests/'])
           [1 + floor(pg_temp.even(place, 78) * 6)::int]
           || left(md5('file:' || place), 8) || '.py',
       1 + floor(pg_temp.even(place, 79) * 900)::int,
       md5('finding:' || place) || md5('rule:' || place),
       CASE WHEN i = 1 OR pg_temp.even(i, 80) < 0.003
            THEN jsonb_build_object('tool', 'scanner',
                                    'cve', jsonb_build_object('id', 'CVE-2025-' || 1000 + i % 9000, 'score', 7 + i % 3))
            ELSE jsonb_build_object('tool', CASE WHEN pg_temp.even(i, 81) < 0.8 THEN 'model' ELSE 'linter' END,
                                    'confidence', floor(pg_temp.even(i, 82) * 100)::int,
                                    'fix', jsonb_build_object('offered', pg_temp.even(i, 83) < 0.4)) END,
       created_at
FROM (
    SELECT row_number() OVER (ORDER BY seq, k) AS i, id AS analysis_id, project_id, created_at,
           1 + floor(pg_temp.even(pull_request_id * 100 + k, 75) * 8)::int AS rule,
           pull_request_id * 100 + k AS place
    FROM production.analysis_sessions,
         LATERAL (SELECT pg_temp.even(seq, 74) AS u) AS drawn,
         LATERAL generate_series(1, CASE WHEN seq <= 3 THEN 3 WHEN seq = 4 THEN 40 ELSE floor(u * u * u * 6.5)::int END) AS k
) AS found
ORDER BY i;

INSERT INTO production.reviews (id, pull_request_id, reviewer_id, verdict, summary, requested_at, submitted_at)
SELECT i,
       pull_request,
       pg_temp.ident('usr', pg_temp.skewed(i, 85, users)),
       CASE WHEN done THEN (ARRAY['approved', 'approved', 'approved', 'changes_requested', 'commented'])
                           [1 + floor(pg_temp.even(i, 86) * 5)::int] END,
       CASE WHEN done THEN 'Looked at ' || 1 + floor(pg_temp.even(i, 87) * 30)::int || ' files.' END,
       pg_temp.at(i, n),
       CASE WHEN done THEN pg_temp.at(i, n) + interval '1 minute' * floor(pg_temp.even(i, 88) * 2880) END
FROM (
    SELECT i, reviews AS n, users,
           CASE WHEN i <= 3 THEN 1
                ELSE greatest(1, pg_temp.along(i, reviews, pull_requests)
                                 - floor(pg_temp.even(i, 84) * 200)::bigint) END AS pull_request,
           i > 1 AND pg_temp.even(i, 89) >= CASE WHEN i > reviews - reviews / 10 THEN 0.5 ELSE 0.02 END AS done
    FROM size, generate_series(1, reviews) AS i
) AS drawn;

INSERT INTO production.comments (id, review_id, author_id, body, file_path, line, resolved, created_at)
SELECT i,
       CASE WHEN i <= 3 THEN 1
            ELSE greatest(1, pg_temp.along(i, comments, reviews)
                             - floor(pg_temp.even(i, 90) * pg_temp.even(i, 91) * 300)::bigint) END,
       pg_temp.ident('usr', pg_temp.skewed(i, 92, users)),
       (ARRAY['Please split this function.', 'Could this be null here?', 'A test would help.', 'Nice.',
              'This query runs once a row.', 'The name says something else than the code does.'])
           [1 + floor(pg_temp.even(i, 93) * 6)::int] || ' (' || left(md5('note:' || i), 6) || ')',
       CASE WHEN pg_temp.even(i, 94) < 0.8
            THEN 'src/' || left(md5('path:' || floor(pg_temp.even(i, 95) * 5000)::int), 8) || '.py' END,
       CASE WHEN pg_temp.even(i, 94) < 0.8 THEN 1 + floor(pg_temp.even(i, 96) * 900)::int END,
       pg_temp.even(i, 97) < 0.7,
       pg_temp.at(i, comments)
FROM size, generate_series(1, comments) AS i;

-- Two runs for each analysis that has any: the first pass and the check of its answer.
INSERT INTO production.model_runs
    (id, analysis_id, model, outcome, prompt_tokens, completion_tokens, latency_ms, cost_usd, started_at)
SELECT i,
       pg_temp.ident('as', pg_temp.along(i - (i - 1) % 2, model_runs, analyses)),
       CASE WHEN pg_temp.even(i, 98) < 0.55 THEN 'reviewer-large'
            WHEN pg_temp.even(i, 98) < 0.9 THEN 'reviewer-small'
            WHEN pg_temp.even(i, 98) < 0.98 THEN 'reviewer-code' ELSE 'reviewer-next' END,
       CASE WHEN pg_temp.even(i, 99) < 0.95 THEN 'ok' WHEN pg_temp.even(i, 99) < 0.98 THEN 'timeout'
            WHEN pg_temp.even(i, 99) < 0.99 THEN 'refused' ELSE 'error' END,
       prompt,
       completion,
       300 + completion * 12 + floor(pg_temp.even(i, 102) * 900)::int,
       (prompt * 3 + completion * 15)::numeric / 1000000,
       pg_temp.at(i, model_runs)
FROM size,
     generate_series(1, model_runs) AS i,
     LATERAL (SELECT 400 + floor(pg_temp.even(i, 100) * pg_temp.even(i, 100) * 30000)::int AS prompt,
                     20 + floor(pg_temp.even(i, 101) * pg_temp.even(i, 101) * 2000)::int AS completion) AS tokens;

-- The newest 1 % (20 rows or more) are pending or running. Those rows are numbered from the end, so that the live jobs
-- carry the same keys at any scale; a key comes back only a quarter of the table later, when its earlier job has ended.
INSERT INTO production.jobs
    (id, queue, status, priority, dedupe_key, payload, attempts, worker, last_error, created_at, run_at, finished_at)
SELECT i,
       queue,
       status,
       priority,
       pg_temp.ident('dk', back % (n / 4)),
       jsonb_build_object(
           'kind', queue,
           'target', jsonb_build_object('type', 'analysis', 'id', pg_temp.ident('as', pg_temp.along(i, n, analyses)))),
       CASE status WHEN 'pending' THEN 0 WHEN 'failed' THEN 3 ELSE 1 END,
       CASE WHEN status IN ('running', 'done', 'failed') THEN 'worker-' || 1 + floor(pg_temp.even(i, 103) * 12)::int END,
       CASE WHEN status = 'failed' THEN (ARRAY['timeout', 'connection reset', 'quota exceeded'])
                                        [1 + floor(pg_temp.even(i, 104) * 3)::int] END,
       pg_temp.at(i, n),
       pg_temp.at(i, n) + interval '1 second' * floor(pg_temp.even(i, 105) * 60),
       CASE WHEN status IN ('done', 'failed', 'cancelled')
            THEN pg_temp.at(i, n) + interval '1 second' * (60 + floor(pg_temp.even(i, 106) * 300)) END
FROM (
    SELECT i, back, jobs AS n, analyses,
           CASE WHEN i <= 3 OR pg_temp.even(back, 107) < 0.6 THEN 'analysis'
                WHEN pg_temp.even(back, 107) < 0.85 THEN 'notify'
                WHEN pg_temp.even(back, 107) < 0.97 THEN 'sync' ELSE 'export' END AS queue,
           CASE WHEN pg_temp.even(back, 108) < 0.9 THEN 0 WHEN pg_temp.even(back, 108) < 0.98 THEN 5 ELSE 9 END AS priority,
           CASE WHEN i = 1 THEN 'failed'
                WHEN back < greatest(jobs / 100, 20) AND back % 8 <> 7 THEN 'pending'
                WHEN back < greatest(jobs / 100, 20) THEN 'running'
                WHEN pg_temp.even(i, 109) < 0.02 THEN 'failed'
                WHEN pg_temp.even(i, 109) < 0.025 THEN 'cancelled'
                ELSE 'done' END AS status
    FROM size, generate_series(1, jobs) AS i, LATERAL (SELECT jobs - i AS back) AS counted
) AS drawn;

-- The rows above brought their own numbers; the application's next ones follow.
SELECT setval(pg_get_serial_sequence('auth.sessions', 'id'), (SELECT max(id) FROM auth.sessions)),
       setval(pg_get_serial_sequence('auth.api_keys', 'id'), (SELECT max(id) FROM auth.api_keys)),
       setval(pg_get_serial_sequence('auth.audit_log', 'id'), (SELECT max(id) FROM auth.audit_log)),
       setval(pg_get_serial_sequence('projects.projects', 'id'), (SELECT max(id) FROM projects.projects)),
       setval(pg_get_serial_sequence('projects.repositories', 'id'), (SELECT max(id) FROM projects.repositories)),
       setval(pg_get_serial_sequence('projects.pull_requests', 'id'), (SELECT max(id) FROM projects.pull_requests)),
       setval(pg_get_serial_sequence('production.analysis_sessions', 'seq'), (SELECT max(seq) FROM production.analysis_sessions)),
       setval(pg_get_serial_sequence('production.findings', 'id'), (SELECT max(id) FROM production.findings)),
       setval(pg_get_serial_sequence('production.reviews', 'id'), (SELECT max(id) FROM production.reviews)),
       setval(pg_get_serial_sequence('production.comments', 'id'), (SELECT max(id) FROM production.comments)),
       setval(pg_get_serial_sequence('production.model_runs', 'id'), (SELECT max(id) FROM production.model_runs)),
       setval(pg_get_serial_sequence('production.jobs', 'id'), (SELECT max(id) FROM production.jobs));

DROP TABLE pg_temp.size;
DROP FUNCTION pg_temp.even(bigint, bigint), pg_temp.skewed(bigint, bigint, bigint),
              pg_temp.sloped(bigint, bigint, bigint), pg_temp.along(bigint, bigint, bigint),
              pg_temp.at(bigint, bigint), pg_temp.ident(text, bigint), pg_temp.sha(bigint);

-- Table by table: a bare ANALYZE warns about the catalogues that only a superuser may analyse.
ANALYZE auth.users, auth.sessions, auth.api_keys, auth.audit_log,
        projects.projects, projects.repositories, projects.members, projects.pull_requests,
        production.analysis_sessions, production.findings, production.reviews, production.comments,
        production.model_runs, production.jobs;
