"""`holdfast exec -t` on a real terminal, for a host that is this machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from fakes.cli_daemon import LocalDaemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[LocalDaemon]:
    async with LocalDaemon(short_path / "run" / "holdfast.sock") as one:
        yield one


class Screen:
    """A person's terminal: what was typed into it and what it shows."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        self.shown = b""
        self.process: asyncio.subprocess.Process | None = None

    async def run(self, daemon: LocalDaemon, *words: str) -> None:
        """Start the command line here."""
        self.process = await daemon.begin(
            *words,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**os.environ, "TERM": "vt220"},
            start_new_session=True,
        )

    def resize(self, cols: int, rows: int) -> None:
        """Change the size, and tell as the kernel would tell a foreground process."""
        packed = struct.pack("HHHH", rows, cols, 0, 0)
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, packed)
        if self.process is not None:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, text: bytes) -> None:
        os.write(self.ours, text)

    async def until(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until the screen shows `pattern`, and forget all up to it."""
        while True:
            if found := re.search(pattern, self.shown):
                self.shown = self.shown[found.end() :]
                return found
            async with asyncio.timeout(40):
                self.shown += await asyncio.to_thread(os.read, self.ours, 4096)

    async def ended(self) -> int:
        assert self.process is not None
        return await self.process.wait()

    def mode(self) -> list[object]:
        return termios.tcgetattr(self.theirs)


@pytest.fixture
def screen() -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    one = Screen(ours, theirs)
    one.resize(100, 30)
    yield one
    for descriptor in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(descriptor)


async def test_the_command_gets_a_terminal_of_our_size_and_type(
    daemon: LocalDaemon, screen: Screen
) -> None:
    """EX-10: tty, size and TERM as the person has them."""
    await screen.run(daemon, "exec", "-t", "web1", "--", "tty; stty size; echo =$TERM=")
    await screen.until(rb"/dev/pts/\d+")
    await screen.until(rb"30 100")
    await screen.until(rb"=vt220=")
    assert await screen.ended() == 0


async def test_a_new_size_reaches_the_command(
    daemon: LocalDaemon, screen: Screen
) -> None:
    """EX-10: SIGWINCH."""
    script = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done"
    await screen.run(daemon, "exec", "-t", "web1", "--", script)
    await screen.until(rb"ready")
    screen.resize(77, 22)
    await screen.until(rb"22 77")
    assert await screen.ended() == 5


async def test_a_size_that_changes_before_the_command_begins_reaches_it(
    daemon: LocalDaemon, screen: Screen
) -> None:
    """EX-10: a login may take long; the command was left with the size of before."""
    script = "until test \"$(stty size)\" = '22 77'; do sleep 0.05; done; exit 5"
    await screen.run(daemon, "exec", "-t", "slow.example", "--", script)
    await daemon.job()
    screen.resize(77, 22)
    daemon.let_in.set()
    async with asyncio.timeout(40):
        assert await screen.ended() == 5


async def test_keys_pass_raw_and_the_terminal_is_restored(
    daemon: LocalDaemon, screen: Screen
) -> None:
    """EX-10: Ctrl-C is a key for the command's terminal, not a signal for us."""
    before = screen.mode()
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    await screen.run(daemon, "exec", "-t", "web1", "--", script)
    await screen.until(rb"ready")
    assert screen.mode() != before
    screen.type(b"\x03")
    await screen.until(rb"caught")
    assert await screen.ended() == 9
    assert screen.mode() == before
    assert daemon.jobs["j1"].signals == []


async def test_the_terminal_is_restored_after_a_lost_call_and_a_term_signal(
    daemon: LocalDaemon, screen: Screen
) -> None:
    before = screen.mode()
    await screen.run(daemon, "exec", "-t", "cut.example", "--", "echo x; sleep 100")
    await screen.until(rb"holdfast: ")
    assert await screen.ended() == 255
    assert screen.mode() == before
    await screen.run(daemon, "exec", "-t", "web1", "--", "echo ready; sleep 100")
    await screen.until(rb"ready")
    assert screen.process is not None
    screen.process.send_signal(signal.SIGTERM)
    assert await screen.ended() == 128 + signal.SIGTERM
    assert screen.mode() == before


async def test_the_terminal_is_restored_after_a_quit_signal(
    daemon: LocalDaemon, screen: Screen
) -> None:
    """EX-10: as ssh does; the command, which can't be told, is hung up on."""
    before = screen.mode()
    await screen.run(daemon, "exec", "-t", "web1", "--", "echo ready; sleep 100")
    await screen.until(rb"ready")
    assert screen.mode() != before
    assert screen.process is not None
    screen.process.send_signal(signal.SIGQUIT)
    assert await screen.ended() == 128 + signal.SIGQUIT
    assert screen.mode() == before
    await daemon.jobs["j1"].ended()


async def test_tilde_dot_leaves_a_terminal_that_hangs(
    daemon: LocalDaemon, screen: Screen
) -> None:
    before = screen.mode()
    await screen.run(daemon, "exec", "-t", "web1", "--", "echo ready; sleep 100")
    await screen.until(rb"ready")
    screen.type(b"\r~.")
    await screen.until(rb"connection closed")
    assert await screen.ended() == 255
    assert screen.mode() == before


async def test_a_terminal_may_be_asked_for_without_having_one(
    daemon: LocalDaemon,
) -> None:
    """EX-10: streams are merged."""
    told = await daemon.cli("exec", "-tt", "web1", "--", "test -t 1 && echo yes >&2")
    assert (told.code, told.out, told.err) == (0, b"yes\r\n", b"")


async def test_tables_fit_the_terminal_and_colours_can_be_turned_off(
    daemon: LocalDaemon, screen: Screen
) -> None:
    await screen.run(daemon, "hosts", "list")
    await screen.until(rb"name.*target.*connected")
    await screen.until(rb"web1 .*me@web1:22 .*yes")
    await screen.until(rb"keeps \\x1b\]0;x\\x07")
    assert await screen.ended() == 0


@pytest.mark.parametrize("stdin", [None, b"x\n"])
async def test_one_t_without_a_terminal_gives_none_and_ends(
    daemon: LocalDaemon, stdin: bytes | None
) -> None:
    """EX-10: as ssh -t does."""
    told = await daemon.cli(
        "exec", "-t", "web1", "--", "cat; test -t 1 || echo none", stdin=stdin
    )
    assert (told.code, told.out) == (0, (stdin or b"") + b"none\n")
    assert told.err == b"holdfast: a terminal is not given because stdin is none\n"
    assert not daemon.jobs["j1"].request.tty


@pytest.mark.parametrize("stdin", [b"", b"x\n", b"x"])
async def test_a_forced_terminal_ends_with_our_input(
    daemon: LocalDaemon, stdin: bytes
) -> None:
    """EX-10: `printf x | holdfast exec -tt box -- cat` ends, also within a line."""
    told = await daemon.cli("exec", "-tt", "web1", "--", "cat; exit 3", stdin=stdin)
    assert told.code == 3
    assert stdin.strip() in told.out
