-- name: findings_by_fingerprint
-- Where the same finding was met before.
-- param: fingerprint text = '4cf9bc8d8453efedc8f038b954301657a0f46df6d52fdcb0e7a3d4ab59aae02a'
-- index: idx_findings_fingerprint
SELECT id, analysis_id, state, created_at
FROM production.findings
WHERE fingerprint = :fingerprint;
