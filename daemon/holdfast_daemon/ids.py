"""Handles: short, unguessable, minted by the daemon only."""

from __future__ import annotations

import secrets
from typing import NewType

JobId = NewType("JobId", str)
SessionId = NewType("SessionId", str)
ForwardId = NewType("ForwardId", str)
CallId = NewType("CallId", str)

# Crockford's base 32 in lower case: no i, l, o, u, so an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def mint(prefix: str, length: int = 8) -> str:
    """Return `prefix` and `length` random characters, 5 bits each."""
    # 256 is a multiple of 32, so every character is equally likely.
    return prefix + "".join(_ALPHABET[b & 31] for b in secrets.token_bytes(length))


def job_id() -> JobId:
    """Return a new job's id: 40 random bits, valid only for the daemon's own user."""
    return JobId(mint("j"))


def session_id() -> SessionId:
    """Return a new session's id: 40 random bits, valid only for the daemon's user."""
    return SessionId(mint("s"))


def forward_id() -> ForwardId:
    """Return a new forward's id: 40 random bits, valid only for the daemon's user."""
    return ForwardId(mint("f"))


def call_id() -> CallId:
    """Return a new call's id, which ties the two audit records of a call together."""
    return CallId(mint("c", 12))


def instance_id() -> str:
    """Return the id of this run of the daemon."""
    return mint("d", 16)
