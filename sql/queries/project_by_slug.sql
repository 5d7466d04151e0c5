-- name: project_by_slug
-- A project by its owner and its address, whatever the case it was typed in.
-- param: owner_id text = 'usr_b3ad30e05373275959b2'
-- param: slug text = 'green-api-1'
-- index: idx_projects_owner_slug
SELECT id, name, visibility, settings
FROM projects.projects
WHERE owner_id = :owner_id
  AND lower(slug) = lower(:slug);
