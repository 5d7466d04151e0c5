-- name: reviews_of_pull_request
-- The reviews of a pull request, the newest first; those not yet submitted at the end.
-- param: pull_request_id bigint = '1'
-- index: idx_reviews_pull_request_submitted
SELECT id, reviewer_id, verdict, summary, requested_at, submitted_at
FROM production.reviews
WHERE pull_request_id = :pull_request_id
ORDER BY submitted_at DESC NULLS LAST;
