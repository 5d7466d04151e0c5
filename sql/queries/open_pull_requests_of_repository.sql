-- name: open_pull_requests_of_repository
-- The open pull requests of a repository, the last touched first.
-- param: repository_id bigint = '1'
-- index: idx_pull_requests_open
SELECT id, number, title, author_id, updated_at
FROM projects.pull_requests
WHERE repository_id = :repository_id
  AND state = 'open'
ORDER BY updated_at DESC
LIMIT 50;
