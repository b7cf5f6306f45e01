"""One API, three faces: what a tool answers, the command line and gRPC answer too."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import pytest_asyncio

from fakes.served import info_of
from fakes.tools import Tools, served, tools
from fakes.watch import connected
from holdfast.v1 import (
    exec_pb2,
    exec_pb2_grpc,
    file_pb2,
    file_pb2_grpc,
    forward_pb2,
    forward_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    transfer_pb2,
    transfer_pb2_grpc,
)
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fakes.sshd import Sshd
    from fakes.world import World
    from holdfast_shim.client import DaemonClient

    Ask = Callable[[DaemonClient, str], Any]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("three_faces"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    roots = f'local_roots = ["{tempfile.gettempdir()}"]\n'
    more = roots + '[hosts.box]\ntags = ["a"]\ndescription = "the one"\n'
    with served(sshd, more=more) as one:
        yield one
    COPIED.unlink(missing_ok=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--toolsets", "all", target="") as one:
        yield one


async def last(frames: Any) -> Any:
    """Return the result at the end of a stream."""
    found: Any = None
    async for frame in frames:
        found = frame
    return found.result


def execs(client: DaemonClient) -> exec_pb2_grpc.ExecServiceStub:
    return exec_pb2_grpc.ExecServiceStub(client.channel)


def sessions(client: DaemonClient) -> session_pb2_grpc.SessionServiceStub:
    return session_pb2_grpc.SessionServiceStub(client.channel)


def forwards(client: DaemonClient) -> forward_pb2_grpc.ForwardServiceStub:
    return forward_pb2_grpc.ForwardServiceStub(client.channel)


def hosts(client: DaemonClient) -> host_pb2_grpc.HostServiceStub:
    return host_pb2_grpc.HostServiceStub(client.channel)


def transfers(client: DaemonClient) -> transfer_pb2_grpc.TransferServiceStub:
    return transfer_pb2_grpc.TransferServiceStub(client.channel)


# Nothing is changed, so all three find the same.
SYNC: dict[str, Any] = {
    "target": "box",
    "source": "~",
    "destination": "/tmp/holdfast-none-such",
    "dry_run": True,
}
COPIED = Path(tempfile.gettempdir()) / f"holdfast-faces-{os.getpid()}"
COPY: dict[str, Any] = {
    "target": "box",
    "sources": ["/etc/hostname"],
    "destination": str(COPIED),
    "overwrite": True,
}
# Tool: its arguments, the words of the command line, and the RPC. {job} is a job's id.
FACES: dict[str, tuple[dict[str, Any], list[str], Ask]] = {
    "ssh_exec": (
        {"target": "box", "command": "echo out; echo err >&2; exit 3", "cwd": "/"},
        ["exec", "--cwd", "/", "box", "--", "echo out; echo err >&2; exit 3"],
        lambda client, job: last(  # noqa: ARG005 - one shape for all
            execs(client).Run(
                exec_pb2.RunRequest(
                    target="box", command="echo out; echo err >&2; exit 3", cwd="/"
                ),
                metadata=client.metadata("ssh_exec"),
            )
        ),
    ),
    "ssh_job_list": (
        {"target": "box"},
        ["jobs", "box"],
        lambda client, job: execs(client).ListJobs(  # noqa: ARG005
            exec_pb2.ListJobsRequest(target="box"), metadata=client.metadata()
        ),
    ),
    "ssh_job_read": (
        {"job_id": "{job}", "offset": 0},
        ["job", "{job}"],
        lambda client, job: last(
            execs(client).ReadJob(
                exec_pb2.ReadJobRequest(job_id=job, offset=0),
                metadata=client.metadata(),
            )
        ),
    ),
    "ssh_job_stop": (
        {"job_id": "{job}"},
        ["job", "{job}", "--stop"],
        lambda client, job: execs(client).StopJob(
            exec_pb2.StopJobRequest(job_id=job), metadata=client.metadata()
        ),
    ),
    "ssh_hosts": (
        {"tag": "a"},
        ["hosts", "list", "--tag", "a"],
        lambda client, job: hosts(client).ListHosts(  # noqa: ARG005
            host_pb2.ListHostsRequest(tag="a"), metadata=client.metadata()
        ),
    ),
    "ssh_connect": (
        {"target": "box"},
        ["hosts", "test", "box"],
        lambda client, job: hosts(client).Connect(  # noqa: ARG005
            host_pb2.ConnectRequest(target="box"), metadata=client.metadata()
        ),
    ),
    "ssh_sync": (
        {**SYNC, "direction": "download"},
        ["sync", "--dry-run", "box:", SYNC["destination"]],
        lambda client, job: last(  # noqa: ARG005
            transfers(client).SyncDirectory(
                transfer_pb2.SyncDirectoryRequest(
                    **SYNC, direction=transfer_pb2.TRANSFER_DIRECTION_DOWNLOAD
                ),
                metadata=client.metadata(),
            )
        ),
    ),
    "ssh_copy": (
        {**COPY, "direction": "download"},
        ["copy", "--overwrite", "box:/etc/hostname", str(COPIED)],
        lambda client, job: last(  # noqa: ARG005
            transfers(client).CopyFiles(
                transfer_pb2.CopyFilesRequest(
                    **COPY, direction=transfer_pb2.TRANSFER_DIRECTION_DOWNLOAD
                ),
                metadata=client.metadata(),
            )
        ),
    ),
    "ssh_forward_open": (
        {"target": "box", "direction": "dynamic", "name": "faces"},
        ["forward", "box", "-D", "0", "--name", "faces"],
        lambda client, job: forwards(client).OpenForward(  # noqa: ARG005
            forward_pb2.OpenForwardRequest(
                target="box",
                direction=forward_pb2.FORWARD_DIRECTION_DYNAMIC,
                name="faces",
            ),
            metadata=client.metadata(),
        ),
    ),
    "ssh_forward_list": (
        {"target": "box"},
        ["forwards", "box"],
        lambda client, job: forwards(client).ListForwards(  # noqa: ARG005
            forward_pb2.ListForwardsRequest(target="box"), metadata=client.metadata()
        ),
    ),
    "ssh_forward_close": (
        {"forward": "faces"},
        ["forwards", "--close", "faces"],
        lambda client, job: forwards(client).CloseForward(  # noqa: ARG005
            forward_pb2.CloseForwardRequest(forward="faces"),
            metadata=client.metadata(),
        ),
    ),
    "ssh_disconnect": (
        {"target": "box"},
        ["hosts", "disconnect", "box"],
        lambda client, job: hosts(client).Disconnect(  # noqa: ARG005
            host_pb2.DisconnectRequest(target="box"), metadata=client.metadata()
        ),
    ),
    "ssh_session_list": (
        {"include_exited": True},
        ["sessions", "--all"],
        lambda client, job: sessions(client).ListSessions(  # noqa: ARG005
            session_pb2.ListSessionsRequest(include_exited=True),
            metadata=client.metadata(),
        ),
    ),
}
# A person does these in a terminal, with `holdfast shell` and `holdfast attach`, and
# closes with `holdfast sessions --close`; tests of those show it. A person waits with
# `holdfast job ID --follow`, or looks on.
BY_TERMINAL = {
    "ssh_wait",
    "ssh_session_open",
    "ssh_session_run",
    "ssh_session_write",
    "ssh_session_read",
    "ssh_session_close",
}
# A person has ssh, scp and an editor for these; the RPC is the same one.
BY_AGENT = {
    "ssh_file_read",
    "ssh_file_write",
    "ssh_file_edit",
    "ssh_dir_list",
    "ssh_search",
    "ssh_find",
}
# What differs from call to call, or tells what the answer's own size left out.
OWN = {
    "job_id",
    "duration_ms",
    "rtt_ms",
    "started",
    "next_offset",
    "uptime_seconds",
    "bytes_transferred",
}


def shared(value: Any) -> Any:
    """Return an answer without what is each call's own."""
    if isinstance(value, dict):
        return {key: shared(item) for key, item in value.items() if key not in OWN}
    if isinstance(value, list):
        return [shared(item) for item in value]
    return value


