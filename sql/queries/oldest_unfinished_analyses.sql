-- name: oldest_unfinished_analyses
-- The watchdog: what has been queued or running for longest.
-- index: idx_analysis_sessions_unfinished
SELECT id, user_id, status, created_at
FROM production.analysis_sessions
WHERE status IN ('queued', 'running')
ORDER BY created_at
LIMIT 20;
