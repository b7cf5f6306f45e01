"""Programs of the user's own: the one that carries a connection, the one after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket

_log = logging.getLogger(__name__)

_KEPT = 2000
_READING_SECONDS = 0.2


class Proxy:
    """The running program; what it complains about is kept for the error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = b""
        self._reading = asyncio.create_task(self._read())
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: str) -> tuple[Proxy, socket.socket]:
        """Run `command` by the user's shell, as ssh does, on a socket pair."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *_shell(f"exec {command}"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process), ours

    @property
    def said(self) -> str:
        """What it wrote to standard error, on one line."""
        return " ".join(self._said.decode("utf-8", "replace").split())

    async def _read(self) -> None:
        stream = self._process.stderr
        while stream is not None and (data := await stream.read(_KEPT)):
            self._said = (self._said + data)[-_KEPT:]

    async def close(self) -> None:
        """End it and all it started; who gives up waiting waits until it has ended."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            await asyncio.wait({self._closing})
            raise

    async def _close(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        # A child that left its group may hold the pipe open: what is there is read.
        await asyncio.wait({self._reading}, timeout=_READING_SECONDS)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


async def run_local(command: str) -> None:
    """Run a LocalCommand and wait for it, as ssh does; how it ends does not matter.

    Who gives up waiting ends it.
    """
    process = await asyncio.create_subprocess_exec(
        *_shell(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    if status:
        _log.info("the LocalCommand of ssh config ended with %s", status)


def _shell(command: str) -> tuple[str, str, str]:
    return os.environ.get("SHELL") or "/bin/sh", "-c", command
