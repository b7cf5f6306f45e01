"""Which contract this is; written by proto/generate.py."""

from __future__ import annotations

HASH = "4b9f1ce99f0b7966"
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
