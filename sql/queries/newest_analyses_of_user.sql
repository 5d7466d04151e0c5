-- name: newest_analyses_of_user
-- The first page of a user's history: the newest 50 analyses.
-- param: user_id text = 'usr_b3ad30e05373275959b2'
-- index: idx_analysis_sessions_user_created
SELECT id, project_id, status, duration_ms, created_at
FROM production.analysis_sessions
WHERE user_id = :user_id
ORDER BY created_at DESC
LIMIT 50;
