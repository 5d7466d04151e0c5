"""What a Redis or Valkey holds for an application."""
