-- name: analyses_of_project_by_status
-- A project's newest analyses in one status, for its dashboard.
-- param: project_id bigint = '1'
-- param: status text = 'failed'
-- index: idx_analysis_sessions_project_status_created
SELECT id, user_id, error, duration_ms, created_at
FROM production.analysis_sessions
WHERE project_id = :project_id
  AND status = :status
ORDER BY created_at DESC
LIMIT 20;
