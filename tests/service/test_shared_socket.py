"""One socket, many clients at once: two shims, the command line and gRPC itself."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from fakes.tools import served, tools
from fakes.watch import connected, records, run, wait_for_output
from holdfast.v1 import admin_pb2, admin_pb2_grpc, exec_pb2, exec_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd
    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [pytest.mark.xdist_group("shared_socket"), pytest.mark.needs_sshd]

EACH = 8


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


async def test_four_kinds_of_clients_share_one_daemon_and_one_login(
    world: World, sshd: Sshd
) -> None:
    """TR-07, NF-18: each gets its own answers, all over one connection."""
    logins = sshd.logins

    async def by_shim(ssh: Tools, name: str) -> list[str]:
        results = await ssh.together(
            *(("ssh_exec", {"command": f"echo {name}{n}"}) for n in range(EACH))
        )
        return [result["structuredContent"]["stdout"] for result in results]

    async def by_cli(number: int) -> str:
        done = await asyncio.to_thread(
            world.cli, "exec", "box", "--", f"echo cli{number}"
        )
        return done.stdout.decode()

    async with (
        tools(world, client="wire-one") as first,
        tools(world, client="wire-two") as second,
        connected(world, "raw") as raw,
    ):
        # The first login is one for all who come meanwhile, too.
        answers = await asyncio.gather(
            by_shim(first, "a"),
            by_shim(second, "b"),
            asyncio.gather(*(by_cli(n) for n in range(3))),
            asyncio.gather(*(run(raw, f"echo raw{n}") for n in range(EACH))),
        )
        assert answers[0] == [f"a{n}\n" for n in range(EACH)]
        assert answers[1] == [f"b{n}\n" for n in range(EACH)]
        assert answers[2] == [f"cli{n}\n" for n in range(3)]
        assert [one.stdout for one in answers[3]] == [f"raw{n}\n" for n in range(EACH)]
        # So many at once may take more than one connection, but not one for each.
        assert 1 <= sshd.logins - logins < EACH
        told = await asyncio.to_thread(world.cli_json, "status")
    names = {row["name"].partition("/")[0] for row in told["clients"]}
    assert names >= {"wire-one", "wire-two", "cli", "raw"}
    starts = [row for row in records(world) if row["phase"] == "start"]
    by_client: dict[str, int] = {}
    for row in starts:
        name = row["client"].partition("/")[0]
        by_client[name] = by_client.get(name, 0) + 1
    wanted = {"wire-one": EACH, "wire-two": EACH, "cli": 3, "raw": EACH}
    assert {name: by_client[name] for name in wanted} == wanted


async def test_what_one_client_starts_all_others_see_and_may_end(
    world: World,
) -> None:
    """TR-07: a shim's job is read by gRPC, listed by the other, ended by a person."""
    async with (
        tools(world, client="one") as first,
        tools(world, client="two") as second,
        connected(world, "raw") as raw,
    ):
        job = await first.start("echo up; exec sleep 300")
        await wait_for_output(raw, job, "up")
        rows = (await second.told("ssh_job_list", running_only=True))["jobs"]
        assert [(row["job_id"], row["client"]) for row in rows] == [(job, "one/1")]
        waiting = asyncio.create_task(first.read(job, offset=3, wait_seconds=30))
        done = await asyncio.to_thread(
            world.cli, "--json", "job", job, "--stop", "KILL"
        )
        assert json.loads(done.stdout)["stopped"] is True
        # Who waited is told of the end, whoever made it.
        assert (await waiting)["signal"] == "KILL"


async def test_a_client_that_goes_away_disturbs_no_other(world: World) -> None:
    """TR-07: killed in mid-call; the others' calls and the daemon go on."""
    async with tools(world) as stays, connected(world, "raw") as raw:
        async with tools(world) as leaves:
            ident = await leaves.wire.start(
                "tools/call",
                {
                    "name": "ssh_exec",
                    "arguments": {"target": "box", "command": "echo up; sleep 300"},
                },
            )
            assert ident
            job = await job_of(stays, "echo up; sleep 300")
            await wait_for_output(raw, job, "up")
            leaves.wire.process.kill()
        assert (await stays.run("echo on"))["stdout"] == "on\n"
        # The command goes on, as its caller may come back for it.
        assert (await stays.read(job, offset=0))["status"] == "running"
        await stays.stop(job, signal="KILL")


async def job_of(ssh: Tools, command: str) -> str:
    """Return the running job with this command once it is listed."""
    async with asyncio.timeout(40):
        while True:
            for row in (await ssh.told("ssh_job_list", running_only=True))["jobs"]:
                if row["command"] == command:
                    return str(row["job_id"])


async def test_a_client_of_no_context_is_served_as_one_too(world: World) -> None:
    """TR-07: any program of this user may speak the contract, with no shim's help."""
    async with connected(world) as client:
        admin = admin_pb2_grpc.AdminServiceStub(client.channel)
        hello = await admin.Hello(admin_pb2.HelloRequest())
        assert hello.pid == world.pid
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        request = exec_pb2.RunRequest(target="box", command="echo plain")
        found: list[Any] = [frame async for frame in stub.Run(request)]
        assert found[-1].result.stdout == "plain\n"
