"""Connections to the servers that perfctl looks at and changes."""
