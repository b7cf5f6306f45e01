"""Hosts without a POSIX shell, through the real shim and command line.

Windows and network gear are stood in for by servers that speak as they do; fish, csh
and restricted shells are real, under a real sshd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from fakes.account import login
from fakes.foreign_host import (
    ForeignHost,
    cmd,
    german_cmd,
    ios,
    junos,
    powershell,
)
from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from fakes.foreign_host import Reply
    from fakes.world import World

PLAIN = "OpenSSH_9.2"


@contextlib.asynccontextmanager
async def agent(
    tmp_path: Path, speak: Callable[[str], Reply], **more: Any
) -> AsyncGenerator[tuple[Tools, ForeignHost, World]]:
    """Yield the tools against one such host."""
    async with ForeignHost(speak, **more) as host:
        with served(host.client_files(tmp_path / "client")) as world:
            async with tools(world) as ssh:
                yield ssh, host, world


@pytest.mark.parametrize(
    ("speak", "version", "command", "shown", "probes"),
    [
        (cmd, "OpenSSH_for_Windows_9.5", "echo hello", "hello\n", 1),
        (german_cmd, "OpenSSH_for_Windows_8.1", "echo hallo", "hallo\n", 1),
        (powershell, "OpenSSH_for_Windows_9.5", "Write-Output hi", "hi\n", 1),
        (powershell, PLAIN, "Write-Output hi", "hi\n", 1),
        (junos, PLAIN, "show version", "Hostname: edge\nModel: mx240\n", 1),
        (junos, "ROSSSH", "show version", "Hostname: edge\nModel: mx240\n", 0),
    ],
)
async def test_commands_run_as_they_are_sent(
    tmp_path: Path,
    *,
    speak: Callable[[str], Reply],
    version: str,
    command: str,
    shown: str,
    probes: int,
) -> None:
    """Issue 3, non-POSIX: one login, at most one question, no error shown."""
    async with agent(tmp_path, speak, version=version) as (ssh, host, _):
        for _ in range(3):
            told = await ssh.run(command)
            assert (told["status"], told["exit_code"]) == ("exited", 0)
            assert (told["stdout"], told["stderr"]) == (shown, "")
        assert host.asked.count(command) == 3
        assert (host.logins, host.probes) == (1, probes)
        assert len(host.asked) == 3 + probes


@pytest.mark.parametrize(
    ("speak", "version", "words"),
    [
        (cmd, "OpenSSH_for_Windows_9.5", "cd /d C:\\DIR && set NAME=VALUE"),
        (german_cmd, "OpenSSH_for_Windows_8.1", "cd /d C:\\DIR && set NAME=VALUE"),
        (powershell, "OpenSSH_for_Windows_9.5", "Set-Location C:\\DIR; $env:NAME"),
        (junos, PLAIN, "device's own words"),
        (ios, "Cisco-1.25", "device's own words"),
    ],
)
async def test_what_is_missing_is_said_in_the_host_s_own_words(
    tmp_path: Path, speak: Callable[[str], Reply], version: str, words: str
) -> None:
    """Issue 3, non-POSIX: typed, nothing ran, and how to do it there."""
    async with agent(tmp_path, speak, version=version) as (ssh, host, _):
        error = await ssh.refused(
            "ssh_exec", command="danger", cwd="/x", env={"A": "b"}, shell="sh"
        )
        assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
        assert "cwd, env and shell can't be set" in error["message"]
        assert words in error["hint"]
        error = await ssh.refused("ssh_exec", command="danger", sudo=True)
        assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
        assert "sudo" in error["message"]
        assert "danger" not in host.asked


@pytest.mark.parametrize(
    ("given", "code", "process"),
    [
        (0, 0, 0),
        (3, 3, 3),
        (256, 256, 255),
        (-1, -1, 255),
        (4294967295, -1, 255),
        (3221225477, -1073741819, 255),
    ],
)
async def test_exit_codes_of_windows_are_what_windows_shows(
    tmp_path: Path, given: int, code: int, process: int
) -> None:
    """Issue 3, non-POSIX: 32 bits, negative ones too, and none of them becomes 0."""
    async with agent(tmp_path, cmd) as (ssh, _, world):
        told = await ssh.run(f"exit {given}")
        assert (told["status"], told["exit_code"]) == ("exited", code)
        assert told["ok"] is (code == 0)
        done = await asyncio.to_thread(
            world.cli, "exec", "box", "--", f"exit {given}", check=False
        )
        assert done.returncode == process


async def test_output_in_other_encodings_is_readable(tmp_path: Path) -> None:
    """Issue 3, non-POSIX: CR LF, a code page, and UTF-16."""
    async with agent(tmp_path, cmd) as (ssh, _, _world):
        told = await ssh.run("wsl -l")
        assert told["stdout"] == "Ubuntu läuft\nDebian\n"
        told = await ssh.run("echo größer 10 │ x")
        assert told["stdout"].startswith("gr")
        assert told["stdout"].endswith(" x\n")
        assert "\r" not in told["stdout"]
        assert "binary" not in told["stdout"]


async def test_a_time_limit_says_what_it_could_not_do(tmp_path: Path) -> None:
    """Issue 3, non-POSIX, EX-11: no signal arrives, so the channel is closed."""
    async with agent(tmp_path, cmd) as (ssh, _, _world):
        told = await ssh.run("ping -t x", timeout_seconds=8)
        assert (told["status"], told["timed_out"]) == ("timed_out", True)
        assert "may still run there" in told["note"]
        assert told["duration_ms"] < 60_000
        job = await ssh.start("ping -t x")
        await ssh.until(job, "Pinging")
        stopped = await ssh.stop(job)
        assert stopped["stopped"] is False
        assert "passes no signals on" in stopped["note"]


@pytest.mark.parametrize(
    ("speak", "version", "probes"), [(ios, "Cisco-1.25", 0), (junos, PLAIN, 1)]
)
async def test_a_device_that_ends_the_connection_with_each_command_is_served(
    tmp_path: Path, speak: Callable[[str], Reply], version: str, probes: int
) -> None:
    """Issue 3, non-POSIX: asked at most once, then one login per command."""
    async with agent(tmp_path, speak, version=version, once=True) as (ssh, host, _):
        for _ in range(3):
            told = await ssh.run("show version")
            assert "Version 15.2" in told["stdout"] or "mx240" in told["stdout"]
            assert told["status"] in ("exited", "lost")
        assert host.asked.count("show version") == 3
        assert (host.probes, host.logins) == (probes, 3 + probes)


async def test_a_device_unknown_by_name_that_tells_no_status_is_served(
    tmp_path: Path,
) -> None:
    """Issue 3, non-POSIX: it ends the connection in mid-question."""
    async with agent(tmp_path, ios, version="Nobody_1", once=True) as (ssh, host, _):
        told = await ssh.run("show version")
        assert "Version 15.2" in told["stdout"]
        assert "exit_code" not in told
        assert told["ok"] is False
        assert host.asked.count("show version") == 1


async def test_a_device_that_takes_no_commands_says_so(tmp_path: Path) -> None:
    """Issue 3, non-POSIX: only a person's login is to be had there."""
    async with agent(tmp_path, cmd, version="Gear_1", commands=False) as (ssh, host, _):
        error = await ssh.refused("ssh_exec", command="show version")
        assert (error["reason"], error["ran"]) == ("SHELL_FAILED", "no")
        assert error["hint"]
        assert host.logins == 1


