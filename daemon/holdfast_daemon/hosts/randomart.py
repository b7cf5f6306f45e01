"""A key's picture, as `ssh-keygen -lv` draws it: easier to compare than characters.

The walk is that of «The drunken bishop» (Loss, Limmer, von Gernler, 2009). Pure.
"""

from __future__ import annotations

import hashlib

from holdfast_daemon.hosts.public_key import bits, short_type

_WIDTH, _HEIGHT = 17, 9
_COINS = " .o+=*BOX@%&#/^SE"
_START, _END = len(_COINS) - 2, len(_COINS) - 1


def randomart(blob: bytes) -> str:
    """Return the picture of a public key, eleven lines."""
    field = _walk(hashlib.sha256(blob).digest())
    rows = ["|" + "".join(_COINS[coin] for coin in row) + "|" for row in field]
    title = f"[{short_type(blob)} {bits(blob)}]"
    if len(title) > _WIDTH:
        title = f"[{short_type(blob)}]"
    return "\n".join([_edge(title), *rows, _edge("[SHA256]")])


def _walk(digest: bytes) -> list[list[int]]:
    field = [[0] * _WIDTH for _ in range(_HEIGHT)]
    x, y = _WIDTH // 2, _HEIGHT // 2
    for byte in digest:
        for shift in range(0, 8, 2):
            step = byte >> shift
            x = min(max(x + (1 if step & 1 else -1), 0), _WIDTH - 1)
            y = min(max(y + (1 if step & 2 else -1), 0), _HEIGHT - 1)
            field[y][x] = min(field[y][x] + 1, _START - 1)
    field[_HEIGHT // 2][_WIDTH // 2] = _START
    field[y][x] = _END
    return field


def _edge(title: str) -> str:
    before = (_WIDTH - len(title)) // 2
    return "+" + ("-" * before + title).ljust(_WIDTH, "-") + "+"
