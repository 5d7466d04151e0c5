-- name: user_by_email
-- Login: a user by the address, whatever the case it was typed in.
-- param: email text = 'liam.hughes1@mail.example.org'
-- index: idx_users_email
SELECT id, display_name, plan, is_active
FROM auth.users
WHERE lower(email) = lower(:email);
