"""Where on this machine a copy goes. Blocks: it belongs in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import NotFoundError, Reason
from holdfast_daemon.transfer.means.errand import local

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.transfer.means.errand import CopyRequest
    from holdfast_daemon.transfer.means.roots import Roots


def target_of(request: CopyRequest, roots: Roots) -> tuple[Path, bool]:
    """Return where it goes, and whether that is to be a directory; `make` makes it.

    Raises:
        DaemonError: It may not go there, or can't.
    """
    (here,) = request.here
    target = roots.check(here, write=True, field="destination")
    folder = request.into or len(request.there) > 1 or target.is_dir()
    try:
        if folder and not target.is_dir() and target.exists():
            raise NotADirectoryError(20, "Not a directory")
        if not folder and not target.parent.is_dir():
            raise NotFoundError(
                Reason.FILE_NOT_FOUND,
                f"there is no directory {target.parent} on this machine",
                hint="Make it first, or end the destination with / to have it made.",
                metadata={"path": str(target.parent)},
            )
    except OSError as error:
        raise local(error, str(target), write=True) from None
    return target, folder


def make(target: Path) -> None:
    """Make the directory it goes to, and those above it.

    Raises:
        DaemonError: It can't be made.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise local(error, str(target), write=True) from None
