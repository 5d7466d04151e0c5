-- 27 indexes for the hot queries of the reference system, over its three schemas.
--
-- CONCURRENTLY: nobody who reads or writes is blocked; so no statement may run inside a transaction block.
-- A build that failed leaves an invalid index, which IF NOT EXISTS then takes for a good one: look at pg_index.indisvalid
-- before trusting a second run. 003_performance_indexes_rollback.sql takes all of them off again.

-- production: the analyses and what surrounds them

-- serves queries/analysis_by_id.sql
-- Unique: a public identifier belongs to one analysis.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_analysis_sessions_id
    ON production.analysis_sessions (id);

-- serves queries/newest_analyses_of_user.sql
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_analysis_sessions_user_created
    ON production.analysis_sessions (user_id, created_at DESC);

-- serves queries/analyses_of_project_by_status.sql
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_analysis_sessions_project_status_created
    ON production.analysis_sessions (project_id, status, created_at DESC);

-- serves queries/oldest_unfinished_analyses.sql
-- Partial: the unfinished are under 1 % of the table, so that the index stays small and hot.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_analysis_sessions_unfinished
    ON production.analysis_sessions (created_at) WHERE status IN ('queued', 'running');

-- serves queries/analyses_by_metadata.sql
-- jsonb_path_ops: half the size of the default class, and containment is all that is asked.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_analysis_sessions_metadata
    ON production.analysis_sessions USING gin (metadata jsonb_path_ops);

-- serves queries/analyses_of_commit.sql
-- An expression: the commit lies inside the metadata.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_analysis_sessions_commit
    ON production.analysis_sessions ((metadata #>> '{git,commit}'));

-- serves queries/findings_of_analysis.sql
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_findings_analysis_severity
    ON production.findings (analysis_id, severity DESC);

-- serves queries/open_severe_findings_of_project.sql
-- Partial, by the very condition of the query.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_findings_open_severe
    ON production.findings (project_id, created_at DESC) WHERE state = 'open' AND severity >= 4;

-- serves queries/findings_with_detail.sql
-- The default class jsonb_ops: only that one knows the operator ?.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_findings_details
    ON production.findings USING gin (details);

-- serves queries/findings_by_fingerprint.sql
-- Hash: only equality is asked; half the size of a B-tree over these 64 characters.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_findings_fingerprint
    ON production.findings USING hash (fingerprint);

-- serves queries/reviews_awaiting_reviewer.sql
-- Partial: most reviews have been submitted.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_reviews_awaiting_reviewer
    ON production.reviews (reviewer_id, requested_at) WHERE submitted_at IS NULL;

-- serves queries/reviews_of_pull_request.sql
-- NULLS LAST as the query orders: with the default of DESC the index could not give that order.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_reviews_pull_request_submitted
    ON production.reviews (pull_request_id, submitted_at DESC NULLS LAST);

-- serves queries/comments_of_review.sql
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_comments_review_created
    ON production.comments (review_id, created_at);

-- serves queries/cost_of_analysis.sql
-- Covering: the sums need no visit to the table.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_model_runs_analysis
    ON production.model_runs (analysis_id) INCLUDE (cost_usd, prompt_tokens, completion_tokens);

-- serves queries/latency_of_model.sql
-- Covering: the aggregates need no visit to the table.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_model_runs_model_started
    ON production.model_runs (model, started_at DESC) INCLUDE (latency_ms, cost_usd);

-- serves queries/pending_jobs.sql
-- Partial: done jobs, nearly all, are not in it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_jobs_pending
    ON production.jobs (queue, priority DESC, run_at) WHERE status = 'pending';

-- serves queries/live_job_by_key.sql
-- Unique and partial: a key may come back once its earlier job has ended.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_jobs_live_key
    ON production.jobs (dedupe_key) WHERE status IN ('pending', 'running');

-- serves queries/failed_jobs_of_queue.sql
-- Partial: about one job in fifty fails.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_jobs_failed
    ON production.jobs (queue, finished_at DESC) WHERE status = 'failed';

-- projects: what is reviewed, and by whom

-- serves queries/project_by_slug.sql
-- Unique over an expression: two addresses that differ in case alone would be taken for one.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_projects_owner_slug
    ON projects.projects (owner_id, lower(slug));

-- serves queries/repositories_due_for_sync.sql
-- NULLS FIRST as the query orders: with the default the index could not give that order.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_repositories_sync_due
    ON projects.repositories (last_synced_at NULLS FIRST) WHERE NOT archived;

-- serves queries/projects_of_user.sql
-- Covering; the primary key leads with the project and cannot serve a search by user.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_members_user_project
    ON projects.members (user_id, project_id) INCLUDE (role);

-- serves queries/open_pull_requests_of_repository.sql
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_pull_requests_open
    ON projects.pull_requests (repository_id, updated_at DESC) WHERE state = 'open';

-- auth: who is asking

-- serves queries/user_by_email.sql
-- Unique over an expression: an address is one person's, whatever its case.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_users_email
    ON auth.users (lower(email));

-- serves queries/session_by_token.sql
-- Unique and partial: revoked sessions are never looked up.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_sessions_live_token
    ON auth.sessions (token_hash) WHERE revoked_at IS NULL;

-- serves queries/api_keys_of_user.sql
-- Partial; NULLS LAST puts the keys never used at the end.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_api_keys_live_user
    ON auth.api_keys (user_id, last_used_at DESC NULLS LAST) WHERE revoked_at IS NULL;

-- serves queries/audit_log_of_actor.sql
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_audit_log_actor_created
    ON auth.audit_log (actor_id, created_at DESC);

-- serves queries/audit_log_of_period.sql
-- BRIN: the rows lie on disk in order of time, so that a few pages of index do for millions of rows. The default range of
-- 128 pages is more than a day of the log; 16 pages fit the question.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_audit_log_created_brin
    ON auth.audit_log USING brin (created_at) WITH (pages_per_range = 16);
