"""Which contract this is; written by proto/generate.py."""

from __future__ import annotations

HASH = "ab4e8c1cc3d7cebe"
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
