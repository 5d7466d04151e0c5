"""Plans of hot queries, held to declared rules."""