async def test_every_tool_has_a_verb_of_the_command_line(ssh: Tools) -> None:
    """NF-18, IN-08: one that is added must be added to the other faces."""
    listed = (await ssh.wire.request("tools/list"))["result"]["tools"]
    assert {tool["name"] for tool in listed} == (set(FACES) | BY_TERMINAL | BY_AGENT)


@pytest.mark.parametrize("tool", FACES)
async def test_the_three_faces_answer_the_same(
    ssh: Tools, world: World, tool: str
) -> None:
    """NF-18, IN-08: the same fields with the same values."""
    arguments, words, ask = FACES[tool]
    ran = await ssh.run("echo first; exit 5", target="box")
    job = str(ran["job_id"])
    if tool.startswith("ssh_forward_"):
        # What is open already, or closed already, is so for all.
        await ssh.told("ssh_forward_open", **FACES["ssh_forward_open"][0])
    if tool in {"ssh_forward_close", "ssh_disconnect"}:
        # What was closed once is closed for all: each sees that there is none.
        await ssh.told(tool, **arguments)

    def filled(value: Any) -> Any:
        return value.format(job=job) if isinstance(value, str) else value

    told = await ssh.told(tool, **{k: filled(v) for k, v in arguments.items()})
    done = await asyncio.to_thread(
        world.cli, "--json", *map(filled, words), check=False
    )
    printed = json.loads(done.stdout)
    async with connected(world, "cli") as client:
        answered = to_json(await ask(client, job))
    if tool == "ssh_job_list":
        # Each of the calls above is a job of its own; this one is in all the lists.
        rows = [
            next(row for row in answer["jobs"] if row["job_id"] == job)
            for answer in (told, printed, answered)
        ]
        assert rows[0] == rows[1] == rows[2]
        return
    if tool.startswith("ssh_forward_"):
        await ssh.told("ssh_forward_close", forward="faces")
    assert shared(told) == shared(printed)
    assert shared(told) == shared(answered)
    assert shared(told)


