"""Standard input, output and error that somebody closed before we began."""

from __future__ import annotations

import os
import sys
from typing import Any


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
