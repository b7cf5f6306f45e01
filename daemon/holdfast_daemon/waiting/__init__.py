"""Waiting for the first of several things: jobs, sessions, forwards, hosts, ports."""
