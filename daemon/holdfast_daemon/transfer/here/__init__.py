"""This machine's side of a copy. Blocks."""
