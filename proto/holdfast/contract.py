"""Which contract this is; written by proto/generate.py."""

from __future__ import annotations

HASH = "bbe77b46341bf64a"
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
