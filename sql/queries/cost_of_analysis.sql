-- name: cost_of_analysis
-- What an analysis has cost, from the index alone.
-- param: analysis_id text = 'as_07c740102c9122421ae3'
-- index: idx_model_runs_analysis
SELECT count(*) AS runs, sum(cost_usd) AS cost_usd, sum(prompt_tokens + completion_tokens) AS tokens
FROM production.model_runs
WHERE analysis_id = :analysis_id;
