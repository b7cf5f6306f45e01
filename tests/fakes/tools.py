"""The shim's tools as an agent uses them, against a real daemon and a real sshd."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes.mcp_wire import Wire
from fakes.sshd import Sshd
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

Result = dict[str, Any]

# Signals take effect at once on this machine, so nobody has to wait between them.
QUICK = "stop_grace_seconds = 0.4\n"


@contextlib.contextmanager
def served(
    sshd: Sshd | Path, *, limits: str = QUICK, more: str = ""
) -> Generator[World]:
    """Run a daemon that knows `sshd` (or an ssh configuration) until the block ends."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    config = sshd if isinstance(sshd, Path) else sshd.config
    try:
        world = World(root, ssh_config=config)
        world.configure(f"{more}[limits]\n{limits}")
        with world:
            yield world
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def served_at_home(directory: Path) -> Generator[World]:
    """Run a daemon, and a host of its own (alias `box`) whose home is `directory`."""
    options = {"SetEnv": f"HOME={directory}"}
    with Sshd(directory, options=options) as host, served(host) as world:
        yield world


class Tools:
    """One shim's tools; `target` goes with every call that takes one."""

    def __init__(self, wire: Wire, target: str) -> None:
        self.wire = wire
        self.target = target

    def _filled(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if tool in {"ssh_exec", "ssh_connect"} and self.target:
            return {"target": self.target, **arguments}
        return dict(arguments)

    async def call(self, tool: str, **arguments: Any) -> Result:
        """Call a tool and return its whole result."""
        return await self.wire.call(tool, self._filled(tool, arguments))

    async def told(self, tool: str, **arguments: Any) -> Result:
        """Call a tool that answers, and return its structured content."""
        return content(await self.call(tool, **arguments))

    async def run(self, command: str, **arguments: Any) -> Result:
        """Run a command; it must not be refused."""
        return await self.told("ssh_exec", command=command, **arguments)

    async def start(self, command: str, **arguments: Any) -> str:
        """Start a command and return its job id."""
        result = await self.run(command, wait_seconds=0, **arguments)
        return str(result["job_id"])

    async def read(self, job_id: str, **arguments: Any) -> Result:
        """Read a job."""
        return await self.told("ssh_job_read", job_id=job_id, **arguments)

    async def until(self, job_id: str, text: str) -> Result:
        """Read a job from its start until its output holds `text`."""
        while True:
            result = await self.read(job_id, offset=0)
            if text in result["stdout"] + result["stderr"]:
                return result
            assert result["status"] == "running", result
            end = result["next_offset"]
            await self.read(job_id, offset=end, wait_seconds=10)

    async def ended(self, job_id: str) -> Result:
        """Read a job once it has ended."""
        result = await self.read(job_id, tail_lines=100)
        while result["status"] == "running":
            result = await self.read(
                job_id, tail_lines=100, offset=result["next_offset"], wait_seconds=20
            )
        return result

    async def stop(self, job_id: str, **arguments: Any) -> Result:
        """Stop a job."""
        return await self.told("ssh_job_stop", job_id=job_id, **arguments)

    async def refused(self, tool: str, **arguments: Any) -> Result:
        """Call a tool that refuses, and return its error."""
        return failure(await self.call(tool, **arguments))

    async def together(self, *calls: tuple[str, dict[str, Any]]) -> list[Result]:
        """Make calls at the same time; return their whole results in order."""
        idents = [
            await self.wire.start(
                "tools/call", {"name": tool, "arguments": self._filled(tool, arguments)}
            )
            for tool, arguments in calls
        ]
        found: dict[int, Result] = {}
        while len(found) < len(idents):
            message = await self.wire.receive()
            if message.get("id") in idents:
                found[message["id"]] = message["result"]
        return [found[ident] for ident in idents]


def content(result: Result) -> Result:
    """Return what a tool told, which must not be an error."""
    assert "isError" not in result, result
    structured = result["structuredContent"]
    assert isinstance(structured, dict)
    return structured


def failure(result: Result) -> Result:
    """Return why a tool refused: always a reason, words, and whether anything ran."""
    assert result.get("isError") is True, result
    structured = result["structuredContent"]
    assert structured["ok"] is False
    error = structured["error"]
    assert isinstance(error, dict)
    assert error["reason"]
    assert error["message"]
    assert error["ran"] in {"no", "yes", "unknown"}
    # People and clients that show only the text are told the same.
    assert error["message"] in result["content"][0]["text"]
    return error


def text(result: Result) -> str:
    """Return the text block of a result."""
    (block,) = result["content"]
    return str(block["text"])


@contextlib.asynccontextmanager
async def tools(
    world: World,
    *arguments: str,
    target: str = "box",
    client: str = "wire",
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Tools]:
    """Spawn a shim of `world` and shake hands as `client`."""
    environment = {**world.environment, **(env or {})}
    async with Wire(*arguments, env=environment, seconds=50) as wire:
        await wire.initialize(name=client)
        yield Tools(wire, target)
