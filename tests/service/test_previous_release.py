"""The previous release's shim with today's daemon, and the reverse."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fakes import release
from fakes.mcp_wire import Wire
from fakes.supervisor import Supervisor
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

pytestmark = pytest.mark.xdist_group("previous")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the previous release's programs."""
    return release.install(release.previous(), tmp_path_factory.mktemp("release"))


@pytest.fixture(params=["its shim, our daemon", "our shim, its daemon"])
def pair(
    request: pytest.FixtureRequest, earlier: Path, short_path: Path, sshd: Sshd
) -> Iterator[tuple[World, str, bool]]:
    """Yield a world with a daemon in it, the shim to use, and whether that is ours."""
    ours = request.param.startswith("our")
    shim = program("holdfast-mcp") if ours else str(earlier / "holdfast-mcp")
    daemon = str(earlier / "holdfastd") if ours else program("holdfastd")
    world = World(short_path, ssh_config=sshd.config)
    world.run.mkdir(mode=0o700)
    with Supervisor(world.root) as supervisor:
        process = subprocess.Popen(
            [daemon],
            env={**world.environment, **supervisor.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while "READY" not in supervisor.receive(20):
                pass
            yield world, shim, ours
        finally:
            process.terminate()
            process.wait(20)


async def test_every_tool_that_is_shown_is_understood(
    pair: tuple[World, str, bool],
) -> None:
    """NF-20: commands, jobs and hosts work; no other tool is unknown to the daemon."""
    world, program_, ours = pair
    words = ("--no-autostart",)
    async with Wire(*words, env=world.environment, program=(program_,)) as shim:
        await shim.initialize()
        done = await shim.call("ssh_exec", {"target": "box", "command": "echo on"})
        assert "isError" not in done, done
        assert "on" in done["content"][0]["text"]
        started = {"target": "box", "command": "echo up; sleep 60", "wait_seconds": 0}
        assert "isError" not in await shim.call("ssh_exec", started)
        jobs = await shim.call("ssh_job_list", {"running_only": True})
        assert "echo up; sleep 60" in jobs["content"][0]["text"]
        assert "isError" not in await shim.call("ssh_hosts", {})
        listed = (await shim.request("tools/list"))["result"]["tools"]
        assert len(listed) >= 5
        for tool in listed:
            answer = await shim.call(tool["name"], _least(tool))
            error = answer.get("structuredContent", {}).get("error", {})
            known = error.get("reason") not in ("INTERNAL", "UNKNOWN_TOOL")
            assert known, (tool["name"], error)
            if not ours or shim.notes:
                # Where the daemon tells its tools, none is shown that it lacks.
                unknown = "another version" in error.get("message", "")
                assert not unknown, (tool["name"], error)


def _least(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the required arguments; they name things that are not there."""
    schema = tool["inputSchema"]
    values = {"string": "nothing", "integer": 1, "number": 1, "boolean": False}
    found: dict[str, Any] = {}
    for name in schema.get("required", []):
        kind = schema["properties"][name]
        found[name] = kind.get("enum", [values.get(kind.get("type", ""), [])])[0]
    if "wait_seconds" in schema["properties"]:
        found["wait_seconds"] = 0
    return found
