"""The shim's ends: lines from stdin, replies to stdout, and the parent.

Knows file descriptors, not messages; both stages use it, so it must not import asyncio.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque

from holdfast_shim.standard import stand_in

LINE_BYTES = 16 * 1024 * 1024
READ_BYTES = 64 * 1024
# With so many bytes of replies unread, the client's next requests wait.
UNREAD_BYTES = 64 * 1024 * 1024


class ClosedError(Exception):
    """The client has closed its end of stdout."""


class LineBuffer:
    """Cuts bytes into lines and holds at most one line's limit of them."""

    __slots__ = ("_limit", "_line", "_skipping")

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that `data` completes; None stands for an overlong one."""
        lines: list[bytes | None] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._add(data[start:end])
            lines.append(self._take())
            start = end + 1
        self._add(data[start:])
        return lines

    def rest(self) -> list[bytes | None]:
        """Return what came after the last newline, at the end of input."""
        return [self._take()] if self._line or self._skipping else []

    def _add(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._line) + len(piece) > self._limit:
            self._skipping = True
            self._line = bytearray()
        else:
            self._line += piece

    def _take(self) -> bytes | None:
        line = None if self._skipping else bytes(self._line)
        self._skipping = False
        self._line = bytearray()
        return line


class Outbox:
    """Writes without ever waiting, so that a client that stops reading blocks nothing.

    The descriptor stays in blocking mode, as that is shared with whoever else holds it:
    a poll says whether one PIPE_BUF fits, and then such a write does not wait.
    """

    __slots__ = ("_pending", "_poll", "fd", "size")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = 0
        self._pending: deque[memoryview] = deque()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def push(self, data: bytes) -> None:
        """Take `data` for writing."""
        if data:
            self._pending.append(memoryview(data))
            self.size += len(data)

    def flush(self) -> bool:
        """Write what fits now; return whether everything is gone.

        Raises:
            ClosedError: Nobody reads any more.
        """
        pending = self._pending
        while pending:
            if not self._poll.poll(0):
                return False
            head = pending[0]
            try:
                written = os.write(self.fd, head[: select.PIPE_BUF])
            except OSError as error:
                raise ClosedError from error
            self.size -= written
            if written == len(head):
                pending.popleft()
            else:
                pending[0] = head[written:]
        return True

    def drain(self, seconds: float) -> None:
        """Write the rest, for at most so long with a reader that is slow."""
        end = time.monotonic() + seconds
        while not self.flush() and (left := end - time.monotonic()) > 0:
            self._poll.poll(int(left * 1000) + 1)


class Parent:
    """The process that started us; we end with it even if others hold the pipe open."""

    __slots__ = ("fd", "pid")

    def __init__(self) -> None:
        self.pid = os.getppid()
        self.fd: int | None = None
        if hasattr(os, "pidfd_open"):
            try:
                self.fd = os.pidfd_open(self.pid)
            except OSError:
                # An old kernel, a seccomp filter or a parent in another namespace:
                # the owner of this object compares process ids instead.
                self.fd = None

    def gone(self) -> bool:
        """Return whether it ended."""
        return os.getppid() != self.pid


class Pipes:
    """What the first stage hands to the second."""

    __slots__ = ("lines", "outbox", "parent", "stdin")

    def __init__(self, stdin: int, stdout: int) -> None:
        self.stdin = stdin
        self.outbox = Outbox(stdout)
        self.parent = Parent()
        self.lines = LineBuffer()

    def read(self) -> tuple[list[bytes | None], bool]:
        """Return the lines that came, and whether that was all; only when readable."""
        try:
            data = os.read(self.stdin, READ_BYTES)
        except OSError:
            data = b""  # a terminal or socket that was torn down
        return (self.lines.feed(data), False) if data else (self.lines.rest(), True)


def claim() -> Pipes:
    """Take stdin and stdout for the protocol alone.

    Raises:
        OSError: One of them is closed.
    """
    stand_in(2)
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(null, 1)
    os.close(null)
    return Pipes(stdin, stdout)
