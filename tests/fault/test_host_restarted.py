"""A host is restarted under a session: lost, said so, and gone on with on request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.kept import spare_fish
from fakes.sshd import Sshd
from fakes.tools import Result, Tools, served, tools
from fakes.watch import soon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]

SECRET = "hunter2-\\ 'quoted' \"twice\" $HOME `id`\nand a second line"
POSIX = "cd {cwd}; export SECRET={value}; export PATH=$PATH:/opt/theirs EMPTY="
FISH = (
    "cd {cwd}; set -gx SECRET {value}; set -gx PATH $PATH /opt/theirs; set -gx EMPTY ''"
)
# What is there behind a shell's own start-up files.
SHOW = (
    "printenv SECRET; printenv PATH; printenv EMPTY; printenv TERM; pwd;"
    " env | grep -c _hf"
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "remote-home"
    spare_fish(home)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


def room(host: Sshd) -> Path:
    return host.directory.parent / "remote-home/.cache/holdfast/kept"


def kept(host: Sshd) -> Path:
    """Return the one directory of a session there."""
    (found,) = room(host).glob("s*")
    return found


def power_cycle(host: Sshd, *, under_way: bool = False) -> None:
    """Have the host come up again: another boot id, and no process is left."""
    directory = kept(host)
    if not under_way:
        until(lambda: written_down(directory), "what it exports is written down")
    (directory / "boot").write_text("another\n")
    leaders = {
        (directory / name).read_text().split()[0]
        for name in ("pid", "leader", "slots")
        if (directory / name).exists()
    }
    # Again and again: what was just being started is found by nobody who looks once.
    while left := in_sessions(leaders):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def written_down(directory: Path) -> bool:
    """Return whether the shell is done with its last command: that is told before."""
    now = directory / "r" / "now"
    if not now.exists():
        return True
    end = f"#{now.read_text().strip()}\n"
    return any(one.read_text().endswith(end) for one in directory.glob("env.*"))


def in_sessions(leaders: set[str]) -> list[int]:
    """Return what runs in the sessions of these processes."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # state parent group session
            told = path.read_text().rpartition(")")[2].split()
            if told[3] in leaders and told[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


async def lost(ssh: Tools) -> Result:
    """Return the session once it is known to be over, and cleared up on its host."""
    async with asyncio.timeout(40):
        while True:
            told = await ssh.told("ssh_session_read", session="one", offset=0)
            if not told["running"]:
                return told
            await asyncio.sleep(0.05)


async def open_one(ssh: Tools, **arguments: object) -> Result:
    return await ssh.told(
        "ssh_session_open",
        target="box",
        session_name="one",
        durability="remote",
        **arguments,
    )


async def run(ssh: Tools, command: str) -> Result:
    return await ssh.told("ssh_session_run", session="one", command=command)


async def end(ssh: Tools) -> None:
    await ssh.told("ssh_session_close", session="one", force=True)


def quoted(shell: str) -> str:
    if shell == "fish":
        return "'" + SECRET.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return shlex.quote(SECRET)


@pytest.mark.parametrize("shell", ["bash", "zsh", "dash", "ash", "fish"])
async def test_directory_and_environment_are_as_they_were(
    host: Sshd, shell: str, tmp_path: Path
) -> None:
    """NF-09, SE-06: in each kind of shell, and again without a command in between."""
    cwd = tmp_path / "their work's"
    cwd.mkdir()
    words = FISH if shell == "fish" else POSIX
    if shell == "ash":
        (tmp_path / "ash").symlink_to(shutil.which("busybox") or "")
        shell = str(tmp_path / "ash")
    with served(host) as world:
        async with tools(world) as ssh:
            first = await open_one(ssh, shell=shell)
            there = f'"{cwd}"'
            await run(ssh, words.format(cwd=there, value=quoted(shell)))
            again = first
            for _ in range(2):
                await asyncio.to_thread(power_cycle, host)
                told = await lost(ssh)
                assert told["exit_reason"] == "host_restarted"
                assert "exit_code" not in told
                again = await open_one(ssh, shell=shell)
                assert again["matched_by"] == "restored"
                assert again["session_id"] != first["session_id"]
            shown = await run(ssh, SHOW)
            *secret, path, empty, term, where, ours = shown["stdout"].split("\n")[:-1]
            assert "\n".join(secret) == SECRET
            assert path.endswith(":/opt/theirs")
            assert (empty, term, where, ours) == ("", "xterm-256color", str(cwd), "0")
            assert [one.name for one in room(host).glob("s*")] == [again["session_id"]]
            await end(ssh)
        await soon(lambda: not list(room(host).glob("s*")), "nothing is left there")


async def test_it_stays_on_its_host_for_its_user_alone(host: Sshd) -> None:
    """SE-06: 0600 in 0700 whatever the umask, and nowhere on this machine."""
    with served(host) as world:
        async with tools(world) as ssh:
            await open_one(ssh, shell="bash")
            await run(ssh, "umask 000; a=hunter2; export HIDDEN=$a-$((40+2)); set -a")
            await run(ssh, "umask 000")
            directory = kept(host)
            await soon(lambda: written_down(directory), "what it exports is written")
            saved = sorted(directory.glob("env.*"))
            assert len(saved) == 2
            for one in saved:
                assert stat.S_IMODE(one.stat().st_mode) == 0o600
                assert "hunter2-42" in one.read_text()
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            await asyncio.to_thread(power_cycle, host)
            await lost(ssh)
            await open_one(ssh, shell="bash")
            shown = await run(ssh, "echo ${#HIDDEN}")
            assert shown["stdout"].split("\n")[0] == "10"
            for one in kept(host).iterdir():
                if one.is_file():
                    assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
            await end(ssh)
        await asyncio.to_thread(world.stop)
        for path in world.state.rglob("*"):
            if path.is_file():
                assert b"hunter2-42" not in path.read_bytes(), path


async def test_what_the_caller_asks_for_comes_first(host: Sshd, tmp_path: Path) -> None:
    """NF-09: cwd and env of the call win; a directory that is gone is no obstacle."""
    gone = tmp_path / "gone"
    gone.mkdir()
    with served(host) as world:
        async with tools(world) as ssh:
            await open_one(ssh, shell="bash")
            await run(ssh, f"cd {gone}; export ONE=old TWO=old")
            await asyncio.to_thread(power_cycle, host)
            await lost(ssh)
            gone.rmdir()
            await open_one(ssh, shell="bash", env={"TWO": "new"})
            shown = await run(ssh, "echo $ONE $TWO; pwd")
            home = host.directory.parent / "remote-home"
            assert shown["stdout"] == f"old new\n{home}\n"
            await asyncio.to_thread(power_cycle, host)
            await lost(ssh)
            await open_one(ssh, shell="dash", cwd="/usr")
            shown = await run(ssh, "echo $ONE $TWO; pwd; echo $0")
            assert shown["stdout"].startswith("old new\n/usr\n")
            assert "dash" in shown["stdout"]
            await end(ssh)


async def test_a_record_cut_short_is_not_used(host: Sshd) -> None:
    """NF-09: power failed while it was written: the one before it is whole."""
    with served(host) as world:
        async with tools(world) as ssh:
            await open_one(ssh, shell="bash")
            await run(ssh, "cd /usr; export STAGE=1")
            await run(ssh, "cd /usr/lib; export STAGE=2")
            directory = kept(host)
            await asyncio.to_thread(power_cycle, host)
            newest = directory / "env.0"
            assert 'STAGE="2"' in newest.read_text()
            newest.write_bytes(newest.read_bytes()[:-3])
            await lost(ssh)
            await open_one(ssh, shell="bash")
            shown = await run(ssh, "echo $STAGE; pwd")
            assert shown["stdout"] == "1\n/usr\n"
            await end(ssh)


async def test_a_shell_that_was_hung_up_on_as_the_host_went_down_is_lost_too(
    host: Sshd,
) -> None:
    """NF-09, SE-11: its holder wrote that down, and another boot id says why."""
    with served(host) as world:
        async with tools(world, "--no-autostart") as ssh:
            await open_one(ssh, shell="bash")
            shown = await run(ssh, "cd /usr; export STAGE=9; echo last-words; echo $$")
            await asyncio.to_thread(world.kill)
            directory = kept(host)
            await soon(lambda: written_down(directory), "what it exports is written")
            (directory / "boot").write_text("another\n")
            os.kill(int(shown["stdout"].split()[1]), signal.SIGHUP)
            await soon((directory / "rc").exists, "its end is written down")
            await asyncio.to_thread(world.start)
            told = await lost(ssh)
            assert told["exit_reason"] == "host_restarted"
            assert "exit_code" not in told
            assert "holdfast-end" not in told["output"]
            await open_one(ssh, shell="bash")
            assert (await run(ssh, "echo $STAGE; pwd"))["stdout"] == "9\n/usr\n"
            await end(ssh)


async def test_its_size_is_bounded(host: Sshd) -> None:
    """NF-09: what is too large is not kept, and the session goes on."""
    with served(host) as world:
        async with tools(world) as ssh:
            await open_one(ssh, shell="bash")
            await run(ssh, "export SMALL=1")
            await run(ssh, "export BIG=$(printf %0300000d 1)")
            directory = kept(host)
            sizes: Callable[[], list[int]] = lambda: sorted(  # noqa: E731
                one.stat().st_size for one in directory.glob("env.*")
            )
            await soon(lambda: sizes()[0] == 0, "it is let go of")
            assert 0 < sizes()[1] < 262144
            after = await run(ssh, "unset BIG; echo on")
            assert after["stdout"] == "on\n"
            await end(ssh)


async def test_nobody_else_is_ended_by_a_number_from_before(host: Sshd) -> None:
    """NF-09: numbers of processes come again when a host does, and mean others."""
    with served(host) as world:
        async with tools(world, "--no-autostart") as ssh:
            await open_one(ssh, shell="bash")
            await run(ssh, "export STAGE=1")
            await asyncio.to_thread(world.kill)
            bystander = await asyncio.create_subprocess_exec("sleep", "300")
            try:
                await asyncio.to_thread(power_cycle, host)
                for name in ("pid", "leader", "pump", "slots", "shpid"):
                    (kept(host) / name).write_text(f"{bystander.pid} 12345\n")
                readers = kept(host) / "out.readers"
                (readers / str(bystander.pid)).write_text(f"{bystander.pid}\n")
                await asyncio.to_thread(world.start)
                await lost(ssh)
                await soon(lambda: not readers.exists(), "what is lost is cleared up")
                await open_one(ssh, shell="bash")
                assert (await run(ssh, "echo $STAGE"))["stdout"] == "1\n"
                await end(ssh)
                assert bystander.returncode is None
            finally:
                bystander.kill()
            assert await bystander.wait() == -signal.SIGKILL


@pytest.mark.parametrize("crash", [False, True], ids=["daemon_lives", "daemon_dies"])
async def test_a_command_under_way_is_lost_and_run_no_more(
    host: Sshd, *, crash: bool
) -> None:
    """NF-09, NF-20: told as lost, without an exit code, and never run again."""
    ran = host.directory / "ran"
    with served(host) as world:
        async with tools(world, "--no-autostart") as ssh:
            await open_one(ssh, shell="bash")
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=f"echo once >> {ran}; echo on; sleep 300",
                wait_seconds=0,
            )
            await ssh.until(told["job_id"], "on\n")
            await asyncio.to_thread(cycle_all, host, world, crash=crash)
            job = await ssh.ended(told["job_id"])
            assert job["status"] == "lost"
            assert "exit_code" not in job
            assert (await ssh.read(told["job_id"], offset=0))["stdout"] == "on\n"
            found = await lost(ssh)
            assert found["exit_reason"] == "host_restarted"
            await open_one(ssh, shell="bash")
            shown = await run(ssh, f"cat {ran}")
            assert shown["stdout"] == "once\n"
            await end(ssh)


def cycle_all(host: Sshd, world: World, *, crash: bool) -> None:
    if crash:
        world.kill()
    power_cycle(host, under_way=True)
    if crash:
        world.start()
