"""Syncs when something goes wrong: the link, a side, the daemon, or a person stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.proxy import Proxy
from fakes.sshd import PATIENCE, Sshd, descendants, sshd_binary
from fakes.syncing import ROOTS, WAYS, Pair, tree
from fakes.tools import QUICK, tools
from fakes.watch import alive, descriptors, records, soon
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.tools import Tools

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("sync_faults"),
    pytest.mark.needs_sshd,
]

MIB = 1024 * 1024
# So that it takes forty seconds, of which a moment is enough.
LARGE = 40 * MIB
RATE = MIB


class Host:
    """A host, and the daemon that syncs with it."""

    def __init__(self, sshd: Sshd, network: Proxy, world: World, home: Path) -> None:
        self.sshd = sshd
        self.network = network
        self.world = world
        self.home = home


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    directory = tmp_path_factory.mktemp("sshd")
    home = directory / "remote-home"
    home.mkdir()
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    with (
        Sshd(directory, options={"SetEnv": f"HOME={home}"}) as sshd,
        Proxy(sshd.port) as network,
    ):
        config = network.config(sshd, directory / "through-the-proxy")
        world = World(root, ssh_config=config)
        world.configure(f"{ROOTS}[limits]\n{QUICK}")
        with world:
            yield Host(sshd, network, world, home)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def mortal(host: Host) -> Iterator[Host]:
    """Yield the same host, with a daemon that may come to its end."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    config = host.network.config(host.sshd, root / "through-the-proxy")
    world = World(root, ssh_config=config)
    world.configure(f"{ROOTS}[limits]\n{QUICK}")
    with world:
        yield Host(host.sshd, host.network, world, host.home)
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module")
async def ssh(host: Host) -> AsyncIterator[Tools]:
    async with tools(host.world, "--results", "structured") as one:
        yield one


@pytest_asyncio.fixture(params=WAYS, loop_scope="module")
async def lone(
    request: pytest.FixtureRequest, mortal: Host, tmp_path: Path
) -> AsyncIterator[Pair]:
    async with tools(mortal.world, "--results", "structured") as one:
        yield Pair(one, tmp_path, request.param)


def about(place: Path) -> dict[int, str]:
    """Return processes that were told of a directory, and their command lines."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if os.fsencode(place) in line and b"rsync" in line:
                    words = line.replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = words
    return found


def drafts(pair: Pair) -> list[Path]:
    return list(pair.destination.glob(".large*"))


@pytest.fixture
def slow(host: Host) -> Iterator[None]:
    """Have the network be slow until the end of the test."""
    host.network.throttle(RATE)
    yield
    host.network.heal()


async def under_way(pair: Pair) -> asyncio.Task[Any]:
    """Begin to sync a large file, and return when a part of it has arrived."""
    with (pair.source / "large").open("wb") as file:
        file.truncate(LARGE)
    task = asyncio.create_task(pair.ssh.call("ssh_sync", **pair.filled({})))
    await soon(lambda: [d for d in drafts(pair) if d.stat().st_size], "a part arrives")
    return task


def cut(sshd: Sshd) -> None:
    """Kill the server's end of each connection, and not what runs on the host."""
    for pid in descendants(sshd.pid):
        with contextlib.suppress(OSError):
            if "sshd" in Path(f"/proc/{pid}/comm").read_text():
                os.kill(pid, signal.SIGKILL)


async def running(host: Host, pair: Pair) -> str:
    """Return the id of the job that syncs, as another client sees it."""
    told = await asyncio.to_thread(host.world.cli_json, "jobs", "--running")
    (job,) = [row for row in told["jobs"] if str(pair.source) in row["command"]]
    return str(job["job_id"])


async def nothing_left(pair: Pair) -> None:
    await soon(lambda: not about(pair.place), "both sides have ended")
    await soon(lambda: not drafts(pair), "no part is left")
    assert not (pair.destination / "large").exists()


