"""A shell that waited is told of a command in a session, and does not start another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on
from holdfast_daemon.connection.standby import Greeting, Script
from holdfast_daemon.kept import script, wrapper
from holdfast_daemon.kept.runs import Runs, new_nonce

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.kept import Kept

# busybox has a tail of its own, which looks once a second
_SECONDS = 20


async def _primed(kept: Kept) -> None:
    await kept.start("sone")
    asking = kept.keeper.asking
    runs = Runs(asking.pool, asking.host, asking.limits)
    await runs.prime("sone", wrapper.family("bash"))


async def _told(kept: Kept, number: int, nonce: str, command: str) -> bytes:
    """Return the line that a waiting shell gets."""
    async with await kept.pool.lease(kept.keeper.asking.host) as lease:
        call = script.call(
            await lease.facts(),
            "type",
            "sone",
            str(number),
            "HEADER",
            nonce,
            "none",
            str(len(command)),
            command,
        )
    assert isinstance(call, Script)
    return call.waiting


async def _until(stream: asyncio.StreamReader | None, end: bytes) -> bytes:
    assert stream is not None
    said = b""
    async with asyncio.timeout(_SECONDS):
        while not said.endswith(end):
            piece = await stream.read(4096)
            assert piece, said
            said += piece
    return said


def _arguments(pid: int) -> bytes:
    """Return the command lines of a process and its children, which all may see."""
    told = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid), "--ppid", str(pid)],
        check=True,
        stdout=subprocess.PIPE,
    )
    return told.stdout


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox ash"])
async def test_a_waiting_shell_tells_it_by_itself(tmp_path: Path, shell: str) -> None:
    """SE-02, SE-09: whatever /bin/sh is; and the number nobody may guess is in no list.

    The shell became another one for it, whose arguments everybody could read.
    """
    words = shell.split()
    program = shutil.which(words[0])
    if program is None:
        pytest.skip(f"{words[0]} is not installed")
    async with kept_on(tmp_path) as kept:
        await _primed(kept)
        for number, (command, printed, code) in enumerate(
            (
                ("echo out; printf err >&2; (exit 3)", (b"out\n", b"err"), 3),
                ("printf 'a\\0b'", (b"a\0b", b""), 0),
            ),
            start=1,
        ):
            nonce = new_nonce()
            greeting = Greeting(look=False).command.replace("/bin/sh", shell, 1)
            waiting = await asyncio.create_subprocess_exec(
                "sh", "-c", greeting,
                env={
                    "HOME": str(tmp_path),
                    "PATH": os.environ["PATH"],
                    "SHELL": "/bin/sh",
                },
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                await _until(waiting.stdout, f":{waiting.pid}\n".encode())
                assert waiting.stdin is not None
                waiting.stdin.write(await _told(kept, number, nonce, command))
                out = await _until(waiting.stdout, f":{nonce}\x1e\n".encode())
                err = await _until(waiting.stderr, f":{nonce}\x1e\n".encode())
                assert nonce.encode() not in _arguments(waiting.pid)
                waiting.stdin.write(b"ok\n")
                async with asyncio.timeout(_SECONDS):
                    assert await waiting.wait() == 0
            finally:
                with contextlib.suppress(ProcessLookupError):
                    waiting.kill()
                await waiting.wait()
            for said, text in zip((out, err), printed, strict=True):
                _, header, rest = said.partition(b"\x1efrom:HEADER:0\n")
                assert header
                assert rest.startswith(text + f"\x1e{nonce}:run {code}:".encode()), said


async def test_a_waiting_shell_without_the_script_says_so(tmp_path: Path) -> None:
    """SE-07: it ends with the word for that, and nothing was told."""
    async with kept_on(tmp_path) as kept:
        line = await _told(kept, 1, new_nonce(), "true")
    ended = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", 'IFS= read -r line; eval "$line"'],
        input=line,
        env={"HOME": str(tmp_path / "none"), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
        timeout=_SECONDS,
    )
    assert (ended.returncode, ended.stdout) == (script.ABSENT, b"")
