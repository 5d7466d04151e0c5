"""What goes wrong around perfctl, one test or more for each fault."""
