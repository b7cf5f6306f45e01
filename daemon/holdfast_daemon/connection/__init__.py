"""Connections: one login per host shared by everybody, and the channels on it."""

from __future__ import annotations
