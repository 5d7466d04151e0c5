-- name: open_severe_findings_of_project
-- What a project must mend first: its newest open findings of severity 4 and 5.
-- param: project_id bigint = '1'
-- index: idx_findings_open_severe
SELECT id, analysis_id, rule, severity, file_path, line, created_at
FROM production.findings
WHERE project_id = :project_id
  AND state = 'open'
  AND severity >= 4
ORDER BY created_at DESC
LIMIT 50;
