"""One command framed within a terminal's stream, where the host can keep no files.

Its output stands between two marks that nobody can guess; what is typed does not hold
them in one piece, so that its echo is no mark. A terminal has one stream: stderr comes
with stdout.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
from typing import TYPE_CHECKING

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.session.shell import RunEnd
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job

_NOTE = "the session has one stream: stderr came with stdout"
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
# An end that does not come whole within so much was none.
_END_BYTES = 8 * 1024


class Framer:
    """Takes one command's output out of a terminal's stream."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._begin, self._end = secrets.token_hex(8), secrets.token_hex(8)
        self._held = b""
        self._begun = False
        self._over: asyncio.Future[RunEnd] = asyncio.get_running_loop().create_future()

    def words(self, command: str) -> bytes:
        """Return what to type."""
        half = len(self._begin) // 2
        begin = f"{self._begin[:half]} {self._begin[half:]}"
        quoted = shlex.quote(command)
        if _UNSAFE.search(command):
            # a line editor would take them for keys
            text = _UNSAFE.sub(lambda found: f"\\0{ord(found[0]):03o}", command)
            quoted = f'"$(printf %b {shlex.quote(text)})"'
        return (
            f" printf %s%s {begin}; eval {quoted} </dev/null; {self._tell()}\n"
        ).encode()

    def asking(self) -> bytes:
        """Return what to type for the end after a command was interrupted."""
        return f" {self._tell()}\n".encode()

    def _tell(self) -> str:
        half = len(self._end) // 2
        end = f"{self._end[:half]} {self._end[half:]}"
        return f'printf \'%s%s:%s:%s:\\n\' {end} "$?" "$PWD"'

    def feed(self, data: bytes) -> bytes:
        """Take output; return what is the terminal's own."""
        if self._over.done():
            return data
        self._held += data
        before = b""
        if not self._begun:
            marks = self._begin.encode(), self._end.encode()
            at = min((n for n in map(self._held.find, marks) if n >= 0), default=-1)
            if at < 0:
                keep = max(_overlap(self._held, mark) for mark in marks)
                at = len(self._held) - keep
                before, self._held = self._held[:at], self._held[at:]
                return before
            # one that was interrupted before it began has an end only
            before, self._held = self._held[:at], self._held[at:]
            self._held = self._held.removeprefix(marks[0])
            self._begun = True
        return before + self._look()

    def _look(self) -> bytes:
        mark = self._end.encode() + b":"
        output, found, rest = self._held.partition(mark)
        if not found:
            keep = _overlap(output, mark) or (1 if output.endswith(b"\r") else 0)
            self._take(output[: len(output) - keep])
            self._held = output[len(output) - keep :] if keep else b""
            return b""
        told = re.match(rb"(\d+):(.*?):\r?\n", rest, re.DOTALL)
        if told is None and len(rest) < _END_BYTES:
            self._held = mark + rest
            self._take(output)
            return b""
        self._take(output)
        self._held = b""
        if told is None:
            self.lost(ChannelEnd(lost="its end could not be read"))
            return rest
        code = int(told[1])
        self._job.add_note(_NOTE)
        cwd = told[2].decode("utf-8", "replace")
        self._over.set_result(RunEnd(ChannelEnd(exit_code=code), cwd))
        return rest[told.end() :]

    def _take(self, data: bytes) -> None:
        if data:
            self._job.spool.append(Stream.OUT, data.replace(b"\r\n", b"\n"))

    def lost(self, end: ChannelEnd) -> None:
        """The shell has ended under the command."""
        if not self._over.done():
            self._take(self._held)
            self._job.add_note("the session's shell ended")
            self._over.set_result(RunEnd(end))

    async def ended(self) -> RunEnd:
        """Wait for the command's end."""
        return await asyncio.shield(self._over)


def _overlap(data: bytes, mark: bytes) -> int:
    """Return how many bytes at the end of `data` may begin `mark`."""
    for size in range(min(len(data), len(mark) - 1), 0, -1):
        if data.endswith(mark[:size]):
            return size
    return 0
