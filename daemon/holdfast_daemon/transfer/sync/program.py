"""The rsync of this machine: found, asked for its version, run with our bridge."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.transfer.sync import rsync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_BRIDGE = str(Path(__file__).with_name("bridge.py"))
_ASKING_SECONDS = 5.0
_WORDS_BYTES = 64 * 1024
_LENGTH = 4
_PIECE = 64 * 1024
# The pipe holds what is printed meanwhile.
_GATHERING_SECONDS = 0.005
_TIDYING_SECONDS = 2.0


class Program(NamedTuple):
    """One installed rsync."""

    path: str
    number: tuple[int, int]


# What was found out, by the path of a program and when it was changed.
_FOUND: dict[tuple[str, int], tuple[int, int]] = {}


async def find() -> Program | None:
    """Return the rsync on the PATH; None: there is none that we know how to use."""
    path = shutil.which("rsync")
    if path is None:
        return None
    known = path, (await asyncio.to_thread(Path(path).stat)).st_mtime_ns
    if known not in _FOUND:
        number = await _ask(path)
        if number is None:
            # it may be a bad day: not for good
            return None
        _FOUND[known] = number
    return Program(path, _FOUND[known])


async def _ask(path: str) -> tuple[int, int] | None:
    """Return the version of a program; None: none that we know."""
    process = await asyncio.create_subprocess_exec(
        path,
        "--version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=rsync.environment(dict(os.environ)),
        cwd="/",
    )
    try:
        async with asyncio.timeout(_ASKING_SECONDS):
            told, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return rsync.version(told.decode("ascii", "replace"))


class Asked(NamedTuple):
    """What rsync wants: a command on the host, joined to two descriptors."""

    words: list[str]
    source: int
    sink: int


class Running:
    """One rsync of this machine with the bridge it runs; `end` is always called."""

    def __init__(
        self, process: asyncio.subprocess.Process, line: socket.socket, out: int
    ) -> None:
        self._out = out
        self._line = line
        self.process = process

    @classmethod
    async def start(
        cls,
        program: Program,
        request: rsync.SyncRequest,
        *,
        mark: str,
        idle: float,
        guards: Sequence[str] = (),
        lock: int | None = None,
    ) -> Running:
        """Run it; it asks for the host at once.

        The bridge inherits one end of a pair of sockets: nobody else can have it. All
        inherit `lock`, which is held until the last of them has ended.
        """
        ours, theirs = socket.socketpair()
        out, into = os.pipe()
        ours.setblocking(False)
        # Isolated, without site: it starts in a few milliseconds, and none of the
        # user's own modules take part.
        shell = [sys.executable, "-I", "-S", "-E", _BRIDGE, str(theirs.fileno())]
        words = rsync.words(
            request,
            shell,
            mark=mark,
            number=program.number,
            idle=idle,
            guards=guards,
        )
        inherited = [theirs.fileno(), *([] if lock is None else [lock])]
        try:
            process = await asyncio.create_subprocess_exec(
                program.path,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=into,
                stderr=asyncio.subprocess.PIPE,
                env=rsync.environment(dict(os.environ)),
                pass_fds=inherited,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(out)
            raise
        finally:
            theirs.close()
            os.close(into)
        os.set_blocking(out, False)
        return cls(process, ours, out)

    async def printed(self) -> AsyncIterator[bytes]:
        """Yield what it prints on standard output.

        It flushes each line; each alone would wake us, so a few are waited for.
        """
        while True:
            try:
                data = os.read(self._out, _PIECE)
            except BlockingIOError:
                await _readable(self._out)
                await asyncio.sleep(_GATHERING_SECONDS)
                continue
            if not data:
                return
            yield data

    async def asked(self) -> Asked | None:
        """Return what the bridge hands over; None: rsync ended without asking."""
        asking = asyncio.create_task(self._take())
        ending = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            for task in (asking, ending):
                task.cancel()
            await asyncio.gather(asking, ending, return_exceptions=True)

    async def _take(self) -> Asked | None:
        data, ends = b"", array.array("i")
        while len(data) < _LENGTH or len(data) < _LENGTH + _length(data):
            await _readable(self._line)
            piece, told, _, _ = self._line.recvmsg(
                _WORDS_BYTES, socket.CMSG_SPACE(2 * ends.itemsize)
            )
            for level, kind, payload in told:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    ends.frombytes(payload[: len(payload) // 4 * 4])
            if not piece:
                break
            data += piece
        for end in ends:
            os.set_inheritable(end, False)
        if len(ends) != 2:  # noqa: PLR2004  its input and its output
            for end in ends:
                os.close(end)
            return None
        found = data[_LENGTH:].split(b"\0")[:-1]
        return Asked([os.fsdecode(word) for word in found], ends[0], ends[1])

    def answer(self, code: int) -> None:
        """Tell the bridge how the command on the host ended."""
        with contextlib.suppress(OSError):
            self._line.send(bytes([code & 0xFF]))

    def leave(self) -> None:
        """Let go of the bridge, which then ends: it holds rsync's standard error."""
        self._line.close()

    def stop(self) -> None:
        """Ask it to end: it deletes what it has not finished."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is not None:
            return  # its number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    async def end(self) -> None:
        """Leave nothing of it behind."""
        self.leave()
        os.close(self._out)
        if self.process.returncode is None:
            self.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIDYING_SECONDS):
                    await self.process.wait()
        # What it started ends with its end: both their ends of everything are closed.
        self._signal(signal.SIGKILL)
        await self.process.wait()


def _length(data: bytes) -> int:
    return int.from_bytes(data[:_LENGTH], "big")


async def _readable(line: socket.socket | int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(line, done)
    try:
        await ready
    finally:
        loop.remove_reader(line)
