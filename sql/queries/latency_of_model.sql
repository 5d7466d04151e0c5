-- name: latency_of_model
-- A model's latency and cost over a span of time, for the operations dashboard, from the index alone.
-- param: model text = 'reviewer-large'
-- param: since timestamptz = '2026-02-10 00:00:00+00'
-- param: until timestamptz = '2026-02-13 00:00:00+00'
-- index: idx_model_runs_model_started
SELECT count(*) AS runs, avg(latency_ms) AS mean_latency_ms, max(latency_ms) AS max_latency_ms, sum(cost_usd) AS cost_usd
FROM production.model_runs
WHERE model = :model
  AND started_at >= :since
  AND started_at < :until;
