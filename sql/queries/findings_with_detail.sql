-- name: findings_with_detail
-- The newest findings whose details have a given key, such as the number of a known vulnerability.
-- param: key text = 'cve'
-- index: idx_findings_details
SELECT id, analysis_id, severity, details, created_at
FROM production.findings
WHERE details ? :key
ORDER BY created_at DESC
LIMIT 50;
