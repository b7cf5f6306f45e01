"""Reading files of keys, of which a call may name any: files only, and not endless."""

from __future__ import annotations

import os
import stat

from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.limits import MIB

# a hundred thousand hosts with three keys each
_MOST = 64 * MIB


def read(path: str) -> bytes:
    """Return what is in a file of keys. Blocks.

    A device or a pipe holds nothing: it might never end, and opening it might wait.

    Raises:
        DaemonError: It is larger than any such list.
        OSError: It can't be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return b""
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise StateError(
            Reason.BAD_CONFIGURATION,
            f"no host key can be trusted: {path} holds more than {_MOST // MIB} MiB,"
            " so it was not read; no credential was sent",
            hint="a person names the right file, or makes it shorter",
            metadata={"file": path},
        )
    return data
