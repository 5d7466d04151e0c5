-- name: api_keys_of_user
-- The settings page: a user's live keys, the last used first.
-- param: user_id text = 'usr_b3ad30e05373275959b2'
-- index: idx_api_keys_live_user
SELECT id, label, scopes, created_at, last_used_at
FROM auth.api_keys
WHERE user_id = :user_id
  AND revoked_at IS NULL
ORDER BY last_used_at DESC NULLS LAST;
