-- name: reviews_awaiting_reviewer
-- A reviewer's in-tray, the longest waiting first.
-- param: reviewer_id text = 'usr_b3ad30e05373275959b2'
-- index: idx_reviews_awaiting_reviewer
SELECT id, pull_request_id, requested_at
FROM production.reviews
WHERE reviewer_id = :reviewer_id
  AND submitted_at IS NULL
ORDER BY requested_at
LIMIT 50;
