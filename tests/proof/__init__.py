"""The proof that perfctl corrupts nothing: it is killed at random instants while writers are at work."""
