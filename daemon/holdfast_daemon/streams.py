"""The two output streams of a command, as SSH numbers them."""

from __future__ import annotations

from enum import IntEnum


class Stream(IntEnum):
    """Which stream output came on. With a terminal everything is `OUT`."""

    OUT = 1
    ERR = 2
