"""The version told to MCP clients; a constant, as package metadata costs 10 ms."""

from __future__ import annotations

VERSION = "0.1.0"
