"""Calls that wait for a person's login, while the rules change: with a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.mcp_wire import Wire
from fakes.sshd import Sshd, keygen
from fakes.terminal import Terminal
from fakes.watch import soon
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

pytestmark = pytest.mark.needs_sshd

PHRASE = "canary open sesame"
ROOTS = f'local_roots = ["{tempfile.gettempdir()}"]\n'
OFF = f"{ROOTS}[hosts.box]\nenabled = false\n"


@pytest.fixture
def root() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="hf-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def world(sshd: Sshd, root: Path, tmp_path: Path) -> Iterator[World]:
    """Yield a daemon whose key for the host only a person can unlock."""
    locked = keygen(tmp_path / "locked", passphrase=PHRASE)
    sshd.authorize(locked.with_suffix(".pub"))
    lines = sshd.client_config("box").splitlines()
    kept = [line for line in lines if "Identit" not in line]
    config = tmp_path / "ssh_config"
    config.write_text("\n".join([*kept, f"  IdentityFile {locked}", ""]))
    one = World(root, ssh_config=config)
    one.configure(ROOTS)
    one.environment |= {"XDG_RUNTIME_DIR": str(root), "HOME": str(root)}
    one.start()
    yield one
    one.close()


@contextlib.asynccontextmanager
async def login(world: World) -> AsyncGenerator[Terminal]:
    """Have a person be asked; what they type at the end lets in."""
    with Terminal() as terminal:
        await terminal.run(program("holdfast"), "login", "box", env=world.environment)
        await terminal.asked("Passphrase of the key .*: ")
        yield terminal
        terminal.type(f"{PHRASE}\n")
        await terminal.ended()


async def admitted(world: World, tool: str) -> None:
    """Return when the rules have let a call in: it waits for the login from then on."""
    await soon(lambda: _begun(world, tool), f"{tool} was let in")


def _begun(world: World, tool: str) -> bool:
    lines = (world.state / "audit" / "audit.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return any(
        one.get("tool") == tool and one.get("phase") == "start" for one in records
    )


async def rule(world: World, text: str) -> None:
    """Have the daemon go by another configuration."""
    world.configure(text)
    await asyncio.to_thread(world.cli, "reload")


def _arguments(there: Path, here: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a call of each kind, which leaves something in `there` or `here`."""
    made = str(there / "made")
    up = {"direction": "upload", "sources": [str(here / "up")], "destination": made}
    down = {"direction": "download", "sources": [str(there / "old")]}
    down["destination"] = str(here / "down")
    synced = {"direction": "upload", "source": str(here / "up"), "destination": made}
    port = {"direction": "local", "remote_port": 9, "local_port": 0}
    return {
        "exec": ("ssh_exec", {"command": f"touch {made}"}),
        "durable": ("ssh_exec", {"command": f"touch {made}", "durable": True}),
        "connect": ("ssh_connect", {}),
        "held": ("ssh_session_open", {"durability": "held"}),
        "kept": ("ssh_session_open", {"durability": "remote"}),
        "named": ("ssh_session_open", {"session_name": "build"}),
        "read": ("ssh_file_read", {"path": str(there / "old" / "file")}),
        "write": ("ssh_file_write", {"path": made, "content": "x"}),
        "list": ("ssh_dir_list", {"path": str(there)}),
        "upload": ("ssh_copy", {**up, "recursive": True}),
        "download": ("ssh_copy", {**down, "recursive": True}),
        "sync": ("ssh_sync", synced),
        "local": ("ssh_forward_open", port),
        "remote": (
            "ssh_forward_open",
            {**port, "direction": "remote", "local_port": 9},
        ),
        "up": ("ssh_wait", {"any_of": [{"target": "box", "state": "up"}]}),
        "port": ("ssh_wait", {"any_of": [{"target": "box", "port": 9}]}),
    }


KINDS = list(_arguments(Path("/"), Path("/")))


