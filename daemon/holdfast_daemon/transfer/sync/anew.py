"""Whether a sync of an earlier daemon may be begun anew: alone, and on the same place.

A file beside the job's record is locked for as long as any process works for it: rsync
of this machine and our bridge inherit the lock, so one that outlives its daemon has it.
When the file was last touched tells when a daemon was last there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, LimitError, Reason, StateError
from holdfast_daemon.transfer.sync import outcome, rsync

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast_daemon.limits import Limits
    from holdfast_daemon.transfer.means.roots import Roots
    from holdfast_daemon.transfer.sync.rsync import SyncRequest

_LOCK = "lock"
_PAUSE_SECONDS = 0.1
_TOUCH_SECONDS = 60.0


@contextlib.asynccontextmanager
async def alone(
    directory: Path, limits: Limits, *, anew: bool
) -> AsyncGenerator[int | None]:
    """Hold the lock for the time of the block; None: none can be had there.

    `anew`: there may be another one, which must have ended.

    Raises:
        LimitError: Another process held it for too long, or no daemon was there for
            longer than anybody would expect it to be begun after.
        StateError: It can't be known whether another one is there.
    """
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # No record can be written there either.
        if anew:
            raise _unknown(error) from error
        yield None
        return
    touching: asyncio.Task[None] | None = None
    try:
        if anew:
            _check_age(lock, limits.copy_resume_seconds)
        # rsync of an earlier daemon that stands still ends by itself after as long.
        taken = await _taken(lock, limits.sync_idle_seconds, anew=anew)
        touching = asyncio.create_task(_touch(lock))
        yield lock if taken else None
    finally:
        if touching is not None:
            touching.cancel()
            await asyncio.gather(touching, return_exceptions=True)
        os.close(lock)


def _check_age(lock: int, most: float) -> None:
    away = time.time() - os.fstat(lock).st_mtime
    if away > most:
        raise LimitError(
            Reason.LIMIT_REACHED,
            f"no daemon was there for {away / 3600:.1f} h, longer than"
            f" copy_resume_seconds ({most:g}); nothing more was changed",
            hint="Sync again, if that is wanted still.",
            metadata={"limit": "copy_resume_seconds"},
        )


async def _touch(lock: int) -> None:
    while True:
        os.utime(lock)
        await asyncio.sleep(_TOUCH_SECONDS)


async def _taken(lock: int, patience: float, *, anew: bool) -> bool:
    """Say whether it could be had; a file system may know no locks."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() > deadline:
                raise LimitError(
                    Reason.IN_USE,
                    "rsync of this machine, begun by the daemon before, has not ended",
                    hint="End it (it may wait for a disk), and sync again.",
                ) from None
            await asyncio.sleep(_PAUSE_SECONDS)
        except OSError as error:
            if anew:
                raise _unknown(error) from error
            return False
        else:
            return True


def _unknown(error: OSError) -> StateError:
    return StateError(
        Reason.UNSUPPORTED,
        "it can't be known whether rsync, begun by the daemon before, has ended:"
        f" {error.strerror}",
        hint="Sync again once it has.",
    )


def place_of(path: str) -> tuple[int, int] | None:
    """Return what tells a directory from another one of its name; None: none is there.

    Blocks for a moment, as all here that asks a disk.
    """
    try:
        about = Path(path).stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def allow(request: SyncRequest, place: tuple[int, int] | None, roots: Roots) -> None:
    """Return where the side of this machine is what it was, and may be used now.

    Raises:
        DaemonError: It is not, or may not.
    """
    write = not request.upload
    field = "destination" if write else "source"
    found = roots.check(request.here, write=write, field=field)
    if str(found) != request.here:
        raise DeniedError(
            Reason.LOCAL_PATH_DENIED,
            f"{request.here} leads to {found} by now; nothing was changed",
            metadata={"path": str(found)},
        )
    if request.upload and not found.is_dir():
        raise outcome.no_directory(request.here)
    if place is not None and place_of(request.here) != place:
        # As where a disk is not mounted yet: with `delete` all would be lost.
        raise StateError(
            Reason.FILE_CHANGED,
            f"{request.here} is another directory than the one the sync began with;"
            " nothing was changed",
            hint="See whether its disk is mounted, and sync again.",
            metadata={"path": request.here},
        )
    rsync.check(request, os.path.realpath(Path.home()))
