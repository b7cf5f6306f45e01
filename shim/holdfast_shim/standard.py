"""What somebody took from us before we began: standard streams, a home directory."""

from __future__ import annotations

import os
import sys
from typing import Any


def know_home() -> None:
    """Take an empty HOME for none: the account's counts, and not `/`."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)


def stand_in(first: int = 0) -> None:
    """Put /dev/null in place of what is closed from `first` on, as ssh does.

    What is opened next would else get its number, and a socket be taken for stdout.
    """
    for number, name in tuple(enumerate(("stdin", "stdout", "stderr")))[first:]:
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        # Python's own is None then, whatever its stub says.
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
