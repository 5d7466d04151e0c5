"""Reads hot queries, from ``.sql`` files and from the configuration, into records; meets no server."""