@pytest.mark.needs_sshd
@pytest.mark.parametrize("name", ["fish", "tcsh"])
async def test_other_login_shells_have_all_of_it(tmp_path: Path, name: str) -> None:
    """Issue 3, non-POSIX, EX-17: the system's own sh does what theirs can't."""
    more = '[hosts.it]\nhost = "box"\nsudo_password_from = "env:HF_X"\n'
    with login(tmp_path, name) as (server, who):
        who.sudoers("USER ALL=(ALL) ALL")
        with served(server, more=more) as world:
            world.stop()
            world.start(HF_X="canary-x")
            async with tools(world, target="it") as ssh:
                await _try_all(ssh, name)


async def _try_all(ssh: Tools, name: str) -> None:
    own = "echo $version" if name == "tcsh" else "echo $FISH_VERSION"
    told = await ssh.run(own)
    assert told["exit_code"] == 0
    assert told["stdout"].strip()
    awkward = {"A": 'it\'s $HOME !! \\ "q"', "B": "b\\n"}
    told = await ssh.run(f'pwd; printf "%s|" "$A" "$B"; {own}', cwd="/", env=awkward)
    assert told["stderr"] == ""
    assert told["stdout"].startswith('/\nit\'s $HOME !! \\ "q"|b\\n|')
    told = await ssh.run("echo $0 '!x'\necho two", shell="sh")
    assert told["stdout"] == "sh !x\ntwo\n"
    gone = await ssh.refused("ssh_exec", command="true", cwd="/nowhere")
    assert (gone["reason"], gone["ran"]) == ("CWD_FAILED", "no")
    told = await ssh.run("id -un; cat; exit 4", sudo=True, stdin="in", cwd="/root")
    assert (told["stdout"], told["exit_code"]) == ("root\nin", 4)
    for more in ({}, {"cwd": "/"}, {"sudo": True}):
        job = await ssh.start("echo on; sleep 300", **more)
        await ssh.until(job, "on")
        assert (await ssh.stop(job))["stopped"] is True


@pytest.mark.needs_sshd
@pytest.mark.parametrize(
    ("shell", "command", "code", "word"),
    [
        ("/bin/rbash", "echo out", 0, "restricted login shell"),
        ("/usr/bin/git-shell", "ls", 128, "lets this account run"),
        ("/usr/sbin/nologin", "ls", 1, "lets this account run"),
    ],
)
async def test_an_account_that_may_do_little_says_what_it_is(
    tmp_path: Path, shell: str, command: str, code: int, word: str
) -> None:
    """Issue 3, non-POSIX: recognised, commands go through, nothing is made up."""
    with login(tmp_path, shell) as (server, _), served(server) as world:
        async with tools(world) as ssh:
            told = await ssh.run(command)
            assert told["exit_code"] == code, told
            assert "holdfast:" not in json.dumps(told["stdout"])
            error = await ssh.refused("ssh_exec", command="ls", cwd="/")
            assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
            assert word in error["message"]
            if shell == "/bin/rbash":
                told = await ssh.run("echo $A", env={"A": "b"})
                assert told["stdout"] == "b\n"


@pytest.mark.needs_sshd
async def test_an_account_for_files_only_is_recognised(tmp_path: Path) -> None:
    """Issue 3, non-POSIX: ForceCommand internal-sftp."""
    options = {"ForceCommand": "internal-sftp"}
    with Sshd(tmp_path / "sshd", options=options) as server, served(server) as world:
        async with tools(world) as ssh:
            error = await ssh.refused("ssh_exec", command="ls", cwd="/")
            assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
            assert "lets this account run" in error["message"]
            told = await ssh.run("ls")
            assert told["ok"] is False
            assert "sftp" in told["stdout"] + told["stderr"]
