-- name: live_job_by_key
-- Is this job already under way? Asked before each new one; the index also keeps a second one out.
-- param: dedupe_key text = 'dk_85192811d2678a790c86'
-- index: idx_jobs_live_key
SELECT id, status, created_at
FROM production.jobs
WHERE dedupe_key = :dedupe_key
  AND status IN ('pending', 'running');