@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_waited_for_a_person_is_asked_about_the_rules_again(
    world: World, root: Path, tmp_path: Path, kind: str
) -> None:
    """NF-07, SC-01: only commands were; all else went to a host switched off since."""
    there, here = tmp_path / "there", root / "here"
    for directory in (there / "old", here / "up"):
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    tool, arguments = _arguments(there, here)[kind]
    if tool != "ssh_wait":
        arguments |= {"target": "box"}
    async with Wire(env=world.environment) as shim:
        async with login(world):
            call = asyncio.create_task(shim.call(tool, arguments))
            await admitted(world, tool)
            await rule(world, OFF)
        result = await call
        assert result.get("isError"), result
        error = result["structuredContent"]["error"]
        assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no")
        forwards = await shim.call("ssh_forward_list", {"include_stopped": True})
        sessions = await shim.call("ssh_session_list", {"include_exited": True})
    assert not (there / "made").exists()
    assert not (here / "down").exists()
    assert forwards["structuredContent"]["count"] == 0
    assert sessions["structuredContent"]["count"] == 0
    audit = world.state / "audit" / "audit.jsonl"
    await soon(lambda: "HOST_DISABLED" in audit.read_text(), "the refusal is recorded")


@pytest.mark.parametrize("kind", ["exec", "write", "held"])
async def test_a_list_that_was_narrowed_meanwhile_is_met_too(
    world: World, root: Path, tmp_path: Path, kind: str
) -> None:
    """NF-07, SC-01: the refusal names what is allowed now."""
    (tmp_path / "there").mkdir()
    tool, arguments = _arguments(tmp_path / "there", root)[kind]
    async with Wire(env=world.environment) as shim:
        async with login(world):
            call = asyncio.create_task(shim.call(tool, {"target": "box"} | arguments))
            await admitted(world, tool)
            await rule(world, 'allowed_hosts = ["another"]\n')
        error = (await call)["structuredContent"]["error"]
    assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "no")
    assert "allows another" in error["message"]
    assert not (tmp_path / "there" / "made").exists()


async def test_what_goes_on_without_its_caller_is_asked_about_too(world: World) -> None:
    """NF-07, SC-01: a session that nobody waited for any more was opened there."""
    async with login(world):
        async with Wire(env=world.environment) as shim:
            opening = {"target": "box", "session_name": "left"}
            call = asyncio.create_task(shim.call("ssh_session_open", opening))
            await admitted(world, "ssh_session_open")
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await rule(world, OFF)
    await rule(world, "")
    async with Wire(env=world.environment) as shim:
        await shim.call("ssh_session_open", {"target": "box", "session_name": "ours"})
        listed = await shim.call("ssh_session_list", {"include_exited": True})
    names = [one["session_name"] for one in listed["structuredContent"]["sessions"]]
    assert names == ["ours"]


async def test_a_call_that_names_a_session_is_asked_again_too(
    sshd: Sshd, world: World, tmp_path: Path
) -> None:
    """NF-07, SE-02: it ran in a kept shell of a host that was switched off since."""
    made = tmp_path / "made"
    async with Wire(env=world.environment) as shim:
        async with login(world):
            pass
        kept = {"target": "box", "durability": "remote"}
        opened = await shim.call("ssh_session_open", kept)
        session = opened["structuredContent"]["session_id"]
        sshd.drop_connections()
        async with login(world):
            run = {"session": session, "command": f"touch {made}"}
            call = asyncio.create_task(shim.call("ssh_session_run", run))
            await admitted(world, "ssh_session_run")
            await rule(world, OFF)
        error = (await call)["structuredContent"]["error"]
        assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no")
        assert not made.exists()
        await rule(world, ROOTS)
        again = await shim.call("ssh_session_run", run)
        assert again["structuredContent"]["exit_code"] == 0
        await shim.call("ssh_session_close", {"session": session, "force": True})
    assert made.exists()
