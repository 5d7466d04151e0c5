-- name: session_by_token
-- Who is asking? The live session of a token, on every request.
-- param: token_hash text = '0acf8c3d30085b55977b241d984721d2dee9a57f5eb6b22657a2579e34438768'
-- index: idx_sessions_live_token
SELECT id, user_id, expires_at
FROM auth.sessions
WHERE token_hash = :token_hash
  AND revoked_at IS NULL;