@pytest.mark.usefixtures("slow")
async def test_a_lost_link_is_told_and_the_sync_called_again(
    host: Host, pair: Pair
) -> None:
    """FI-02: unknown what came of it; nothing half is seen; again, and it is done."""
    task = await under_way(pair)
    cut(host.sshd)
    host.network.heal()
    result = await task
    error = result["structuredContent"]["error"]
    assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "unknown")
    assert "again" in error["hint"]
    await nothing_left(pair)
    (pair.source / "large").write_bytes(b"small now")
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)


@pytest.mark.usefixtures("slow")
async def test_stopping_ends_both_sides(host: Host, pair: Pair) -> None:
    """FI-02, NF-10: ssh_job_stop leaves no process and no part of a file."""
    task = await under_way(pair)
    job = await running(host, pair)
    stopped = await asyncio.to_thread(host.world.cli_json, "job", job, "--stop")
    assert stopped["status"] == "cancelled"
    result = await task
    assert result["structuredContent"]["status"] == "cancelled"
    await nothing_left(pair)


@pytest.mark.usefixtures("slow")
async def test_the_daemon_is_killed(mortal: Host, lone: Pair) -> None:
    """FI-02: no process outlives it; the next daemon goes on with the job."""
    task = await under_way(lone)
    job = await running(mortal, lone)
    begun = about(lone.place)
    assert begun
    mortal.world.kill()
    assert (await task)["isError"]
    # the shim starts another daemon, which begins others for the same job
    await soon(lambda: not any(map(alive, begun)), "both sides have ended")
    mortal.network.heal()
    assert (await lone.ssh.ended(job))["exit_code"] == 0
    assert tree(lone.destination) == tree(lone.source)


@pytest.mark.usefixtures("slow")
async def test_the_daemon_is_stopped(mortal: Host, lone: Pair) -> None:
    """FI-02: a stop in good order ends both sides too; it is the next daemon's then."""
    task = await under_way(lone)
    await asyncio.to_thread(mortal.world.stop)
    result = await task
    told = result["structuredContent"]
    assert told.get("status") == "running" or told["error"]["ran"] == "unknown"
    await nothing_left(lone)


@pytest.mark.usefixtures("slow")
async def test_a_person_who_leaves_ends_it(host: Host, pair: Pair) -> None:
    """FI-02: Ctrl-C of `holdfast sync` ends both sides, as rsync's own does."""
    await left(host, pair)
    await nothing_left(pair)


@pytest.mark.usefixtures("slow")
async def test_called_again_at_once(host: Host, pair: Pair) -> None:
    """FI-02: what is just being ended is waited for, not taken for another one."""
    await left(host, pair)
    host.network.heal()
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)


async def left(host: Host, pair: Pair) -> None:
    """Have a person sync, and press Ctrl-C in the middle."""
    with (pair.source / "large").open("wb") as file:
        file.truncate(LARGE)
    here, there = str(pair.source), f"box:{pair.destination}"
    if pair.way == "download":
        here, there = f"box:{pair.source}", str(pair.destination)
    process = subprocess.Popen(  # noqa: ASYNC220
        [program("holdfast"), "sync", here, there],
        env=host.world.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        await soon(lambda: [d for d in drafts(pair) if d.stat().st_size], "a part")
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 130


@pytest.mark.usefixtures("slow")
async def test_rsync_of_this_machine_is_killed(pair: Pair) -> None:
    """FI-02: by somebody else: that is no success, and the host's side ends too."""
    task = await under_way(pair)
    command = ["pgrep", "-f", f"rsync --archive.*{pair.place}"]
    found = subprocess.run(  # noqa: ASYNC221
        command, check=True, capture_output=True, text=True
    )
    for pid in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    result = await task
    error = result["structuredContent"]["error"]
    assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "unknown")
    await soon(lambda: not about(pair.place), "both sides have ended")


async def test_a_start_up_file_that_prints(host: Host, pair: Pair) -> None:
    """FI-02: rsync itself gives up there ("is your shell clean?"); this does not."""
    start_up = host.home / ".bashrc"
    start_up.write_text("echo Welcome to this host; printf 'no line end'\n")
    try:
        pair.fill({"a": b"1" * 100_000})
        await pair.sync()
    finally:
        start_up.unlink()
    assert tree(pair.destination) == tree(pair.source)


