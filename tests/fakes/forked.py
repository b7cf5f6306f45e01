"""Our programs as forks of the nursery, to be used as a subprocess is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import subprocess
import sys
import time
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.subprocess import Process, SubprocessStreamProtocol
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from fakes.nursery import Born, born

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PIPE, _NULL = subprocess.PIPE, subprocess.DEVNULL
_STREAM_BYTES = 64 * 1024


class Forking:
    """Whether programs may be forks at all.

    Attributes:
        allowed: False where what is shown is the program as it is started.
    """

    allowed = True


def program(name: str) -> str:
    """Return the path of one of our commands."""
    return str(Path(sys.executable).with_name(name))


async def begin(
    name: str,
    *arguments: str,
    env: Mapping[str, str],
    streams: Sequence[int] = (_PIPE, _PIPE, _PIPE),
    limit: int = _STREAM_BYTES,
) -> Process:
    """Start it; `streams` are descriptors, PIPE or DEVNULL, as asyncio takes them."""
    fork = _hatched(name, arguments, env, streams)
    if fork is not None:
        return await _followed(fork, streams, limit)
    stdin, stdout, stderr = streams
    return await asyncio.create_subprocess_exec(
        program(name),
        *arguments,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        limit=limit,
    )


async def sit_down(
    name: str, *arguments: str, env: Mapping[str, str], streams: Sequence[int]
) -> Process | None:
    """Start it with its stdin as its terminal; None where no fork would do."""
    fork = _hatched(name, arguments, env, streams, terminal=True)
    return None if fork is None else await _followed(fork, streams, _STREAM_BYTES)


async def _followed(fork: Born, streams: Sequence[int], limit: int) -> Process:
    loop = asyncio.get_running_loop()
    protocol = SubprocessStreamProtocol(limit=limit, loop=loop)
    waiter = loop.create_future()
    stdin, stdout, stderr = streams
    transport = _Transport(
        loop, protocol, ["fork"], False, stdin, stdout, stderr, 0, waiter, fork=fork
    )
    await waiter
    return Process(transport, protocol, loop)


def run(
    name: str,
    *arguments: str,
    env: Mapping[str, str],
    given: bytes = b"",
    directory: Path | None = None,
    seconds: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end, without a terminal, and return what it printed."""
    words = [program(name), *arguments]
    fork = _hatched(name, arguments, env, [_PIPE] * 3, directory)
    if fork is None:
        return subprocess.run(
            words,
            env=env,
            cwd=directory,
            input=given,
            capture_output=True,
            check=False,
            timeout=seconds,
            start_new_session=True,
        )
    try:
        out, err = _exchange(fork, given, time.monotonic() + seconds)
        return subprocess.CompletedProcess(words, fork.wait(seconds), out, err)
    except BaseException:
        fork.kill()
        raise


def _exchange(fork: Born, given: bytes, end: float) -> tuple[bytes, bytes]:
    """Write to it and read until its outputs end."""
    stdin, stdout, stderr = fork.stdin, fork.stdout, fork.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    read = {stdout.fileno(): bytearray(), stderr.fileno(): bytearray()}
    left = memoryview(given)
    with selectors.DefaultSelector() as waiting, stdin, stdout, stderr:
        for stream in (stdout, stderr):
            waiting.register(stream, selectors.EVENT_READ)
        if left:
            waiting.register(stdin, selectors.EVENT_WRITE)
        else:
            stdin.close()
        while waiting.get_map():
            ready = waiting.select(max(end - time.monotonic(), 0))
            if not ready:
                raise subprocess.TimeoutExpired(f"fork {fork.pid}", 0)
            for key, _ in ready:
                if key.fileobj is stdin:
                    left = _written(key.fd, left)
                    more = bool(left)
                else:
                    piece = os.read(key.fd, _STREAM_BYTES)
                    read[key.fd] += piece
                    more = bool(piece)
                if not more:
                    waiting.unregister(key.fileobj)
                    if key.fileobj is stdin:
                        stdin.close()
    out, err = map(bytes, read.values())
    return out, err


def _written(stdin: int, data: memoryview) -> memoryview:
    """Write what never waits, and return the rest; nothing if nobody reads."""
    try:
        return data[os.write(stdin, data[: select.PIPE_BUF]) :]
    except BrokenPipeError:
        return data[:0]


def _hatched(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: Sequence[int],
    directory: Path | None = None,
    *,
    terminal: bool = False,
) -> Born | None:
    """Start a fork that has our ends of its pipes, where a `Popen` has them."""
    if not Forking.allowed:
        return None
    ours: list[BinaryIO | None] = [None, None, None]
    with contextlib.ExitStack() as given, contextlib.ExitStack() as kept:
        files: list[int] = []
        for number, stream in enumerate(streams):
            file = stream
            if stream == _PIPE:
                ends = os.pipe()
                file = ends[number > 0]
                end = os.fdopen(ends[number == 0], "rb" if number else "wb", 0)
                ours[number] = kept.enter_context(end)
                given.callback(os.close, file)
            elif stream == _NULL:
                file = os.open(os.devnull, os.O_RDWR)
                given.callback(os.close, file)
            files.append(file)
        fork = born(
            name,
            arguments,
            environment,
            directory=directory,
            files=files,
            terminal=terminal,
        )
        if fork is not None:
            kept.pop_all()
            fork.stdin, fork.stdout, fork.stderr = ours
    return fork


class _Transport(BaseSubprocessTransport):
    """What asyncio has for a child, for one that is not ours to wait for."""

    def _start(self, *_: object, **given: Any) -> None:
        fork: Born = given["fork"]
        self._proc = cast("subprocess.Popen[bytes]", fork)
        self._ended = os.pidfd_open(fork.pid)
        self._loop.add_reader(self._ended, self._collect, fork)

    def _collect(self, fork: Born) -> None:
        self._loop.remove_reader(self._ended)
        os.close(self._ended)
        self._process_exited(fork.wait())
