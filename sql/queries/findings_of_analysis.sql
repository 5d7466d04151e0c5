-- name: findings_of_analysis
-- The result page of an analysis: its findings, the worst first.
-- param: analysis_id text = 'as_55fed77e0b4cd8bcef02'
-- index: idx_findings_analysis_severity
SELECT id, rule, severity, state, file_path, line, details
FROM production.findings
WHERE analysis_id = :analysis_id
ORDER BY severity DESC;
