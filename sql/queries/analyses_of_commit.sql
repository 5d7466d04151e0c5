-- name: analyses_of_commit
-- The status shown beside a commit: the analyses made for it.
-- param: commit text = 'c9341aad620966326538f7e760b74abcaa482814'
-- index: idx_analysis_sessions_commit
SELECT id, status, created_at
FROM production.analysis_sessions
WHERE metadata #>> '{git,commit}' = :commit
ORDER BY created_at DESC;
