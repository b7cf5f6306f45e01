"""Sessions: shells that are kept, with their state, and used in turn."""
