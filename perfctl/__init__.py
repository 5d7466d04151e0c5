"""perfctl tunes PostgreSQL and the Redis or Valkey in front of it."""

__version__ = "0.1.0"
