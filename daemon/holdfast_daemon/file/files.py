"""The six verbs on files of a host: each one errand, and what its answer comes to."""

from __future__ import annotations

import asyncio
import posixpath
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError
from holdfast_daemon.file import (
    editing,
    finding,
    listing,
    reading,
    remote,
    searching,
    sensitive,
    writing,
)
from holdfast_daemon.file.errand import Errand, NoShell
from holdfast_daemon.file.fault import failed, fault, unreadable
from holdfast_daemon.file.script import take_apart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.file.errand import Answer
    from holdfast_daemon.file.finding import FindRequest, Found
    from holdfast_daemon.file.listing import Listing, ListRequest
    from holdfast_daemon.file.reading import ReadAnswer, ReadRequest
    from holdfast_daemon.file.script import Reply, Script
    from holdfast_daemon.file.searching import Searched, SearchRequest
    from holdfast_daemon.file.writing import WriteAnswer, WriteRequest

_MARKS_OF_A_FILE = 4


class _Talk:
    """What an edit answers to a host that tells the file as it is.

    Attributes:
        edited: The file as it is to be.
        heard: How much of the host's words that was the answer to.
        refused: Why it is not edited.
    """

    def __init__(self, mark: bytes, edits: Sequence[editing.Edit]) -> None:
        self._mark = mark
        self._edits = edits
        self.edited = b""
        self.heard = 0
        self.refused: DaemonError | None = None

    def respond(self, output: bytes) -> bytes | None:
        """Return what to send; None: not all of the file has come."""
        if not output.endswith(self._mark):
            return None
        reply = take_apart(output, self._mark)
        if reply is None:
            return None
        if not reply.ok:
            return b""
        if output.count(self._mark) < _MARKS_OF_A_FILE:
            return None
        self.heard = len(output)
        body, path = reply.parts[0], reply.fields[0]
        try:
            if reply.parts[1] != b"0\0":
                raise failed(path, "Input/output error")
            if sensitive.is_key(body):
                raise sensitive.refusal(path, write=True)
            self.edited = editing.apply(body, self._edits, path)
        except DaemonError as error:
            self.refused = error
            return b"quit\n"
        return f"{len(self.edited)}\n".encode() + self.edited


class Files:
    """Works on files of hosts; changes of one file wait for each other."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._busy: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def read(
        self, site: Site, request: ReadRequest, *, sudo: bool = False
    ) -> ReadAnswer:
        """Read a file, or lines of it."""
        try:
            return await self._read(site, request, sudo=sudo)
        except NoShell:
            if sudo:
                raise
        return await remote.read(site, request)

    async def _read(
        self, site: Site, request: ReadRequest, *, sudo: bool
    ) -> ReadAnswer:
        script = reading.script(request, site.limits)
        most = max(site.limits.file_whole_bytes, request.most)
        reply, said = await _ask(
            site, script, request.path, most=most, sudo=sudo, write=False
        )
        return reading.answer(request, reply, said, site.limits)

    async def write(
        self, site: Site, request: WriteRequest, *, sudo: bool = False
    ) -> WriteAnswer:
        """Write a file."""
        script = writing.script(request, site.limits)
        async with self._alone(site, request.path):
            try:
                reply, _ = await _ask(
                    site,
                    script,
                    request.path,
                    most=0,
                    sudo=sudo,
                    write=True,
                    data=request.data,
                )
            except NoShell:
                if sudo:
                    raise
                return await remote.write(site, request)
        append = request.mode is writing.Mode.APPEND
        return writing.answer(request.data, reply, append=append)

    async def edit(
        self,
        site: Site,
        path: str,
        edits: Sequence[editing.Edit],
        *,
        sudo: bool = False,
    ) -> WriteAnswer:
        """Edit a file: all of the edits, or none."""
        editing.check(edits)
        limits = site.limits
        script = writing.edit_script(path, limits)
        talk = _Talk(script.mark, edits)
        errand = Errand(
            site, script, most=limits.file_edit_bytes, sudo=sudo, writes=True
        )
        async with self._alone(site, path):
            try:
                answer = await errand.run(reply=talk.respond)
            except NoShell:
                if sudo:
                    raise
                return await remote.edit(site, path, edits)
        if talk.refused is not None:
            raise talk.refused
        reply = _understood(
            bytes(answer.out[talk.heard :]),
            script,
            path,
            answer.said,
            sudo=sudo,
            write=True,
        )
        return writing.answer(talk.edited, reply)

    async def list(
        self, site: Site, request: ListRequest, *, sudo: bool = False
    ) -> Listing:
        """List a directory."""
        limits = site.limits
        script = listing.script(request, limits)
        try:
            reply, body, said = await _ask_much(site, script, request.path, sudo=sudo)
        except NoShell:
            if sudo:
                raise
            return await remote.listing(site, request)
        return listing.answer(reply, script.mark, body, said, limits)

    async def search(
        self, site: Site, request: SearchRequest, *, sudo: bool = False
    ) -> Searched:
        """Search the contents of files."""
        limits = site.limits
        script = searching.script(request, limits)
        reply, body, said = await _ask_much(site, script, request.path, sudo=sudo)
        return await asyncio.to_thread(
            searching.answer, request, reply.fields, body, said, limits
        )

    async def find(
        self, site: Site, request: FindRequest, *, sudo: bool = False
    ) -> Found:
        """Find files by name."""
        limits = site.limits
        script = finding.script(request, limits)
        _, body, said = await _ask_much(site, script, request.path, sudo=sudo)
        return await asyncio.to_thread(finding.answer, request, body, said, limits)

    @asynccontextmanager
    async def _alone(self, site: Site, path: str) -> AsyncGenerator[None]:
        """Let nobody else of this daemon change the same file meanwhile.

        One file goes by many names, of which mostly the last part is the same: whoever
        changes another one of that name waits for a moment too.
        """
        key = (repr(site.host.place), posixpath.basename(path))
        lock, waiting = self._busy.get(key, (asyncio.Lock(), 0))
        self._busy[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._busy[key]
            if waiting > 1:
                self._busy[key] = (lock, waiting - 1)
            else:
                del self._busy[key]


async def _ask(
    site: Site,
    script: Script,
    path: str,
    *,
    most: int,
    sudo: bool,
    write: bool,
    data: bytes = b"",
) -> tuple[Reply, str]:
    errand = Errand(site, script, most=most, sudo=sudo, writes=write)
    answer = await errand.run(data)
    reply = _understood(
        bytes(answer.out), script, path, answer.said, sudo=sudo, write=write
    )
    return reply, answer.said


async def _ask_much(
    site: Site, script: Script, path: str, *, sudo: bool
) -> tuple[Reply, bytes, str]:
    """Ask for what may be long; return its head, what follows, and complaints."""
    most = site.limits.file_answer_bytes
    errand = Errand(site, script, most=most, sudo=sudo, writes=False)
    answer: Answer = await errand.run()
    out = bytes(answer.out)
    reply = _understood(out, script, path, answer.said, sudo=sudo, write=False)
    body = out.split(script.mark, 2)[2]
    return reply, body, answer.said


def _understood(
    output: bytes, script: Script, path: str, said: str, *, sudo: bool, write: bool
) -> Reply:
    reply = take_apart(output, script.mark)
    if reply is None:
        raise unreadable(path, said)
    if not reply.ok:
        raise fault(reply.fields, write=write, sudo=sudo)
    return reply
