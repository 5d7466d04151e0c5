-- name: pending_jobs
-- What a worker takes next from its queue.
-- param: queue text = 'analysis'
-- index: idx_jobs_pending
SELECT id, payload, priority, run_at
FROM production.jobs
WHERE queue = :queue
  AND status = 'pending'
ORDER BY priority DESC, run_at
LIMIT 20;
