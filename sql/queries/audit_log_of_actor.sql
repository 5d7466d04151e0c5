-- name: audit_log_of_actor
-- What one actor did last.
-- param: actor_id text = 'usr_b3ad30e05373275959b2'
-- index: idx_audit_log_actor_created
SELECT id, action, object_type, object_id, details, created_at
FROM auth.audit_log
WHERE actor_id = :actor_id
ORDER BY created_at DESC
LIMIT 100;
