"""Clients start the daemon when nothing answers, all together only one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fakes.barred import apart, barred, closed
from fakes.mcp_wire import Wire
from fakes.watch import alive, daemons_of, first_answer, soon, until
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fakes.sshd import Sshd


@pytest.fixture
def world(short_path: Path, sshd: Sshd) -> Iterator[World]:
    """Yield a user's machine on which no daemon runs yet."""
    one = World(short_path, ssh_config=sshd.config)
    yield one
    for pid in daemons_of(one):
        os.kill(pid, signal.SIGTERM)
    until(lambda: not daemons_of(one), "every daemon ended")


async def ask(environment: Mapping[str, str]) -> dict[str, Any]:
    """Have a shim run a command as its first call."""
    async with Wire(env=environment) as shim:
        result = await shim.call("ssh_exec", {"target": "box", "command": "echo on"})
        shim.close_stdin()
        await shim.ended()
        return result


async def test_ten_clients_at_once_end_with_one_daemon(world: World) -> None:
    """Contract section 1: shims and the command line, all at the same moment."""
    command_lines = (
        asyncio.to_thread(world.cli, "exec", "box", "--", "echo", "on")
        for _ in range(5)
    )
    shims = (ask(world.environment) for _ in range(5))
    answers, results = await asyncio.gather(
        asyncio.gather(*command_lines), asyncio.gather(*shims)
    )
    assert [done.stdout for done in answers] == [b"on\n"] * 5
    assert ["isError" in result for result in results] == [False] * 5
    (pid,) = await asyncio.to_thread(daemons_of, world)
    assert world.cli_json("status")["pid"] == pid
    assert os.getsid(pid) == pid


@pytest.mark.parametrize("client", ["shim", "cli"])
def test_home_and_the_user_id_are_enough(
    world: World, short_path: Path, client: str
) -> None:
    """Contract section 2: Codex strips the environment down to almost nothing."""
    home = short_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    bare = {"HOME": str(home), "PATH": os.defpath}
    alone = apart()
    if client == "shim":
        line = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            '{"name":"ssh_job_list","arguments":{}}}'
        )
        answer, code = first_answer([*alone, program("holdfast-mcp")], line, bare)
        assert code == 0
        assert "jobs" in answer
        assert "isError" not in answer
    else:
        cli(alone, bare, "jobs")
    state = home / ".local" / "state" / "holdfast"
    assert (state / "run" / "holdfast.sock").is_socket()
    assert str(state) in cli(alone, bare, "--no-autostart", "status", "--json")


@pytest.mark.parametrize("client", ["shim", "cli", "doctor"])
def test_a_closed_folder_of_units_is_no_reason_not_to_start(
    world: World, short_path: Path, client: str
) -> None:
    """PK-04, NF-19: systemd does not look into it either, so there is no unit."""
    home, runtime = short_path / "home", short_path / "run"
    units = home / ".config" / "systemd"
    (units / "user").mkdir(parents=True)
    runtime.mkdir(mode=0o700)
    bare = {"HOME": str(home), "PATH": os.environ["PATH"]}
    bare |= {"XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(home / ".config")}
    with closed(units):
        if client == "shim":
            call = {"name": "ssh_job_list", "arguments": {}}
            line = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
            words = [*barred(), program("holdfast-mcp")]
            answer, _ = first_answer(words, json.dumps(line), bare)
            assert "isError" not in answer
        else:
            cli(barred(), bare, "status" if client == "cli" else "doctor")
    assert daemons_of(world)


@pytest.mark.parametrize(
    ("name", "value", "asked"),
    [
        ("HOLDFAST_DETACH_KEYS", "ctrl-p", True),
        ("HOLDFAST_SSH_CONFIG", "", True),
        ("HOLDFAST_SSH_CONFIG", os.devnull, False),
    ],
)
def test_a_client_s_own_setting_leaves_the_service_its_place(
    world: World, short_path: Path, name: str, value: str, *, asked: bool
) -> None:
    """PK-04, NF-19: only what a service would not know makes one start another."""
    home, runtime, tools = (short_path / one for one in ("home", "run", "bin"))
    units = home / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "holdfast.service").touch()
    runtime.mkdir(mode=0o700)
    tools.mkdir()
    manager = tools / "systemctl"
    manager.write_text('#!/bin/sh\necho "$@" >> "$HOME/asked"\nexit 1\n')
    manager.chmod(0o755)
    bare = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), name: value}
    bare["PATH"] = f"{tools}:{os.environ['PATH']}"
    cli([], bare, "status")
    assert daemons_of(world)
    told = home / "asked"
    words = told.read_text().splitlines() if told.exists() else []
    assert ("--user start holdfast.service" in words) is asked


def test_a_place_that_is_refused_is_named(short_path: Path) -> None:
    """PK-07: the words of the system alone tell nobody where to look."""
    config = short_path / "config"
    (config / "systemd").mkdir(parents=True)
    with closed(config):
        done = subprocess.run(
            [*barred(), program("holdfast"), "service", "status"],
            env={"HOME": str(short_path), "XDG_CONFIG_HOME": str(config)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert f"{config}/systemd/user/holdfast.service: Permission" in done.stderr


def cli(alone: list[str], bare: dict[str, str], *words: str) -> str:
    return subprocess.run(
        [*alone, program("holdfast"), *words],
        env=bare,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


async def test_the_daemon_outlives_the_client_that_started_it(world: World) -> None:
    """NF-01, SE-06: SIGKILL of the shim's whole process group leaves it running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "holdfast_shim.mcp_stdio",
        env={**world.environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ssh_exec",'
        b'"arguments":{"target":"box","command":"echo up; sleep 60",'
        b'"wait_seconds":0}}}\n'
    )
    assert b"job" in await asyncio.wait_for(process.stdout.readline(), 20)
    (pid,) = await asyncio.to_thread(daemons_of, world)
    assert os.getpgid(pid) != os.getpgid(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    await asyncio.wait_for(process.communicate(), 20)
    told = await asyncio.to_thread(world.cli_json, "--no-autostart", "status")
    assert (told["pid"], told["jobs_running"]) == (pid, 1)
    assert alive(pid)


async def test_a_daemon_that_died_is_started_anew_and_knows_its_jobs(
    world: World,
) -> None:
    """PK-06, NF-01: results outlive a crash of the daemon."""
    world.start()
    done = world.cli("exec", "box", "--", "echo kept", check=True)
    assert done.stdout == b"kept\n"
    jobs = world.cli_json("jobs")["jobs"]
    await soon(lambda: _saved(world, jobs[0]["job_id"]), "the result is on the disk")
    world.kill()
    again = world.cli_json("jobs")["jobs"]
    assert [(row["job_id"], row["status"]) for row in again] == [
        (jobs[0]["job_id"], "exited")
    ]
    assert world.cli("job", jobs[0]["job_id"]).stdout.endswith(b"kept\n")


def _saved(world: World, job_id: str) -> bool:
    path = world.state / "jobs" / job_id / "job.json"
    return path.exists() and '"exited"' in path.read_text()
