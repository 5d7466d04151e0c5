-- The standbys that follow this server. Takes: nothing. Needs: pg_monitor to see their state and lag.
SELECT
    r.application_name AS application,
    r.client_addr::text AS address,
    r.state,
    extract(epoch FROM r.replay_lag)::float8 AS replay_lag_s
FROM pg_catalog.pg_stat_replication AS r
