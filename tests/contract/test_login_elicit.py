"""A call that needs a person's login asks for it by MCP elicitation, in both eras."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from fakes.asking_server import Asking, Round, Step
from fakes.mcp_wire import PREFIX, STATELESS, Wire
from fakes.terminal import Terminal
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mcp.types import ElicitRequestParams, ElicitResult

CODE = "736451"
ASKED = {"target": "web1", "command": "echo on"}
FORM = {**STATELESS, PREFIX + "clientCapabilities": {"elicitation": {"form": {}}}}
BOTH = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
def root() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="hf-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    rounds = (Round([("Verification code: ", False)], [CODE]),)
    async with Asking(Step(rounds=rounds)) as server:
        yield server


@pytest.fixture
async def world(root: Path, asking: Asking, tmp_path: Path) -> AsyncIterator[World]:
    one = World(root, ssh_config=asking.config(tmp_path))
    one.configure("")
    await asyncio.to_thread(one.start)
    yield one
    await asyncio.to_thread(one.stop)


async def log_in(world: World) -> None:
    """Do as the form says."""
    with Terminal() as terminal:
        command = (program("holdfast"), "login", "web1")
        await terminal.run(*command, env=world.environment)
        await terminal.asked("Verification code: ")
        terminal.type(f"{CODE}\n")
        assert await terminal.ended() == 0


async def begin(
    world: World, version: str = "2025-11-25", abilities: object = None
) -> Wire:
    shim = Wire(env=world.environment)
    await shim.__aenter__()
    capabilities = {} if abilities is None else {"elicitation": abilities}
    params = {
        "protocolVersion": version,
        "capabilities": capabilities,
        "clientInfo": {"name": "wire", "version": "1"},
    }
    await shim.request("initialize", params)
    return shim


async def form(shim: Wire) -> Any:
    """Return the request that shows a form."""
    asked = await shim.receive()
    assert asked["method"] == "elicitation/create", asked
    return asked


async def say(shim: Wire, asked: Any, action: str) -> None:
    result = {"action": action, **({"content": {}} if action == "accept" else {})}
    await shim.send({"jsonrpc": "2.0", "id": asked["id"], "result": result})


@pytest.mark.parametrize(
    ("version", "abilities"),
    [("2025-06-18", {}), ("2025-11-25", {"form": {}, "url": {}})],
)
async def test_a_form_without_a_field_asks_for_the_login_and_the_call_goes_on(
    world: World, asking: Asking, version: str, abilities: object
) -> None:
    """NF-07: handshake era, over the wire; the command runs once."""
    shim = await begin(world, version, abilities)
    try:
        ident = await shim.start("tools/call", {"name": "ssh_exec", "arguments": ASKED})
        asked = await form(shim)
        assert asked["params"] == {
            "message": "web1 asks for: Verification code. Run `holdfast login web1` in"
            " a terminal, then accept. Type no secret here.",
            "requestedSchema": {"type": "object", "properties": {}},
        }
        await log_in(world)
        await say(shim, asked, "accept")
        result = (await shim.reply(ident))["result"]
        assert result["structuredContent"]["stdout"] == "on\n"
        assert not shim.notes
    finally:
        await shim.__aexit__()
    assert asking.seen.logins == 1


@pytest.mark.parametrize("action", ["decline", "cancel", "refused"])
async def test_who_does_not_accept_gets_the_error(world: World, action: str) -> None:
    """NF-07: nothing is asked twice, nothing ran."""
    shim = await begin(world, abilities={})
    try:
        ident = await shim.start("tools/call", {"name": "ssh_exec", "arguments": ASKED})
        asked = await form(shim)
        if action == "refused":
            error = {"code": -32601, "message": "no"}
            await shim.send({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        else:
            await say(shim, asked, action)
        result = (await shim.reply(ident))["result"]
    finally:
        await shim.__aexit__()
    error = result["structuredContent"]["error"]
    assert (error["reason"], error["ran"]) == ("LOGIN_NEEDED", "no")


async def test_who_accepts_without_logging_in_gets_the_error_and_no_second_form(
    world: World, asking: Asking
) -> None:
    shim = await begin(world, abilities={})
    try:
        ident = await shim.start("tools/call", {"name": "ssh_exec", "arguments": ASKED})
        await say(shim, await form(shim), "accept")
        result = (await shim.reply(ident))["result"]
    finally:
        await shim.__aexit__()
    assert result["structuredContent"]["error"]["reason"] == "LOGIN_NEEDED"
    assert asking.seen.attempts == []


async def test_calls_of_one_client_share_one_form(world: World) -> None:
    """NF-07: five commands at once, one form."""
    shim = await begin(world, abilities={})
    try:
        idents = [
            await shim.start("tools/call", {"name": "ssh_exec", "arguments": ASKED})
            for _ in range(5)
        ]
        asked = await form(shim)
        await log_in(world)
        await say(shim, asked, "accept")
        found: dict[int, Any] = {}
        while len(found) < len(idents):
            message = await shim.receive()
            assert "method" not in message, message
            found[message["id"]] = message["result"]["structuredContent"]["stdout"]
    finally:
        await shim.__aexit__()
    assert found == dict.fromkeys(idents, "on\n")


async def test_a_form_nobody_waits_for_is_taken_back_and_the_next_call_asks_anew(
    world: World,
) -> None:
    """NF-07: a person stopped the call; the buggy shim asked nobody for 15 minutes."""
    shim = await begin(world, abilities={})
    try:
        params = {"name": "ssh_exec", "arguments": ASKED}
        idents = [await shim.start("tools/call", params) for _ in range(2)]
        first = await form(shim)
        for ident in idents:
            stopped = {"requestId": ident}
            await shim.send(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/cancelled",
                    "params": stopped,
                }
            )
        taken = await shim.receive()
        assert taken["method"] == "notifications/cancelled"
        assert taken["params"]["requestId"] == first["id"]
        ident = await shim.start("tools/call", params)
        second = await form(shim)
        assert second["id"] != first["id"]
        # A person's answer may have been on its way.
        await say(shim, first, "cancel")
        await log_in(world)
        await say(shim, second, "accept")
        result = (await shim.reply(ident))["result"]
        assert result["structuredContent"]["stdout"] == "on\n"
    finally:
        await shim.__aexit__()


@pytest.mark.parametrize(
    ("version", "abilities"),
    [
        ("2025-11-25", None),
        ("2025-11-25", {"url": {}}),
        ("2025-03-26", {}),
        ("2024-11-05", {"form": {}}),
    ],
)
async def test_a_client_that_can_t_show_a_form_is_not_asked(
    world: World, version: str, abilities: object
) -> None:
    """NF-07: only what was declared, and only where the protocol has it."""
    shim = await begin(world, version, abilities)
    try:
        result = await shim.call("ssh_exec", ASKED)
        assert result["structuredContent"]["error"]["reason"] == "LOGIN_NEEDED"
        result = await shim.call("ssh_exec", ASKED, _meta=STATELESS)
        assert result["resultType"] == "complete"
        assert result["structuredContent"]["error"]["reason"] == "LOGIN_NEEDED"
    finally:
        await shim.__aexit__()


async def test_the_stateless_era_is_asked_by_the_result(
    world: World, asking: Asking
) -> None:
    """NF-07: 2026-07-28, over the wire: input_required, then the same call again."""
    async with Wire(env=world.environment) as shim:
        asked = await shim.call("ssh_exec", ASKED, _meta=FORM)
        assert asked["resultType"] == "input_required"
        (request,) = asked["inputRequests"].values()
        assert request["method"] == "elicitation/create"
        assert request["params"]["mode"] == "form"
        assert "holdfast login web1" in request["params"]["message"]
        assert request["params"]["requestedSchema"]["properties"] == {}
        (key,) = asked["inputRequests"]
        state = asked["requestState"]
        await log_in(world)
        accepted = {key: {"action": "accept", "content": {}}}
        again = {"_meta": FORM, "inputResponses": accepted, "requestState": state}
        result = await shim.call("ssh_exec", ASKED, **again)
        assert result["resultType"] == "complete"
        assert result["structuredContent"]["stdout"] == "on\n"
    assert asking.seen.logins == 1


async def test_a_state_that_is_not_ours_is_refused(world: World) -> None:
    """NF-07: requestState is the client's to lose, not to change."""
    async with Wire(env=world.environment) as shim:
        asked = await shim.call("ssh_exec", ASKED, _meta=FORM)
        state = asked["requestState"]
        (key,) = asked["inputRequests"]
        declined = {key: {"action": "decline"}}
        told = await shim.call(
            "ssh_exec", ASKED, _meta=FORM, inputResponses=declined, requestState=state
        )
        assert told["structuredContent"]["error"]["reason"] == "LOGIN_NEEDED"
        changed = state[:-8] + ("A" if state[-8] != "A" else "B") + state[-7:]
        for name, arguments, given in (
            ("ssh_exec", ASKED, changed),
            ("ssh_exec", {**ASKED, "command": "rm -rf /"}, state),
            ("ssh_connect", {"target": "web1"}, state),
            ("ssh_exec", ASKED, "§"),
            ("ssh_exec", ASKED, 5),
        ):
            params = {"name": name, "arguments": arguments, "requestState": given}
            params |= {"_meta": FORM, "inputResponses": {key: {"action": "accept"}}}
            answer = await shim.request("tools/call", params)
            assert answer["error"]["code"] == -32602, answer
        # An answer without a state answers nothing.
        fresh = await shim.call("ssh_exec", ASKED, _meta=FORM, inputResponses=declined)
        assert fresh["resultType"] == "input_required"


