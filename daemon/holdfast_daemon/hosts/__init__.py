"""Which hosts there are, how each is reached, and whether its key is the right one."""

from __future__ import annotations
