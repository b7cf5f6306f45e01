"""Which contract this is; written by proto/generate.py."""

from __future__ import annotations

HASH = "57c2b25b4f14380b"
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
