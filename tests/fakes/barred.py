"""A user whom the modes of files hold back, also where the tests run as root."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_POWERS = "-dac_override,-dac_read_search"


def barred() -> list[str]:
    """Return what goes before a command that may not pass by modes."""
    if os.geteuid():
        return []
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("root passes by all modes, and there is no setpriv")
    return [program, f"--bounding-set={_POWERS}"]


def apart() -> list[str]:
    """Return what goes before a command that is to see no /run/user/UID."""
    if not Path(f"/run/user/{os.getuid()}").is_dir():
        return []
    hide = 'mount -t tmpfs tmpfs /run/user && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", hide, "sh"]


@contextlib.contextmanager
def closed(path: Path) -> Generator[None]:
    """Let nobody into a directory for a while."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)
