-- Undoes 003_performance_indexes.sql, the newest index first.
--
-- CONCURRENTLY: waits for the queries that still use an index instead of blocking the ones that come after them; so no
-- statement may run inside a transaction block.

DROP INDEX CONCURRENTLY IF EXISTS auth.idx_audit_log_created_brin;
DROP INDEX CONCURRENTLY IF EXISTS auth.idx_audit_log_actor_created;
DROP INDEX CONCURRENTLY IF EXISTS auth.idx_api_keys_live_user;
DROP INDEX CONCURRENTLY IF EXISTS auth.idx_sessions_live_token;
DROP INDEX CONCURRENTLY IF EXISTS auth.idx_users_email;
DROP INDEX CONCURRENTLY IF EXISTS projects.idx_pull_requests_open;
DROP INDEX CONCURRENTLY IF EXISTS projects.idx_members_user_project;
DROP INDEX CONCURRENTLY IF EXISTS projects.idx_repositories_sync_due;
DROP INDEX CONCURRENTLY IF EXISTS projects.idx_projects_owner_slug;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_jobs_failed;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_jobs_live_key;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_jobs_pending;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_model_runs_model_started;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_model_runs_analysis;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_comments_review_created;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_reviews_pull_request_submitted;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_reviews_awaiting_reviewer;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_findings_fingerprint;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_findings_details;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_findings_open_severe;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_findings_analysis_severity;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_analysis_sessions_commit;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_analysis_sessions_metadata;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_analysis_sessions_unfinished;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_analysis_sessions_project_status_created;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_analysis_sessions_user_created;
DROP INDEX CONCURRENTLY IF EXISTS production.idx_analysis_sessions_id;
