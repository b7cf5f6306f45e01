"""Directories made alike, by rsync or without it."""
