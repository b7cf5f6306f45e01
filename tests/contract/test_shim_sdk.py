"""The MCP SDK's own client drives the shim in both protocol eras."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal

import pytest

from fakes.daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp import Client

Mode = Literal["auto", "legacy"]
BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[FakeDaemon]:
    async with FakeDaemon(short_path / "hf.sock") as running:
        yield running


def client(daemon: FakeDaemon, mode: Mode, *args: str) -> Client:
    # half a second of work, which is for whom it falls to alone
    from mcp import Client, StdioServerParameters  # noqa: PLC0415

    words = ["-m", "holdfast_shim.mcp_stdio", "--socket", str(daemon.socket), *args]
    return Client(StdioServerParameters(command=sys.executable, args=words), mode=mode)


@BOTH
async def test_each_era_is_negotiated(daemon: FakeDaemon, mode: Mode) -> None:
    """TR-10: protocol 2026-07-28 and the handshake on one pipe."""
    async with client(daemon, mode) as session:
        spoken = {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
        assert session.protocol_version == spoken
        assert session.instructions
        assert session.server_info is not None
        assert session.server_info.name == "holdfast"


@BOTH
async def test_tools_are_listed_with_title_and_annotations(
    daemon: FakeDaemon, mode: Mode
) -> None:
    """TR-09: all four annotations on every tool."""
    async with client(daemon, mode) as session:
        tools = (await session.list_tools()).tools
        assert "ssh_exec" in [tool.name for tool in tools]
        for tool in tools:
            hints = tool.annotations
            assert tool.title
            assert hints is not None
            assert None not in (
                hints.read_only_hint,
                hints.destructive_hint,
                hints.idempotent_hint,
                hints.open_world_hint,
            )


@BOTH
async def test_a_command_answers_with_text_and_structure(
    daemon: FakeDaemon, mode: Mode
) -> None:
    """TR-01: stdio."""
    async with client(daemon, mode) as session:
        result = await session.call_tool("ssh_exec", {"command": "echo hi"})
        assert not result.is_error
        assert text_of(result) == "exit 0 · me@web1 · 1.2 s · 1 line · job j7k2\nhi"
        assert result.structured_content is not None
        assert result.structured_content["exit_code"] == 0
        assert daemon.callers[-1].tool == "ssh_exec"


@BOTH
@pytest.mark.parametrize("form", ["auto", "structured"])
async def test_results_and_failures_pass_the_clients_schema_check(
    daemon: FakeDaemon, mode: Mode, form: str
) -> None:
    """TR-09: a failure must reach the model, not break on the output schema."""
    async with client(daemon, mode, "--results", form) as session:
        await session.list_tools()
        hosts = await session.call_tool("ssh_hosts", {})
        assert hosts.structured_content is not None
        assert hosts.structured_content["hosts"][0]["name"] == "web1"
        for tool, arguments in (
            ("ssh_hosts", {"nonsense": 1}),
            ("ssh_exec", {"command": "refuse"}),
        ):
            failed = await session.call_tool(tool, arguments)
            assert failed.is_error
            assert failed.structured_content is not None
            assert failed.structured_content["error"]["ran"] == "no"


@BOTH
async def test_an_unknown_tool_is_a_tool_error(daemon: FakeDaemon, mode: Mode) -> None:
    """TR-09: unknown tool is a tool error."""
    async with client(daemon, mode) as session:
        result = await session.call_tool("nonsense", {})
        assert result.is_error
        assert "UNKNOWN_TOOL" in text_of(result)


@BOTH
async def test_progress_arrives(daemon: FakeDaemon, mode: Mode) -> None:
    """TR-12: progress."""
    seen: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    async with client(daemon, mode) as session:
        arguments = {"command": "progress 3"}
        await session.call_tool("ssh_exec", arguments, progress_callback=note)
        assert [message for _, message in seen] == ["line 0", "line 1", "line 2"]
        assert [value for value, _ in seen] == sorted({value for value, _ in seen})


@BOTH
async def test_cancelling_a_call_ends_the_wait(daemon: FakeDaemon, mode: Mode) -> None:
    """TR-12: cancellation."""
    async with client(daemon, mode) as session:
        call = asyncio.create_task(session.call_tool("ssh_exec", {"command": "wait"}))
        await asyncio.wait_for(daemon.begun.wait(), 40)
        call.cancel()
        await asyncio.wait_for(daemon.cancelled.wait(), 40)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not (await session.call_tool("ssh_hosts", {})).is_error


@BOTH
async def test_many_calls_at_once_each_get_their_own_answer(
    daemon: FakeDaemon, mode: Mode
) -> None:
    """TR-01: calls side by side."""
    async with client(daemon, mode) as session:
        results = await asyncio.gather(
            *(
                session.call_tool("ssh_exec", {"command": f"echo number {n}"})
                for n in range(50)
            )
        )
        for number, result in enumerate(results):
            assert text_of(result).endswith(f"\nnumber {number}")


def text_of(result: Any) -> str:
    (block,) = result.content
    text = block.text
    assert isinstance(text, str)
    return text
