"""What a caller is told whose handler the daemon's stop cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fakes.served import Served, info_of, metadata, served
from holdfast.v1 import exec_pb2
from holdfast_daemon.audit import query
from holdfast_daemon.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

ME = metadata(name="codex", version="1.2", instance="i1", pid=7, tool="ssh_exec")


@pytest.fixture
async def up(short_path: Path) -> AsyncGenerator[Served, None]:
    async with served(short_path, config=Config(allowed_hosts=("web*",))) as up:
        yield up


async def asked(up: Served, command: str, *, stream: bool) -> Any:
    """Have a handler at work, and return the call that asked for it."""
    request = exec_pb2.RunRequest(command=command, target="web1")
    call: Any
    if stream:
        call = up.exec.Run(request, metadata=ME)
        await call.read()
    else:
        call = up.ask()(request, metadata=ME)
    await up.told.entered.wait()
    return call


async def refusal(call: Any) -> tuple[str, str]:
    """Return reason and `ran` of how it ended."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if hasattr(call, "read") else call)
    info = info_of(caught.value)
    return info.reason, info.metadata["ran"]


async def end(up: Served) -> dict[str, Any]:
    """Return what was recorded of how it ended."""
    async for line in query.follow(up.log):
        if '"phase":"end"' in line:
            break
    (record,) = [one for one in await up.records() if one["phase"] == "end"]
    return record


@pytest.mark.parametrize("stream", [False, True])
async def test_a_handler_that_is_cut_off_tells_that_the_daemon_stops(
    up: Served, *, stream: bool
) -> None:
    """NF-20: a command may have run by then."""
    call = await asked(up, "wait", stream=stream)
    up.gate.drain()
    up.door.close()
    up.door.close()
    assert await refusal(call) == ("DRAINING", "unknown")
    assert (await end(up))["error"] == "the daemon is stopping"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_handler_whose_task_the_stop_ended_tells_that_too(
    up: Served, caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    """NF-20: it is no incident."""
    call = await asked(up, "wait for a task", stream=stream)
    up.gate.drain()
    assert up.told.work is not None
    up.told.work.cancel()
    assert await refusal(call) == ("DRAINING", "unknown")
    assert "incident" not in caplog.text


async def test_who_went_away_before_the_cut_did_so(up: Served) -> None:
    """OB-01: the stop is not taken for the reason."""
    call = await asked(up, "wait", stream=False)
    up.gate.drain()
    call.cancel()
    await up.told.closed.wait()
    up.door.close()
    assert (await end(up))["result"] == "cancelled"
