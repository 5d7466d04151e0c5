-- name: analyses_by_metadata
-- Search the analyses by any part of their metadata (JSONB containment).
-- param: filter jsonb = '{"pipeline": {"trigger": "manual", "runner": {"region": "ap-south-1"}}}'
-- index: idx_analysis_sessions_metadata
SELECT id, user_id, status, metadata, created_at
FROM production.analysis_sessions
WHERE metadata @> :filter
ORDER BY created_at DESC
LIMIT 100;
