-- name: analysis_by_id
-- Open one analysis from its public identifier, as every link to a result does.
-- param: id text = 'as_07c740102c9122421ae3'
-- index: idx_analysis_sessions_id
SELECT id, user_id, project_id, status, duration_ms, tokens_used, metadata, created_at, finished_at
FROM production.analysis_sessions
WHERE id = :id;
