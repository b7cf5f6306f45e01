"""What is on a host that is away, perhaps for good, is ended here all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fakes.restarting import restart
from fakes.sshd import Sshd
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import alive, moment, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Result

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(240)]


class Place:
    """A host, and where it keeps sessions."""

    def __init__(self, directory: Path) -> None:
        self.sshd = Sshd(
            directory / "sshd", options={"SetEnv": f"HOME={directory}/sshd"}
        )
        self.room = directory / "sshd" / ".cache" / "holdfast" / "kept"

    def keeps(self, session: str) -> bool:
        """Say whether anything of it is left."""
        return (self.room / session).exists()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path)
    with one.sshd:
        yield one


async def opened(ssh: Tools, **more: Any) -> str:
    told = await ssh.told(
        "ssh_session_open", target="box", session_name="s", durability="remote", **more
    )
    return str(told["session_id"])


async def sleeping(ssh: Tools) -> str:
    """Begin a command in it that does not end; return its job."""
    told = await ssh.told(
        "ssh_session_run", session="s", command="sleep 1000", wait_seconds=0
    )
    return str(told["job_id"])


async def closed(ssh: Tools) -> Result:
    """Close it by force once it is known that its host is away."""
    async with asyncio.timeout(40):
        while True:
            told = await ssh.call("ssh_session_close", session="s", force=True)
            if "isError" not in told:
                return dict(told["structuredContent"])
            await moment()


async def listed(ssh: Tools) -> list[Any]:
    return list((await ssh.told("ssh_session_list"))["sessions"])


async def test_a_close_by_force_needs_no_host(place: Place) -> None:
    """SE-08, SE-11: it is over here at once, and there as soon as that can be told."""
    with served(place.sshd, limits=QUICK) as world:
        async with tools(world) as ssh:
            session = await opened(ssh)
            begun = await sleeping(ssh)
            place.sshd.stop()
            told = await closed(ssh)
            assert (told["was_running"], told["exit_reason"]) == (True, "closed")
            assert "once it is back" in told["note"]
            assert "exit_code" not in told
            assert await listed(ssh) == []
            job = await ssh.told("ssh_job_read", job_id=begun, wait_seconds=20)
            assert job["status"] == "lost", job
            assert "exit_code" not in job
            assert place.keeps(session)
            place.sshd.start()
            await soon(lambda: not place.keeps(session), "its host has forgotten it")
            # another of its name is another one
            assert await opened(ssh) != session
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_without_force_it_goes_on_and_is_told_how_to_end_it(place: Place) -> None:
    """SE-08: nothing that may run is let go of by the way."""
    with served(place.sshd, limits=QUICK) as world:
        async with tools(world) as ssh:
            session = await opened(ssh)
            place.sshd.stop()

            async def refused() -> Result:
                return await ssh.refused("ssh_session_close", session="s")

            async with asyncio.timeout(40):
                while "force" not in (await refused())["hint"]:
                    await moment()
            (one,) = await listed(ssh)
            assert (one["session_id"], one["running"]) == (session, True)
            assert "not attached" in one["note"]
            read = await ssh.told("ssh_session_read", session="s")
            assert "not attached" in read["note"]
            place.sshd.start()
            await ssh.told("ssh_session_run", session="s", command="true")
            (one,) = await listed(ssh)
            assert "note" not in one
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_the_next_daemon_tells_its_host(place: Place) -> None:
    """SE-08, NF-20: with a command of an earlier one in it, and a restart after it."""
    with served(place.sshd, limits=QUICK) as world:
        async with tools(world) as ssh:
            session = await opened(ssh)
            begun = await sleeping(ssh)
            place.sshd.stop()
            world.kill()
            world.start()
            told = await closed(ssh)
            assert told["exit_reason"] == "closed"
            job = await ssh.told("ssh_job_read", job_id=begun, wait_seconds=20)
            assert job["status"] == "lost", job
            world.stop()
            world.start()
            assert await listed(ssh) == []
            place.sshd.start()
            await soon(lambda: not place.keeps(session), "its host has forgotten it")


async def test_what_nobody_uses_is_closed_though_its_host_is_away(place: Place) -> None:
    """SE-08: it stayed for ever, and counted, where its host was gone for good."""
    quick = f"{QUICK}reap_seconds = 0.1\n"
    with served(place.sshd, limits=quick) as world:
        async with tools(world) as ssh:
            session = await opened(ssh, idle_timeout_seconds=1)
            place.sshd.stop()
            async with asyncio.timeout(40):
                while await listed(ssh):
                    await moment()
            (one,) = (await ssh.told("ssh_session_list", include_exited=True))[
                "sessions"
            ]
            assert one["exit_reason"] == "idle"
            place.sshd.start()
            await soon(lambda: not place.keeps(session), "its host has forgotten it")


async def test_a_close_by_force_needs_no_address(place: Place, tmp_path: Path) -> None:
    """SE-08, NF-20: where it is can't be said, as with a mistake in ssh config."""
    config = tmp_path / "config"
    sound = place.sshd.config.read_text()
    config.write_text(sound)
    with served(config) as world:
        async with tools(world) as ssh:
            session = await opened(ssh)
            begun = await sleeping(ssh)
            config.write_text(f"NoSuchOption yes\n{sound}")
            await asyncio.to_thread(restart, world)
            told = await closed(ssh)
            assert (told["was_running"], told["exit_reason"]) == (True, "closed")
            assert "nosuchoption" in told["note"]
            job = await ssh.told("ssh_job_read", job_id=begun, wait_seconds=20)
            assert job["status"] == "lost", job
            assert place.keeps(session)
            # who reads half of it would find another host there, and ask no more
            mended = tmp_path / "mended"
            mended.write_text(sound)
            mended.replace(config)
            await soon(lambda: not place.keeps(session), "its host has forgotten it")