async def test_what_can_not_be_done_is_told_by_name(pair: Pair) -> None:
    """FI-02: the others are synced; the error names those that are not."""
    pair.fill({"a": b"1", "b": b"2", "c": b"3"})
    pair.fill({"b/in the way": b""}, pair.destination)
    error = await pair.refused()
    assert (error["reason"], error["ran"]) == ("FILE_FAILED", "yes")
    assert "b" in error["message"]
    assert error["exit_code"] == "23"
    assert error["job_id"]
    assert (pair.destination / "a").read_bytes() == b"1"
    assert (pair.destination / "c").read_bytes() == b"3"


async def test_a_full_disk(pair: Pair) -> None:
    """FI-02: it is said, and nothing half is left under the file's name."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root")
    pair.destination.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(pair.destination)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:  # noqa: ASYNC221
        pytest.skip("nothing can be mounted here")
    try:
        pair.fill({"small": b"1", "z-large": os.urandom(3 * MIB)})
        error = await pair.refused()
        assert (error["reason"], error["cause"]) == ("FILE_FAILED", "space")
        assert error["ran"] == "yes"
        assert not (pair.destination / "z-large").exists()
    finally:
        subprocess.run(["umount", "-l", str(pair.destination)], check=True)  # noqa: ASYNC221


async def test_a_source_that_is_not_there(pair: Pair) -> None:
    """FI-02: nothing is made, and nothing deleted."""
    pair.fill({"old": b""}, pair.destination)
    shutil.rmtree(pair.source)
    for _ in range(2):
        error = await pair.refused(delete=True)
        assert error["ran"] == "no"
        expected = "INVALID_ARGUMENT" if pair.way == "upload" else "FILE_NOT_FOUND"
        assert error["reason"] == expected
        assert str(pair.source) in error["message"]
        assert (pair.destination / "old").exists()
        pair.source.write_text("a file")


async def test_no_directory_above_the_destination(pair: Pair) -> None:
    """FI-02: it is named, and what to do."""
    pair.fill({"a": b"1"})
    error = await pair.refused(destination=str(pair.place / "no" / "such"))
    assert (error["reason"], error["cause"]) == ("FILE_FAILED", "missing")
    assert "first" in error["hint"]


async def test_no_login_and_no_descriptor_more(host: Host, pair: Pair) -> None:
    """FI-02: it goes over the connection there is, and leaves nothing open."""
    pair.fill({"a": b"1"})
    await pair.sync()
    logins, before = host.sshd.logins, descriptors(host.world.pid)
    for number in range(5):
        pair.fill({f"more{number}": b"1"})
        await pair.sync()
    assert host.sshd.logins == logins
    await soon(lambda: descriptors(host.world.pid) <= before, "all are closed")


async def test_the_same_call_twice(pair: Pair) -> None:
    """NF-17: one job; another request under the same id is refused."""
    pair.fill({"a": b"1"})
    ident = f"again-{pair.way}"
    first = await pair.sync(request_id=ident)
    again = await pair.sync(request_id=ident)
    assert again["job_id"] == first["job_id"]
    assert again["created"] == first["created"]
    error = await pair.refused(request_id=ident, delete=True)
    assert error["reason"] == "REQUEST_ID_REUSED"


async def test_the_record_says_what_was_synced(host: Host, pair: Pair) -> None:
    """AU-01: who, which way, from where to where, and how."""
    pair.fill({"a": b"1"})
    await pair.sync(delete=True, exclude=["*.log"])

    def both() -> list[dict[str, Any]]:
        rows = [r for r in records(host.world) if r["tool"] == "ssh_sync"]
        mine = [r for r in rows if r["metadata"]["source"] == str(pair.source)]
        return mine if len(mine) == 2 else []

    begun, ended = await soon(both, "both are recorded")
    about_it = begun["metadata"]
    assert begun["event_type"] == "file_operation"
    assert about_it["source"] == str(pair.source)
    assert about_it["destination"] == str(pair.destination)
    assert pair.way.upper() in str(about_it["direction"])
    assert (about_it["delete"], about_it["exclude"]) == (True, ["*.log"])
    assert ended["metadata"]["created"] == 2
    assert ended["exit_code"] == 0
