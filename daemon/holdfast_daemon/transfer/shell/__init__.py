"""Copies by a host's POSIX shell."""
