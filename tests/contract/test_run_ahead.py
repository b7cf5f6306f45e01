"""A kept shell's next command, waited for on its host: nothing is different."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from fakes.gate import Gate
from fakes.links import Collector
from fakes.sshd import Sshd
from fakes.told_shell import Session, session, tellers
from fakes.tools import Tools, served, tools
from fakes.watch import alive, moment, soon
from holdfast_daemon.errors import LinkError, Ran

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

# how the host's script ends where it was not told
UNTOLD = 82
# no shell may wait where the login shell does something as it starts; this counts that
STARTS = {".bashrc": "echo x >>~/starts\n"}
SHELLS = ("bash", "dash", "zsh", "fish", "ash")
TRIES = 5


async def ended(process: int) -> None:
    """Wait until it is gone."""
    await soon(lambda: not alive(process), "it has ended")


async def run_by_it(one: Session, command: str) -> tuple[int | None, bytes, bytes]:
    """Run one that was waited for, and see that who did so told it, and no login shell.

    That one is there a moment before that is known here, and others may start theirs.
    """
    starts = one.kept.sshd.directory / "starts"
    for _ in range(TRIES):
        teller = await one.ahead()
        before = starts.read_text()
        line, sink = await one.start(command)
        by = await soon(one.readers, "somebody reads what it prints")
        same = starts.read_text() == before
        async with asyncio.timeout(40):
            end = await line.ended()
        line.forget()
        await line.heeded()
        if by == [str(teller)] and same:
            return end.exit_code, sink.out, sink.err
    pytest.fail("none was told by who waited for it")


def unread(process: int) -> int:
    """Return how many bytes of its standard input, a pipe, nobody has read."""
    pipe = os.open(f"/proc/{process}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0))
    finally:
        os.close(pipe)
    return int(struct.unpack("i", found)[0])


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_same_as_any(tmp_path: Path, shell: str) -> None:
    """SE-02: its output, byte exact, both streams apart, and its exit code."""
    async with session(tmp_path, shell, STARTS) as one:
        await one.run("true")
        assert await run_by_it(one, "sh -c 'exit 77'") == (77, b"", b"")
        told = await run_by_it(one, "echo out; echo err >&2; printf 'no newline'")
        assert told == (0, b"out\nno newline", b"err\n")
        raw = bytes(range(1, 256)) * 4112 + b"\x1e0123:run 0:/:0123\x1e\n\x1e"
        (tmp_path / "raw").write_bytes(raw)
        assert await run_by_it(one, f"cat {tmp_path}/raw") == (0, raw, b"")
        # lines, and quotes of all kinds, and what a shell would take for its own
        words = "printf '%s\\n' 'a\tb' \"c'd\"\necho '$(id) `id` \\ ; &'"
        assert await run_by_it(one, words) == (
            0,
            b"a\tb\nc'd\n$(id) `id` \\ ; &\n",
            b"",
        )
        assert await run_by_it(one, "cat; cd /tmp") == (0, b"", b"")
        assert await run_by_it(one, "pwd") == (0, b"/tmp\n", b"")


async def test_a_long_one_is_told_as_any(tmp_path: Path) -> None:
    """SE-02: what is too long for a line; nobody waits for it any more then."""
    async with session(tmp_path, "bash", STARTS) as one:
        await one.run("true")
        for size in (2000, 4000, 1_000_000):
            teller = await one.ahead()
            assert await one.out("# " + "'" * size + "\necho after") == b"after\n"
            await ended(teller)


async def test_one_that_was_not_told_ends_without_a_trace(tmp_path: Path) -> None:
    """SE-02: killed, or given up: the next command is told as any, and once."""
    async with session(tmp_path, "bash", STARTS) as one:
        await one.run("true")
        for signum in (signal.SIGTERM, signal.SIGKILL):
            teller = await one.ahead()
            os.kill(teller, signum)
            await ended(teller)
            # that its channel has ended is known here before anything that is asked now
            await one.runs.latest("sone")
            assert await one.out("echo x >> ~/marks; echo ran") == b"ran\n"
        teller = await one.ahead()
        one.runs.unprepare("sone")
        await ended(teller)
        assert await one.out("echo ran") == b"ran\n"
        assert (tmp_path / "marks").read_text() == "x\nx\n"


async def test_one_that_dies_with_its_words_is_settled(tmp_path: Path) -> None:
    """SE-11: whether a command was typed is asked of its host, and it never was."""
    async with session(tmp_path, "bash", STARTS) as one:
        await one.run("true")
        teller = await one.ahead()
        os.kill(teller, signal.SIGSTOP)
        telling = asyncio.create_task(one.start("echo x >> ~/marks"))
        # its words are there, and it does not read them
        await soon(lambda: unread(teller), "the words came")
        os.kill(teller, signal.SIGKILL)
        with pytest.raises(LinkError) as caught:
            async with asyncio.timeout(20):
                await telling
        assert caught.value.ran is Ran.UNKNOWN
        line = await one.runs.follow("sone", one.number, one.nonce, (0, 0), Collector())
        async with asyncio.timeout(40):
            assert (await line.ended()).not_begun
        assert await one.out("echo ran") == b"ran\n"
        assert not (tmp_path / "marks").exists()


async def test_none_waits_while_another_runs(tmp_path: Path) -> None:
    """SE-02: the one that runs keeps its way out to its end."""
    gate = Gate(tmp_path / "gate")
    async with session(tmp_path, "bash", STARTS) as one:
        line, sink = await one.start(f"{gate.wait}; echo out")
        answer = await one.kept.keeper.asking.ask("ahead", "sone", "2")
        assert answer.end.exit_code == UNTOLD
        assert not (one.kept.room / "sone/r/2").exists()
        gate.open()
        async with asyncio.timeout(40):
            assert (await line.ended()).exit_code == 0
        line.forget()
        assert sink.out == b"out\n"
        assert await one.out("echo next") == b"next\n"


async def test_it_is_given_up_after_a_while(tmp_path: Path) -> None:
    """SE-22: nothing is left on a host that nobody uses."""
    async with session(tmp_path, "bash", STARTS, channels_waiting_seconds=3) as one:
        await one.run("true")
        await ended(await one.ahead())


async def test_there_are_few_of_them(tmp_path: Path) -> None:
    """SE-21: as many as are allowed, for the sessions that came first."""
    limits = "channels_prepared = 1\n"
    (tmp_path / ".bashrc").write_text(STARTS[".bashrc"])
    options = {"SetEnv": f"HOME={tmp_path}"}
    with Sshd(tmp_path, options=options) as host, served(host, limits=limits) as world:
        async with tools(world, "--results", "structured") as ssh:
            one, two = await opened(ssh, tmp_path), await opened(ssh, tmp_path)
            first = await waited_for(ssh, one)
            before = tellers(two)
            await ssh.told("ssh_session_run", session=two.name, command="true")
            for _ in range(20):
                await moment()
            await soon(lambda: tellers(two) <= before, "none waits there")
            assert alive(first)
            await ssh.told("ssh_session_close", session=one.name, force=True)
            await ended(first)
            await waited_for(ssh, two)


async def test_they_make_room_for_others(tmp_path: Path) -> None:
    """SE-21: a server that takes no more channels has them for what is asked for."""
    (tmp_path / ".bashrc").write_text(STARTS[".bashrc"])
    options = {"SetEnv": f"HOME={tmp_path}", "MaxSessions": "4"}
    limits = "channels_waiting = 1\n"
    with Sshd(tmp_path, options=options) as host, served(host, limits=limits) as world:
        async with tools(world, "--results", "structured") as ssh:
            one = await opened(ssh, tmp_path)
            teller = await waited_for(ssh, one)
            for _ in range(3):
                # these need a terminal, which no channel that waits has
                await ssh.told(
                    "ssh_session_open", target="box", durability="held", new=True
                )
            await ended(teller)
            ran = await ssh.told(
                "ssh_session_run", session=one.name, command="echo out"
            )
            assert ran["stdout"] == "out\n"


async def waited_for(ssh: Tools, room: Path) -> int:
    """Run a command in the session of `room`; return who waits for its next one."""
    before = tellers(room)
    await ssh.told("ssh_session_run", session=room.name, command="true")

    def waits() -> int:
        # who told the first one goes once that is forgotten
        found = tellers(room) - before
        return found.pop() if len(found) == 1 and not (room / "r/1").exists() else 0

    return await soon(waits, "the next one is waited for")


async def opened(ssh: Tools, home: Path) -> Path:
    """Return where a new session is kept."""
    told = await ssh.told(
        "ssh_session_open", target="box", durability="remote", new=True
    )
    return home / ".cache/holdfast/kept" / str(told["session_id"])
