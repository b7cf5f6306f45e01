"""The daemon's own disk refuses: hosts go on keeping what is not safe here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, served, tools
from fakes.watch import moment, soon
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
DISK = 24 * MIB
DATA = b"".join(b"line %d\n" % number for number in range(450_000))
SECONDS = 40
# nobody is waited for in vain while a test runs
PATIENT = "kept_patience_seconds = 300\n"
AWAY = {"CONNECTION_LOST", "DAEMON_LOST", "DAEMON_UNAVAILABLE", "SESSION_BUSY"}

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(150)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


class Disk:
    """The disk below a daemon's state directory."""

    def __init__(self, state: Path) -> None:
        self._filler = state / "filler"

    def fill(self) -> None:
        """Leave no byte free on it."""
        with contextlib.suppress(OSError), self._filler.open("ab", 0) as file:
            while file.write(bytes(4096)):
                continue

    def clear(self) -> None:
        """Make room."""
        self._filler.unlink()


@pytest.fixture
def small(short_path: Path, host: Sshd) -> Iterator[World]:
    """A world, not started yet, whose state directory is a small file system."""
    world = World(short_path, ssh_config=host.config)
    world.state.mkdir(mode=0o700)
    options = f"size={DISK},mode=0700"
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(world.state)]
    if os.geteuid() != 0 or subprocess.run(words, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield world
    finally:
        subprocess.run(["umount", "-l", str(world.state)], check=True)


def log_of(host: Sshd, name: str) -> Path:
    """Return what the host keeps of something's output."""
    (found,) = (host.directory / "home/.cache/holdfast/kept").glob(f"*/{name}")
    return found


def kept(host: Sshd) -> list[Path]:
    room = host.directory / "home/.cache/holdfast/kept"
    return [*room.glob("j*/r/1"), *room.glob("s*/r/1")]


def printing(host: Sshd, data: bytes = DATA) -> tuple[str, Path]:
    """Return a command that prints `data` when that path is there."""
    gate, source = host.directory / "gate", host.directory / "data"
    source.write_bytes(data)
    command = f"echo up; until [ -e {gate} ]; do sleep 0.02; done; cat {source}"
    return f"{command}; (exit 3)", gate


async def begin(ssh: Tools, way: str, command: str) -> str:
    """Start a command that its host keeps; return its job's id."""
    if way == "durable":
        return await ssh.start(command, durable=True)
    opened = {"target": "box", "session_name": "one", "durability": "remote"}
    await ssh.told("ssh_session_open", **opened)
    told = await ssh.told(
        "ssh_session_run", session="one", command=command, wait_seconds=0
    )
    return str(told["job_id"])


async def patiently(ssh: Tools, tool: str, **arguments: object) -> Result:
    """Call until the daemon is there again, and knows its hosts."""
    async with asyncio.timeout(SECONDS):
        while True:
            told = await ssh.call(tool, **arguments)
            if "isError" not in told:
                return dict(told["structuredContent"])
            assert told["structuredContent"]["error"]["reason"] in AWAY, told
            await moment()


async def came(ssh: Tools, job_id: str, size: int) -> Result:
    """Read a job until so much of it is here and the disk's trouble is told."""
    async with asyncio.timeout(SECONDS):
        while True:
            told = await ssh.read(job_id, wait_seconds=0, max_output_chars=100)
            if told["stdout_bytes"] >= size and "No space left" in told["note"]:
                return told
            await moment()


async def whole(ssh: Tools, job_id: str, data: bytes) -> Result:
    """Wait for a job's end; `up` and all of `data` must be there."""
    await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
    async with asyncio.timeout(SECONDS):
        told = await ssh.ended(job_id)
    assert (told["status"], told.get("exit_code")) == ("exited", 3), told["note"]
    data = b"up\n" + data
    got, offset = hashlib.sha256(), 0
    while offset < len(data):
        page = await ssh.read(job_id, offset=offset, max_output_chars=900_000)
        got.update(page["stdout"].encode())
        assert page["next_offset"] > offset
        offset = page["next_offset"]
    assert got.hexdigest() == hashlib.sha256(data).hexdigest(), told["note"]
    return told


WAYS = pytest.mark.parametrize("way", ["run", "durable"])


@WAYS
async def test_what_a_full_disk_refused_stays_on_its_host(
    small: World, host: Sshd, way: str
) -> None:
    """NF-10, NF-20: the daemon is killed while its disk is full: not a byte is lost."""
    command, gate = printing(host)
    small.configure(f"[limits]\n{QUICK}{PATIENT}kept_bytes = {MIB}\n")
    disk = Disk(small.state)
    with small:
        async with tools(small, "--no-autostart") as ssh:
            job_id = await begin(ssh, way, command)
            await ssh.until(job_id, "up")
            await asyncio.to_thread(disk.fill)
            gate.touch()
            # all that its host may keep: the rest waits for room there
            await came(ssh, job_id, MIB)
            log = log_of(host, "r/1/o")
            assert not log.with_name("o.low").exists()
            await asyncio.to_thread(small.kill)
            disk.clear()
            await asyncio.to_thread(small.start)
            await whole(ssh, job_id, DATA)
            await soon(lambda: not kept(host), "its host forgets it")


@WAYS
async def test_all_of_it_comes_once_there_is_room_again(
    small: World, host: Sshd, way: str
) -> None:
    """NF-10, SE-02: more than memory may hold came, and the host kept what did not."""
    command, gate = printing(host)
    small.configure(f"[limits]\n{QUICK}{PATIENT}")
    disk = Disk(small.state)
    with small:
        async with tools(small, "--no-autostart") as ssh:
            job_id = await begin(ssh, way, command)
            await ssh.until(job_id, "up")
            await asyncio.to_thread(disk.fill)
            gate.touch()
            told = await came(ssh, job_id, MIB)
            assert "so its host keeps it" in told["note"]
            log = log_of(host, "r/1/o")
            await soon(lambda: log.stat().st_size > len(DATA), "it printed all there")
            disk.clear()
            told = await whole(ssh, job_id, DATA)
            assert "disk" not in told.get("note", "")
            await soon(lambda: not kept(host), "its host forgets it")


class Obstacle:
    """A directory where output is to be written: what else there is finds room."""

    def __init__(self, output: Path) -> None:
        self._path = output / f"{0:020}.seg"
        self._away = output / "away"
        if self._path.exists():
            self._path.rename(self._away)
        self._path.mkdir(parents=True, mode=0o700)

    def clear(self) -> None:
        """Let it be written."""
        self._path.rmdir()
        if self._away.exists():
            self._away.rename(self._path)


async def noted(ssh: Tools, world: World) -> Result:
    """Wait until the only session is over, and its record written after that."""
    async with asyncio.timeout(SECONDS):
        while (await ssh.told("ssh_session_list"))["sessions"]:
            await moment()
    (record,) = (world.state / "sessions").glob("*/session.json")
    before = record.stat().st_mtime_ns
    # who reads on has it written
    told = await ssh.told("ssh_session_read", session="one")
    await soon(lambda: record.stat().st_mtime_ns > before, "it is written")
    return told


@pytest.mark.parametrize("way", ["run", "durable", "last"])
@pytest.mark.parametrize("killed", [True, False])
async def test_an_end_is_not_written_ahead_of_its_output(
    host: Sshd, way: str, killed: bool
) -> None:
    """NF-10, NF-20: its host keeps a command that ended until its output is here."""
    data = DATA[: 300 * KIB]
    command, gate = printing(host, data)
    command = command.replace("echo up; ", "")
    if way == "last":
        # its session ends with it, and is to be wiped too
        command = command.replace("(exit 3)", "exit 3")
    with served(host, limits=f"{QUICK}{PATIENT}") as world:
        async with tools(world, "--no-autostart") as ssh:
            job_id = await begin(ssh, way, command)
            obstacle = Obstacle(world.state / "jobs" / job_id)
            gate.touch()
            async with asyncio.timeout(SECONDS):
                told = await ssh.ended(job_id)
                assert (told["status"], told["exit_code"]) == ("exited", 3)
                while "so its host keeps it" not in told.get("note", ""):
                    told = await ssh.read(job_id, offset=0)
            if way == "last":
                await noted(ssh, world)
            assert len(kept(host)) == 1
            if killed:
                await asyncio.to_thread(world.kill)
                obstacle.clear()
                await asyncio.to_thread(world.start)
            else:
                obstacle.clear()
            await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
            async with asyncio.timeout(SECONDS):
                told = await ssh.ended(job_id)
            assert (told["status"], told["exit_code"]) == ("exited", 3), told
            page = await ssh.read(job_id, offset=0, max_output_chars=900_000)
            assert page["stdout"].encode() == data
            await soon(lambda: not kept(host), "its host forgets it", 40)


async def shown(ssh: Tools, session: str = "one") -> bytes:
    """Return all that a session printed, as far as it is here."""
    got, offset = b"", 0
    while True:
        page = await patiently(
            ssh, "ssh_session_read", session=session, view="raw", offset=offset,
            max_output_chars=900_000,
        )  # fmt: skip
        offset = page["next_offset"]
        got += str(page["output"]).encode()
        if not page["pending_output_chars"]:
            return got.replace(b"\r\n", b"\n")


async def pending(ssh: Tools) -> int:
    told = await ssh.told("ssh_session_read", session="one", view="raw", offset=0)
    return int(told["next_offset"] + told["pending_output_chars"])


async def typed(ssh: Tools, disk: Disk | None, command: str, gate: Path) -> None:
    """Type a command, and let it begin once `disk` is full."""
    opened = {"target": "box", "session_name": "one", "durability": "remote"}
    await ssh.told("ssh_session_open", **opened)
    keys = f"{command}; echo o''ver\n"
    await ssh.told(
        "ssh_session_write", session="one", input=keys, until="up\n", wait_seconds=20
    )
    if disk is not None:
        await asyncio.to_thread(disk.fill)
        await asyncio.to_thread(gate.touch)


@pytest.mark.parametrize("killed", [True, False])
async def test_what_a_shell_prints_stays_on_its_host(
    small: World, host: Sshd, killed: bool
) -> None:
    """SE-02, NF-20: receipts are for what is on our disk, and go on once there is room.

    Whether the daemon is killed meanwhile, or its memory could not hold all of it.
    """
    command, gate = printing(host)
    bound = f"kept_bytes = {MIB}\n" if killed else ""
    small.configure(f"[limits]\n{QUICK}{PATIENT}{bound}")
    disk = Disk(small.state)
    with small:
        async with tools(small, "--no-autostart") as ssh:
            await typed(ssh, disk, command, gate)
            async with asyncio.timeout(SECONDS):
                while await pending(ssh) < MIB:
                    await moment()
            log = log_of(host, "out")
            assert not log.with_name("out.low").exists()
            listed = await ssh.told("ssh_session_list")
            assert "so its host keeps it: No space" in listed["sessions"][0]["note"]
            read = await ssh.told("ssh_session_read", session="one", max_output_chars=9)
            assert "so its host keeps it: No space" in read["note"]
            if killed:
                await asyncio.to_thread(small.kill)
                disk.clear()
                await asyncio.to_thread(small.start)
            else:
                await soon(lambda: log.stat().st_size > len(DATA), "it printed all")
                disk.clear()
            async with asyncio.timeout(SECONDS):
                while b"over\n" not in (got := await shown(ssh)):
                    await moment()
            assert got.count(DATA) == 1
            told = await patiently(ssh, "ssh_session_run", session="one", command=":")
            assert told["exit_code"] == 0
            read = await ssh.told("ssh_session_read", session="one")
            assert not read.get("note")
            low = log.with_name("out.low")
            if killed:
                await soon(low.exists, "its host dropped what is safe")
            await ssh.told("ssh_session_close", session="one", force=True)


async def test_what_a_shell_printed_before_its_end_is_not_wiped(host: Sshd) -> None:
    """SE-02, SE-06: its record can be written, its output can't: the host keeps it."""
    data = DATA[: 300 * KIB]
    command, gate = printing(host, data)
    with served(host, limits=f"{QUICK}{PATIENT}") as world:
        async with tools(world, "--no-autostart") as ssh:
            await typed(ssh, None, f"{command}; exit 4", gate)
            places = world.state / "sessions"
            (file,) = await soon(lambda: [*places.glob("*/output/*.seg")], "it is kept")
            obstacle = Obstacle(file.parent)
            await asyncio.to_thread(gate.touch)
            read = await noted(ssh, world)
            assert (read["exit_reason"], read["exit_code"]) == ("exited", 4)
            log = log_of(host, "out")
            await asyncio.to_thread(world.kill)
            obstacle.clear()
            await asyncio.to_thread(world.start)
            async with asyncio.timeout(SECONDS):
                while data not in (got := await shown(ssh)):
                    await moment()
            assert got.count(data) == 1
            await soon(lambda: not log.exists(), "its host forgets it", 40)
            read = await ssh.told("ssh_session_read", session="one")
            assert (read["exit_reason"], read["exit_code"]) == ("exited", 4)


@WAYS
async def test_a_host_that_waited_long_enough_drops_and_that_is_told(
    host: Sshd, way: str
) -> None:
    """SE-02, NF-10: beyond its bound and patience the oldest goes; the gap is told."""
    data = DATA[: 400 * KIB]
    command, gate = printing(host, data)
    limits = f"{QUICK}kept_patience_seconds = 3\nkept_bytes = {256 * KIB}\n"
    with served(host, limits=limits) as world:
        async with tools(world, "--no-autostart") as ssh:
            job_id = await begin(ssh, way, command.replace("echo up; ", ""))
            obstacle = Obstacle(world.state / "jobs" / job_id)
            await asyncio.to_thread(gate.touch)
            async with asyncio.timeout(SECONDS):
                told = await ssh.ended(job_id)
            # nobody was held up for good, and memory held all of it
            assert (told["exit_code"], told["stdout_bytes"]) == (3, len(data))
            await asyncio.to_thread(world.kill)
            obstacle.clear()
            await asyncio.to_thread(world.start)
            await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
            async with asyncio.timeout(SECONDS):
                told = await ssh.ended(job_id)
            assert (told["status"], told["exit_code"]) == ("exited", 3), told
            assert "the host kept no more of it: stdout before" in told["note"]
            page = await ssh.read(job_id, offset=0, max_output_chars=900_000)
            assert 0 < len(page["stdout"]) < len(data)
            assert data.endswith(page["stdout"].encode())


async def test_a_gap_of_a_shell_is_told(small: World, host: Sshd) -> None:
    """SE-02, SE-12: the same of what a terminal printed: a note on every answer."""
    data = DATA[: 400 * KIB]
    command, gate = printing(host, data)
    limits = f"kept_patience_seconds = 3\nkept_bytes = {256 * KIB}\n"
    small.configure(f"[limits]\n{QUICK}{limits}")
    disk = Disk(small.state)
    with small:
        async with tools(small, "--no-autostart") as ssh:
            await typed(ssh, disk, command, gate)
            async with asyncio.timeout(SECONDS):
                while b"over\n" not in await shown(ssh):
                    await moment()
            await asyncio.to_thread(small.kill)
            disk.clear()
            await asyncio.to_thread(small.start)
            async with asyncio.timeout(SECONDS):
                while b"over\n" not in (got := await shown(ssh)):
                    await moment()
            assert data not in got
            read = await ssh.told("ssh_session_read", session="one")
            assert "its host kept no more of it" in read["note"]
            await ssh.told("ssh_session_close", session="one", force=True)


@WAYS
async def test_a_host_drops_what_a_daemon_that_lives_could_not_take(
    small: World, host: Sshd, way: str
) -> None:
    """SE-02, NF-10: the command ends there, and a gap follows what memory has."""
    command, gate = printing(host)
    done = host.directory / "done"
    limits = f"kept_patience_seconds = 0\nkept_bytes = {256 * KIB}\n"
    small.configure(f"[limits]\n{QUICK}{limits}")
    disk = Disk(small.state)
    with small:
        async with tools(small, "--no-autostart") as ssh:
            words = command.replace("(exit 3)", f"touch {done}; (exit 3)")
            job_id = await begin(ssh, way, words)
            await ssh.until(job_id, "up")
            await asyncio.to_thread(disk.fill)
            await asyncio.to_thread(gate.touch)
            await soon(done.exists, "nobody holds it up", SECONDS)
            told = await ssh.read(job_id, offset=0)
            assert told["status"] == "running"
            disk.clear()
            async with asyncio.timeout(SECONDS):
                told = await ssh.ended(job_id)
            assert (told["status"], told["exit_code"]) == ("exited", 3), told
            assert "the host kept no more of it: stdout before" in told["note"]
            assert "not kept" not in told["note"]
            assert "discarded" not in told["note"]
            whole, offset = b"", 0
            while offset < told["stdout_bytes"]:
                page = await ssh.read(job_id, offset=offset, max_output_chars=900_000)
                whole += page["stdout"].encode()
                offset = page["next_offset"]
            # all that came is here, from its start on and to its end
            assert 0 < len(whole) == told["stdout_bytes"] < len(DATA)
            assert whole.startswith(b"up\n")
            assert whole.endswith(DATA[-100 * KIB :])
