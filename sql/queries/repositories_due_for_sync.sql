-- name: repositories_due_for_sync
-- The repositories to fetch next: those never fetched, then those fetched longest ago.
-- index: idx_repositories_sync_due
SELECT id, provider, full_name, last_synced_at
FROM projects.repositories
WHERE NOT archived
ORDER BY last_synced_at NULLS FIRST
LIMIT 50;
