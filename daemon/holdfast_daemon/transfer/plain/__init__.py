"""Copies over SFTP alone, for hosts without a POSIX shell."""
