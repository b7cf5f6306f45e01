"""Several machines behind one name, with one home directory: nothing is lost there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, served, tools
from fakes.watch import alive, moment, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Result, Tools

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


class Kept:
    """What one machine keeps, as another one finds it in their home directory."""

    def __init__(self, host: Sshd, ident: str) -> None:
        self.place = host.directory / ".cache" / "holdfast" / "kept" / ident
        names = ("boot", "node", "machine")
        self._of = {name: self._file(name).read_text() for name in names}

    def _file(self, name: str) -> Path:
        return self.place / name

    def leave(self) -> None:
        """Whoever comes now is on the other machine."""
        self._file("node").write_text("login-1\n")
        self._file("boot").write_text("0-0\n")
        self._file("machine").write_text("0-1\n00:16:3e:00:00:01\n")

    @property
    def known(self) -> bool:
        """Whether more than its name tells this machine from others."""
        return len(self._of["machine"].splitlines()) >= len(("its id", "its card's"))

    def rename(self) -> None:
        """Have the machine come up again by another name: nothing goes on there."""
        self._file("node").write_text("login-1\n")
        self._file("boot").write_text("0-0\n")
        # what would write down how the rest ended first
        for name in ("pid", "leader", "slots"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.killpg(int(self._file(name).read_text().split()[0]), signal.SIGKILL)

    def come(self) -> None:
        """Whoever comes now is on the first one again."""
        for name, text in self._of.items():
            self._file(name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    place = tmp_path / "sshd"
    with Sshd(place, options={"SetEnv": f"HOME={place}"}) as one:
        yield one


async def noted(ssh: Tools, words: str) -> Result:
    """Return the session once a look at it says that."""
    async with asyncio.timeout(40):
        while True:
            (one,) = (await ssh.told("ssh_session_list"))["sessions"]
            if words in one.get("note", ""):
                return dict(one)
            await moment()


async def test_a_session_on_the_other_machine_is_away(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-11, NF-09: it was told as lost, and its files were taken from under it."""
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", session_name="s", durability="remote"
            )
            await ssh.told("ssh_session_run", session="s", command="x=5")
            kept = Kept(host, opened["session_id"])
            kept.leave()
            for tool, more in (
                ("ssh_session_run", {"command": "echo $x"}),
                ("ssh_session_close", {}),
            ):
                error = await ssh.refused(tool, session="s", **more)
                assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "no")
                assert "kept on login-1" in error["message"]
            await asyncio.to_thread(proxy.rst)
            one = await noted(ssh, "not attached")
            assert one["running"]
            found = await asyncio.to_thread(
                world.cli_json, "sessions", "--on", "box", "--json"
            )
            assert found["kept"] == []
            kept.come()
            async with asyncio.timeout(40):
                while "isError" in (
                    told := await ssh.call(
                        "ssh_session_run", session="s", command="echo $x"
                    )
                ):
                    await moment()
            assert told["structuredContent"]["stdout"] == "5\n"
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_a_durable_command_on_the_other_machine_goes_on(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-10: it is neither lost nor forgotten there, and its end is told."""
    gate = tmp_path / "gate"
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            job = await ssh.start(
                f"echo $$; until [ -e {gate} ]; do sleep 0.1; done; exit 7",
                durable=True,
            )
            await ssh.until(job, "\n")
            pid = int((await ssh.read(job, offset=0))["stdout"])
            kept = Kept(host, job)
            kept.leave()
            await asyncio.to_thread(proxy.rst)
            error = await ssh.told("ssh_job_stop", job_id=job)
            assert (error["stopped"], error["status"]) == (False, "running")
            # somebody else begins something there
            other = await ssh.start("true", durable=True)
            await soon(lambda: not (kept.place.parent / other).exists(), "it is over")
            assert alive(pid)
            kept.come()
            gate.touch()
            told = await ssh.ended(job)
            assert (told["status"], told["exit_code"]) == ("exited", 7), told


async def test_a_machine_that_was_renamed_as_it_was_restarted(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-11, NF-10: all that it had kept was told to run for ever, and stayed there."""
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", session_name="s", durability="remote"
            )
            await ssh.told("ssh_session_run", session="s", command="x=5")
            job = await ssh.start("echo up; sleep 300", durable=True)
            await ssh.until(job, "up")
            session, command = Kept(host, opened["session_id"]), Kept(host, job)
            for one in (session, command):
                one.rename()
            await asyncio.to_thread(proxy.rst)
            if not session.known:  # it may be another machine with the same home
                await noted(ssh, "not attached")
                return
            async with asyncio.timeout(40):
                while (told := await ssh.told("ssh_session_read", session="s"))[
                    "running"
                ]:
                    await moment()
                assert told["exit_reason"] == "host_restarted"
                told = await ssh.ended(job)
            assert (told["status"], told.get("exit_code")) == ("lost", None), told
            await soon(lambda: not command.place.exists(), "it is forgotten")
            # what another shell may take over is left, and is found there still
            log = session.place / "out"
            await soon(lambda: not log.exists() and session.place.exists(), "stripped")
            given = ("sessions", "--on", "box", "--wipe", session.place.name)
            await asyncio.to_thread(world.cli, *given)
            assert not session.place.exists()


FIRST = {"machine-id": "3d12", "net/eth0/address": "ac:1f:6b:00:00:01"}
MAC = {"bin/ioreg": """echo '      "IOPlatformUUID" = "6D5C0E0A-6D0F"'"""}


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (FIRST, FIRST, True),
        # nodes without a disk, of one image
        (FIRST, {**FIRST, "net/eth0/address": "ac:1f:6b:00:00:02"}, False),
        (FIRST, {**FIRST, "machine-id": "3d13"}, False),
        ({"machine-id": "3d12"}, {"machine-id": "3d12"}, False),
        # containers: docker makes the second of their address
        *[({**FIRST, "net/eth0/address": "02:42:ac:11:00:02"},) * 2 + (False,)],
        (MAC, MAC, True),
        (MAC, {"bin/ioreg": MAC["bin/ioreg"].replace("6D5C", "7D5C")}, False),
        ({}, {}, False),
    ],
)
def test_what_outlives_a_machines_name(
    tmp_path: Path,
    shell: str,
    before: dict[str, str],
    after: dict[str, str],
    same: bool,
) -> None:
    """NF-09, NF-10: one that was renamed as it was restarted; others are others."""
    words = (resources.files("holdfast_daemon.kept") / "host/quick.sh").read_text()
    for path in ("/etc/", "/sys/class/"):
        words = words.replace(path, f"{tmp_path}/")
    words += "printf 'a\\n' >node; printf '0\\n' >boot; "
    said = b""
    for files, more in ((before, "identity >machine"), (after, "here && echo here")):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
            file.chmod(0o755)
        said = subprocess.run(
            [*shell.split(), "-c", f"{words}{more}\n", "x", "look"],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            check=False,
            timeout=20,
        ).stdout
    assert said.decode() == "here\n" * same
