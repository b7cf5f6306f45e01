"""A read-only client: shown what only looks, and refused the rest by the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool, message_factory

from fakes.served import info_of
from fakes.tools import Tools, served, tools
from fakes.watch import connected, records, soon
from holdfast.v1 import common_pb2, options_pb2
from holdfast_daemon.policy.rules import LOOKING
from holdfast_daemon.rpc.context import KEY
from holdfast_daemon.rpc.methods import methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("read_only_clients"),
    pytest.mark.needs_sshd,
]

# What each tool that acts is called with; one that is missing here fails the test.
CALLS: dict[str, dict[str, Any]] = {
    "ssh_exec": {"target": "box", "command": "true"},
    "ssh_job_stop": {"job_id": "j1234567"},
    "ssh_connect": {"target": "box"},
    "ssh_disconnect": {"target": "box"},
    "ssh_forward_open": {"target": "box", "direction": "dynamic"},
    "ssh_forward_close": {"forward": "f1234567"},
    "ssh_file_write": {"target": "box", "path": "a", "content": "x"},
    "ssh_file_edit": {
        "target": "box",
        "path": "a",
        "edits": [{"old": "a", "new": "b"}],
    },
    "ssh_copy": {
        "target": "box",
        "direction": "download",
        "sources": ["/none"],
        "destination": "/none",
    },
    "ssh_sync": {
        "target": "box",
        "direction": "download",
        "source": "/none",
        "destination": "/none",
    },
    "ssh_session_open": {"target": "box"},
    "ssh_session_run": {"session": "s1234567", "command": "true"},
    "ssh_session_write": {"session": "s1234567", "input": "true\n"},
    "ssh_session_close": {"session": "s1234567"},
}


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--read-only", "--toolsets", "all", target="") as one:
        yield one


async def listed(ssh: Tools) -> dict[str, dict[str, Any]]:
    told = (await ssh.wire.request("tools/list"))["result"]["tools"]
    return {tool["name"]: tool["annotations"] for tool in told}


async def test_tools_that_act_are_hidden_and_refused_by_the_daemon(
    ssh: Tools, world: World, sshd: Sshd
) -> None:
    """SC-13: by the daemon too, for a client that calls what it was not shown."""
    async with tools(world, "--toolsets", "all", target="") as other:
        everything = await listed(other)
    shown = await listed(ssh)
    acting = {name for name, hints in everything.items() if not hints["readOnlyHint"]}
    assert acting == set(CALLS)
    assert set(shown) == set(everything) - acting
    assert {"ssh_hosts", "ssh_job_read", "ssh_session_read"} <= set(shown)
    before = sshd.log.position
    for name, arguments in CALLS.items():
        error = await ssh.refused(name, **arguments)
        assert (error["reason"], error["ran"]) == ("READ_ONLY", "no"), name
    assert not sshd.log.count("Connection from", after=before)

    def denied() -> int:
        rows = [row for row in records(world) if row["event_type"] == "command_denied"]
        return len(rows)

    await soon(lambda: denied() >= len(CALLS), "each is recorded")


async def test_a_read_only_client_still_looks(ssh: Tools, world: World) -> None:
    """SC-13: hosts, jobs and their output of other clients."""
    async with tools(world) as other:
        job = (await other.run("echo seen"))["job_id"]
    assert [row["name"] for row in (await ssh.told("ssh_hosts"))["hosts"]] == ["box"]
    assert job in [row["job_id"] for row in (await ssh.told("ssh_job_list"))["jobs"]]
    assert (await ssh.read(job, offset=0))["stdout"] == "seen\n"


def filled(message: Message) -> Message:
    """Fill what a request must have, so that nothing but the rules refuses it."""
    for field in message.DESCRIPTOR.fields:
        options = field.GetOptions().Extensions[options_pb2.field]
        if field.message_type is not None and field.name == "start":
            filled(getattr(message, field.name)).SetInParent()
        elif field.message_type is not None and options.required and field.is_repeated:
            filled(getattr(message, field.name).add())
        elif field.name == "target":
            setattr(message, field.name, "box")
        elif field.name == "path":
            # Not the home directory, which may be large and is searched for long.
            setattr(message, field.name, "/j1234567")
        elif options.required and field.enum_type is not None:
            setattr(message, field.name, field.enum_type.values[1].number)
        elif options.required and field.type == field.TYPE_STRING:
            if field.is_repeated:
                getattr(message, field.name).append("j1234567")
            else:
                setattr(message, field.name, "j1234567")
    return message


async def refusal(
    channel: grpc.aio.Channel, path: str, method: MethodDescriptor
) -> tuple[grpc.StatusCode, str]:
    """Call an RPC as a read-only client of our own making; return what came of it."""
    context = common_pb2.ClientContext(name="forged", read_only=True)
    metadata = ((KEY, context.SerializeToString()),)
    request = filled(message_factory.GetMessageClass(method.input_type)())
    answer = message_factory.GetMessageClass(method.output_type)
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    make: Any = kinds[method.client_streaming, method.server_streaming]
    rpc = make(
        path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    sent: Any = iter([request]) if method.client_streaming else request
    call = rpc(sent, metadata=metadata, timeout=20)
    try:
        if method.server_streaming:
            async for _ in call:
                break
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return error.code(), ""
        return error.code(), info_of(error).reason
    return grpc.StatusCode.OK, ""


async def test_every_rpc_that_acts_is_refused_to_a_read_only_client(
    world: World,
) -> None:
    """SC-13: over gRPC itself, without the shim, each RPC that the daemon serves."""
    acting, looking = 0, 0
    async with connected(world) as client:
        pool = descriptor_pool.Default()
        for path, method in methods().items():
            service, _, name = path[1:].partition("/")
            found = pool.FindServiceByName(service).methods_by_name[name]
            code, reason = await refusal(client.channel, path, found)
            if code is grpc.StatusCode.UNIMPLEMENTED:
                continue
            if method.action in LOOKING:
                looking += 1
                assert reason != "READ_ONLY", path
            else:
                acting += 1
                assert (code, reason) == (
                    grpc.StatusCode.PERMISSION_DENIED,
                    "READ_ONLY",
                ), path
    assert acting >= len(CALLS)
    assert looking >= len(CALLS)
