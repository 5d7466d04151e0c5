-- name: projects_of_user
-- The projects a user belongs to and the role held in each: read on every request, from the index alone.
-- param: user_id text = 'usr_b3ad30e05373275959b2'
-- index: idx_members_user_project
SELECT project_id, role
FROM projects.members
WHERE user_id = :user_id
ORDER BY project_id;
