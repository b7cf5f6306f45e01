"""Evidence: a hash-chained record of what was asked and what came of it."""
