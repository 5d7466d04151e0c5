-- name: failed_jobs_of_queue
-- The newest failures of a queue, for whoever is on call.
-- param: queue text = 'analysis'
-- index: idx_jobs_failed
SELECT id, attempts, worker, last_error, finished_at
FROM production.jobs
WHERE queue = :queue
  AND status = 'failed'
ORDER BY finished_at DESC
LIMIT 50;
