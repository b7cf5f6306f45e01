"""The holdfast daemon: keeps SSH connections, shells, jobs and forwards."""
