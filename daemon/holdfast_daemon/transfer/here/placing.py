"""Puts what was fetched in its place on this machine. It blocks."""

from __future__ import annotations

import os
from stat import S_ISGID
from typing import TYPE_CHECKING

from holdfast_daemon.errors import Ran, Reason, StateError
from holdfast_daemon.transfer.here.place import Place, set_about
from holdfast_daemon.transfer.here.settling import settle

if TYPE_CHECKING:
    from holdfast_daemon.transfer.means.errand import CopyRequest, Means
    from holdfast_daemon.transfer.means.placing import Placing
    from holdfast_daemon.transfer.tree.plan import Plan


def prepare(stage: Place, todo: Plan) -> None:
    """Make what is no file."""
    for path in todo.folders:
        with stage.folder(path, make=True):
            pass
    for path, entry in todo.links.items():
        stage.link(path, entry.target)


def check(placing: Placing, request: CopyRequest, means: Means) -> None:
    """Refuse where what has come may not be put any more.

    Raises:
        DaemonError: The place is out of bounds now, or another one.
    """
    (here,) = request.here
    target = means.roots.check(here, write=True, field="destination")
    if placing.folder not in (os.fsencode(target), os.fsencode(target.parent)):
        raise StateError(
            Reason.FILE_CHANGED,
            f"{here} leads elsewhere than when it was copied to",
            hint="Call again: nothing was put where it was not meant to be.",
            ran=Ran.YES,
            metadata={"path": here},
        )


def place(placing: Placing, request: CopyRequest, means: Means) -> None:
    """Put it there; what was put before stays."""
    folder = Place(placing.folder)
    if folder.look(placing.key) is not None:
        troubles = settle(
            folder,
            placing.key,
            placing.names,
            overwrite=request.overwrite,
            keep_times=request.preserve,
        )
    else:  # it is removed once all has been put
        gone = [name for name in placing.names if folder.look(name) is None]
        troubles = dict.fromkeys(gone, "it is there no longer")
    for path, why in troubles.items():
        means.trouble(path, why)
    means.tally.files -= len(troubles)
    for path, mode, modified in placing.folders:
        try:
            with folder.folder(path) as opened:
                # what is of a group stays so, as with any directory that is made there
                bits = 0 if request.preserve else os.fstat(opened).st_mode & S_ISGID
                set_about(opened, mode | bits, modified)
        except OSError as error:
            means.unset(error.strerror or str(error))
    folder.remove(placing.key)
