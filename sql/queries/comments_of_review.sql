-- name: comments_of_review
-- The thread of a review, in order of time.
-- param: review_id bigint = '1'
-- index: idx_comments_review_created
SELECT id, author_id, body, file_path, line, resolved, created_at
FROM production.comments
WHERE review_id = :review_id
ORDER BY created_at;
