"""Forwards: ports and sockets carried through a host's connection."""
