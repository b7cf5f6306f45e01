"""What is copied from a host: one source, and what is below it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError, Reason, StateError
from holdfast_daemon.file import sensitive
from holdfast_daemon.file.fault import fault
from holdfast_daemon.file.script import quote_path, shown
from holdfast_daemon.transfer.here.place import parts_of
from holdfast_daemon.transfer.here.source import too_many
from holdfast_daemon.transfer.means.apart import apart
from holdfast_daemon.transfer.means.errand import refused, secret
from holdfast_daemon.transfer.shell import words
from holdfast_daemon.transfer.tree.compare import Entry, Kind, Tree

if TYPE_CHECKING:
    from holdfast_daemon.transfer.means.errand import CopyRequest, Means
    from holdfast_daemon.transfer.means.reach import Reach


@dataclass(frozen=True, slots=True)
class Found:
    """One source on the host.

    Attributes:
        name: What it is called where it goes.
        folder: The directory it is in, without links.
        base: Its name there.
        tree: What there is, by its path where it goes.
    """

    name: bytes
    folder: bytes
    base: bytes
    tree: Tree

    def inner(self, path: bytes) -> bytes:
        """Return where a path of `tree` is in `folder`."""
        return self.base + path[len(self.name) :]


async def look(  # noqa: C901  one question after the other
    given: str, request: CopyRequest, means: Means, reach: Reach
) -> Found:
    """Find out what one source is, and what is below it.

    Raises:
        DaemonError: There is none, it may not be read, or is not what was meant.
    """
    limits = means.site.limits
    path = quote_path(given, "sources")
    script = words.what(path, recursive=request.recursive)
    reply, rest = await reach.steadily(lambda wire: wire.ask(script))
    if not reply.ok:
        raise refused(reply, write=False)
    real, kind = reply.fields[0], reply.texts[1]
    told = shown(real)
    if kind == "other":
        raise fault(("kind", told, "special file"), write=False)
    if kind == "dir" and not request.recursive:
        raise InputError(
            "sources",
            f"{told} is a directory",
            hint="Set recursive to copy it with all that is in it.",
        )
    if sensitive.holds_secrets(told):
        raise secret(told, write=False)
    records, links = (*rest.split(script.mark), b"", b"")[:2]
    listed = await apart(words.listing, records, links, script.mark)
    unread = [line for line in reply.said.splitlines() if "find:" in line]
    if unread:
        means.trouble(real, f"{len(unread)} directories could not be read: {unread[0]}")
    if len(listed.tree) > limits.copy_names:
        raise too_many(limits.copy_names)
    for path_ in listed.odd:
        means.trouble(path_, "that is no name")
    base = posixpath.basename(real)
    name = called(given, real)
    if kind == "dir":
        tree = {name + b"/" + one: entry for one, entry in listed.tree.items()}
        top = _root_of(records, script.mark)
        if top is None:
            raise _unseen(told)
        tree[name] = Entry(Kind.DIRECTORY, 0, *top)
    else:
        if len(listed.tree) != 1:
            raise _unseen(told)
        tree = dict(zip((name,), listed.tree.values(), strict=True))
    return Found(name, posixpath.dirname(real) or b"/", base, tree)


def called(given: str, real: bytes) -> bytes:
    """Return what a source is called where it goes.

    Raises:
        DaemonError: It has no name.
    """
    last = given.rstrip("/")
    name = posixpath.basename(last.encode())
    if name in (b"", b".", b"..") or (last.startswith("~") and "/" not in last):
        name = posixpath.basename(real)  # it is not called so there
    try:
        parts_of(name)
    except OSError:
        told = shown(real)
        raise InputError("sources", f"{told} has no name to copy it under") from None
    return name


def _unseen(path: str) -> StateError:
    return StateError(
        Reason.FILE_FAILED, f"{path} can't be looked at", hint="Call again."
    )


def _root_of(records: bytes, mark: bytes) -> tuple[int, int] | None:
    """Return time and mode of the directory itself."""
    for record in records.split(mark.rstrip(b"\0") + b" ")[1:]:
        mode, _, modified, name = (
            record.removesuffix(b"\n").split(b" ", 3) + [b""] * 4
        )[:4]
        if name == b".":
            return int(modified), int(mode, 16) & 0o7777
    return None
