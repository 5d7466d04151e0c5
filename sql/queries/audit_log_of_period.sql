-- name: audit_log_of_period
-- The audit report of one day.
-- param: since timestamptz = '2026-02-10 00:00:00+00'
-- param: until timestamptz = '2026-02-11 00:00:00+00'
-- index: idx_audit_log_created_brin
SELECT action, count(*) AS times
FROM auth.audit_log
WHERE created_at >= :since
  AND created_at < :until
GROUP BY action
ORDER BY action;
