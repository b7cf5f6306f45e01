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


async def test_an_answer_that_comes_as_its_form_is_taken_back_is_no_fault() -> None:
    """NF-07: cancelled and answered in one turn of the loop."""
    (asked, ask), (told, tell) = os.pipe(), os.pipe()
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, fault: faults.append(fault))
    pipes = Pipes(asked, tell)
    try:
        protocol = Protocol([], "")
        dispatcher = Dispatcher(protocol, pipes)
        serving = loop.create_task(dispatcher.run(cast("Calls", Faulty()), []))
        await asyncio.sleep(0)
        form = dispatcher.ask({"message": "log in"})
        ident = json.loads(os.read(told, 65536))["id"]
        answer = {"jsonrpc": "2.0", "id": ident, "result": {"action": "accept"}}
        os.write(ask, json.dumps(answer).encode() + b"\n")
        # Behind the reader, which has the answer by then.
        loop.call_soon(form.cancel)
        os.close(ask)
        async with asyncio.timeout(20):
            await serving
    finally:
        loop.set_exception_handler(None)
        for descriptor in (asked, told, tell):
            os.close(descriptor)
        if pipes.parent.fd is not None:
            os.close(pipes.parent.fd)
    assert not faults
