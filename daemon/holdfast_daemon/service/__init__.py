"""Service managers: their protocols, and nothing of the daemon."""
