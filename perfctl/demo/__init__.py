"""The reference system on throw-away servers: the whole way there and back, timed, or left standing to play with."""
