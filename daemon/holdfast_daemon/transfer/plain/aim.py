"""Where on a host that has SFTP and no shell a copy goes."""

from __future__ import annotations

import contextlib
import posixpath
from typing import TYPE_CHECKING

from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.file.fault import fault
from holdfast_daemon.file.script import shown
from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.plain.tree import join, make_all
from holdfast_daemon.transfer.tree.compare import Kind

if TYPE_CHECKING:
    from holdfast_daemon.connection.sftp_files import SftpFiles


async def destination(
    files: SftpFiles, path: bytes, *, want: bool
) -> tuple[bytes, str]:
    """Return where a path leads, and whether dir, file, other or none is there.

    `want`: it is to be a directory, and is made.

    Raises:
        DaemonError: It can't be one, or what holds it is not there.
        SftpError: The host refused it.
    """
    about = await files.look(path, follow=True)
    if about is None and want:
        await make_all(files, path)
        about = await files.look(path, follow=True)
    if about is not None:
        real = await files.real(path)
        kind = kind_of(about.mode)
        if want and kind is not Kind.DIRECTORY:
            raise fault(("nodir", shown(real), "file"), write=True)
        kinds = {Kind.DIRECTORY: "dir", Kind.FILE: "file"}
        return real, kinds.get(kind, "other")
    if await files.look(path) is not None:
        return path, "other"  # a link that leads nowhere
    with contextlib.suppress(SftpError):  # it may not know what is not there
        path = await files.real(path)  # Windows has other words for a path
    above = posixpath.dirname(path) or b"."
    parent = await files.look(above, follow=True)
    if parent is None or kind_of(parent.mode) is not Kind.DIRECTORY:
        why = "No such file or directory" if parent is None else "Not a directory"
        raise fault(("parent", shown(above), why), write=True)
    return join(await files.real(above), posixpath.basename(path)), "none"
