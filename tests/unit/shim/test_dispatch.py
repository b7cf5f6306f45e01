"""The shim's second stage, as far as no daemon is needed to see it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any, cast

from holdfast_shim.dispatch import Dispatcher
from holdfast_shim.pipes import Pipes
from holdfast_shim.protocol import Protocol

if TYPE_CHECKING:
    import pytest

    from holdfast_shim.calls import Calls


class Faulty:
    """Calls of which each ends in a fault of ours."""

    async def result(self, *_: object) -> dict[str, Any]:
        raise RuntimeError("a fault")


class Unread(io.StringIO):
    """A stderr that nobody reads any more."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


async def test_a_fault_that_nobody_can_be_told_of_is_answered_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call without an answer keeps an agent waiting for ever."""
    monkeypatch.setattr(sys, "stderr", Unread())
    (asked, ask), (told, tell) = os.pipe(), os.pipe()
    os.set_blocking(told, False)
    pipes = Pipes(asked, tell)
    try:
        params = {"name": "ssh_exec", "arguments": {}}
        message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
        os.write(ask, json.dumps(message).encode() + b"\n")
        os.close(ask)
        dispatcher = Dispatcher(Protocol([], ""), pipes)
        async with asyncio.timeout(20):
            await dispatcher.run(cast("Calls", Faulty()), [])
        answer = json.loads(os.read(told, 65536))
    finally:
        for descriptor in (asked, told, tell):
            os.close(descriptor)
        if pipes.parent.fd is not None:
            os.close(pipes.parent.fd)
    assert answer["id"] == 7
    error = answer["result"]["structuredContent"]["error"]
    assert (error["reason"], error["ran"]) == ("INTERNAL", "unknown")