async def test_files_are_told_alike_by_tool_and_rpc(ssh: Tools, world: World) -> None:
    """NF-18: of a file, its directory, and what is found in it."""
    where: dict[str, Any] = {"target": "box", "path": "~/three"}
    path: dict[str, Any] = {**where, "path": "~/three/a"}
    made = await ssh.told(
        "ssh_file_write", **path, content="1\n", mode="overwrite", make_parents=True
    )
    async with connected(world) as client:
        files = file_pb2_grpc.FileServiceStub(client.channel)
        met = client.metadata()
        read = await files.ReadFile(file_pb2.ReadFileRequest(**path), metadata=met)
        listed = await files.ListDirectory(
            file_pb2.ListDirectoryRequest(**where), metadata=met
        )
        found = await files.FindFiles(
            file_pb2.FindFilesRequest(**where, glob="*"), metadata=met
        )
        searched = await files.SearchFiles(
            file_pb2.SearchFilesRequest(**where, pattern="1"), metadata=met
        )
    assert read.sha256 == made["sha256"]
    assert await ssh.told("ssh_file_read", **path) == to_json(read)
    assert await ssh.told("ssh_dir_list", **where) == to_json(listed)
    assert await ssh.told("ssh_find", **where, glob="*") == to_json(found)
    assert await ssh.told("ssh_search", **where, pattern="1") == to_json(searched)


async def test_the_three_faces_refuse_alike(ssh: Tools, world: World) -> None:
    """NF-18, EX-20: the same reason, and the same word about what ran."""
    error = await ssh.refused(
        "ssh_exec", target="box", command="true", cwd="/nonexistent"
    )
    words = ["--json", "exec", "--cwd", "/nonexistent", "box", "--", "true"]
    done = await asyncio.to_thread(world.cli, *words, check=False)
    printed = json.loads(done.stdout)["error"]
    assert (printed["reason"], printed["ran"]) == (error["reason"], error["ran"])
    async with connected(world) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await last(
                execs(client).Run(
                    exec_pb2.RunRequest(
                        target="box", command="true", cwd="/nonexistent"
                    ),
                    metadata=client.metadata(),
                )
            )
    info = info_of(caught.value)
    assert (info.reason, info.metadata["ran"]) == (error["reason"], "no")
    assert error["reason"] == "CWD_FAILED"