@BOTH
@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_the_sdk_s_client_shows_the_form(
    world: World,
    asking: Asking,
    mode: Literal["auto", "legacy"],
    action: Literal["accept", "decline"],
) -> None:
    """NF-07: the real SDK client, with an elicitation callback, in both eras."""
    # half a second of work, which is for whom it falls to alone
    from mcp import Client, StdioServerParameters  # noqa: PLC0415
    from mcp.types import ElicitResult  # noqa: PLC0415

    shown: list[str] = []

    async def person(context: Any, params: ElicitRequestParams) -> ElicitResult:
        shown.append(params.message)
        if action == "accept":
            await log_in(world)
            return ElicitResult(action="accept", content={})
        return ElicitResult(action="decline")

    words = ["-m", "holdfast_shim.mcp_stdio"]
    server = StdioServerParameters(
        command=sys.executable, args=words, env=world.environment
    )
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        result = await client.call_tool("ssh_exec", ASKED)
    assert len(shown) == 1
    assert "Run `holdfast login web1` in a terminal" in shown[0]
    told = result.structured_content
    assert told is not None
    if action == "accept":
        assert told["stdout"] == "on\n"
    else:
        assert told["error"]["reason"] == "LOGIN_NEEDED", json.dumps(told)
    assert asking.seen.logins == (1 if action == "accept" else 0)