async def test_a_durable_command_is_given_up_by_kill(place: Place) -> None:
    """NF-10, SE-11: lost here, with no code made up, and ended there once it can be."""
    with served(place.sshd, limits=QUICK) as world:
        async with tools(world) as ssh:
            job = await ssh.start("echo $$; exec sleep 1000", durable=True)
            await ssh.until(job, "\n")
            pid = int((await ssh.read(job, offset=0))["stdout"])
            place.sshd.stop()

            async def stopped(**how: str) -> Result:
                return await ssh.told("ssh_job_stop", job_id=job, **how)

            async with asyncio.timeout(40):
                while "signal KILL alone" not in (told := await stopped())["note"]:
                    await moment()
            assert (told["stopped"], told["status"]) == (False, "running")
            told = await stopped(signal="KILL")
            assert (told["stopped"], told["status"]) == (False, "lost")
            assert "once it is back" in told["note"]
            assert "exit_code" not in told
            assert "signal" not in told
            assert alive(pid)
            place.sshd.start()
            await soon(lambda: not alive(pid), "its host has ended it", 100)
            await soon(lambda: not place.keeps(job), "its host has forgotten it")


async def killed(ssh: Tools, job: str) -> Result:
    return await ssh.told("ssh_job_stop", job_id=job, signal="KILL")


async def test_the_next_daemon_ends_what_was_given_up(place: Place) -> None:
    """NF-10, NF-20: also where it had not found it again."""
    with served(place.sshd, limits=QUICK) as world:
        async with tools(world) as ssh:
            job = await ssh.start("echo $$; exec sleep 1000", durable=True)
            await ssh.until(job, "\n")
            pid = int((await ssh.read(job, offset=0))["stdout"])
            place.sshd.stop()
            for _ in range(2):
                world.kill()
                world.start()
                async with asyncio.timeout(40):
                    # at first it is not found again
                    while (await killed(ssh, job))["status"] != "lost":
                        await moment()
            assert alive(pid)
            place.sshd.start()
            await soon(lambda: not alive(pid), "its host has ended it", 100)
            await soon(lambda: not place.keeps(job), "its host has forgotten it")
