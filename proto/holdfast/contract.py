"""Which contract this is; written by proto/generate.py."""

from __future__ import annotations

HASH = "550d1fe49b1678f8"
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
