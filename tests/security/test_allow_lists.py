"""Which hosts a client may use: two lists that only narrow, by names and globs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import pytest_asyncio

from fakes.served import info_of
from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools
from fakes.watch import connected, records, soon
from holdfast.v1 import exec_pb2, exec_pb2_grpc, host_pb2, host_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("allow_lists"),
    pytest.mark.needs_sshd,
]

NAMES = ("web1", "web2", "web10", "Web3", "xweb1", "db1", "db.prod", "mail")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield one server that ssh config knows by many names."""
    directory = tmp_path_factory.mktemp("many")
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as server:
        # Each by a user's name of its own address, so that only the alias tells them
        # apart: 127.0.0.1 is the address of all.
        server.config.write_text("".join(map(server.client_config, NAMES)))
        yield server


@pytest.fixture(scope="module")
def world(host: Sshd) -> Iterator[World]:
    with served(host) as one:
        yield one


@pytest.fixture(scope="module")
def narrow(host: Sshd) -> Iterator[World]:
    """Yield a daemon whose own configuration allows only some."""
    with served(host, more='allowed_hosts = ["web*", "db1"]\n') as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(narrow: World) -> AsyncIterator[Tools]:
    async with tools(narrow, target="") as one:
        yield one


async def may_use(world: World, allowed: str) -> tuple[set[str], set[str]]:
    """Return what a client with this SSH_ALLOWED_HOSTS is shown, and may run on."""
    env = {"SSH_ALLOWED_HOSTS": allowed} if allowed else {}
    async with connected(world, env=env) as client:
        listed = await host_pb2_grpc.HostServiceStub(client.channel).ListHosts(
            host_pb2.ListHostsRequest(), metadata=client.metadata()
        )
        runs: set[str] = set()
        refusals: list[str] = []
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        for name in NAMES:
            request = exec_pb2.RunRequest(target=name, command="true")
            try:
                async for frame in stub.Run(request, metadata=client.metadata()):
                    if frame.result.ok:
                        runs.add(name)
            except grpc.aio.AioRpcError as error:
                refusals.append(info_of(error).reason)
        assert set(refusals) <= {"HOST_NOT_ALLOWED"}
        return {row.name for row in listed.hosts}, runs


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        ("", set(NAMES)),
        ("*", set(NAMES)),
        ("web1", {"web1"}),
        ("web", set[str]()),
        ("web?", {"web1", "web2", "Web3"}),
        ("web*", {"web1", "web2", "web10", "Web3"}),
        ("*web1", {"web1", "xweb1"}),
        ("web[12]", {"web1", "web2"}),
        ("web[!1]", {"web2", "Web3"}),
        ("WEB2", {"web2"}),
        ("web3", {"Web3"}),
        # A dot is a dot, and no pattern of a regular expression is one here.
        ("db.prod", {"db.prod"}),
        ("db?prod", {"db.prod"}),
        ("d.*", set[str]()),
        ("web1|web2", set[str]()),
        ("db1,mail", {"db1", "mail"}),
        (" db1 , mail ", {"db1", "mail"}),
        ("127.0.0.1", set(NAMES)),
        ("127.0.*", set(NAMES)),
        ("10.*", set[str]()),
        ("nobody@*", set[str]()),
    ],
)
async def test_an_entry_admits_what_it_says_and_nothing_else(
    world: World, allowed: str, names: set[str]
) -> None:
    """SC-04: `*`, exact and true globs; what is listed is what may be used."""
    assert await may_use(world, allowed) == (names, names)


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        ("", {"web1", "web2", "web10", "Web3", "db1"}),
        ("*", {"web1", "web2", "web10", "Web3", "db1"}),
        ("*b1", {"web1", "db1"}),
        ("web1,mail", {"web1"}),
        ("mail", set[str]()),
        ("127.0.0.1", {"web1", "web2", "web10", "Web3", "db1"}),
    ],
)
async def test_client_and_configuration_only_narrow(
    narrow: World, allowed: str, names: set[str]
) -> None:
    """SC-01, SC-04: a host is on both lists, where there are both."""
    assert await may_use(narrow, allowed) == (names, names)


@pytest.mark.parametrize(
    "call",
    [
        {"target": "mail"},
        {"target": "xweb1"},
        {"target": "mail", "connect": {"user": "web1"}},
        {"target": "web1@mail"},
        {"target": "mail", "connect": {"options": {"HostName": "web1"}}},
        {"target": "web1", "connect": {"options": {"HostName": "mail"}}},
        {"target": "web1", "connect": {"options": {"hOsTnAmE": "::1"}}},
        {"target": "web1", "connect": {"jump": "mail"}},
    ],
)
async def test_no_argument_of_a_call_widens_a_list(
    ssh: Tools, host: Sshd, call: dict[str, Any]
) -> None:
    """SC-01: refused before anything is sent, and the refusal names what is allowed."""
    before = host.log.position
    for tool, more in (("ssh_exec", {"command": "true"}), ("ssh_connect", {})):
        error = await ssh.refused(tool, **call, **more)
        assert error["ran"] == "no"
        # A target or option that can't be one at all is refused for that.
        if error["reason"] != "INVALID_ARGUMENT":
            assert error["reason"] == "HOST_NOT_ALLOWED", error
            assert "web*" in error["message"] + error["hint"]
            assert "db1" in error["message"] + error["hint"]
    assert not host.log.count("Connection from", after=before)


async def test_a_client_that_is_refused_is_told_whose_list_it_was(
    narrow: World,
) -> None:
    """SC-01: the person's file or the client's own environment."""
    env = {"SSH_ALLOWED_HOSTS": "db*"}
    async with tools(narrow, target="", env=env) as ssh:
        error = await ssh.refused("ssh_exec", target="web1", command="true")
        assert "SSH_ALLOWED_HOSTS" in error["message"] + error["hint"]
        assert "web*" not in error["message"] + error["hint"]
        error = await ssh.refused("ssh_exec", target="db.prod", command="true")
        assert "allowed_hosts in config.toml" in error["message"] + error["hint"]

    def refused() -> set[str]:
        rows = [row for row in records(narrow) if row["event_type"] == "command_denied"]
        return {row["server_name"] for row in rows}

    await soon(lambda: refused() >= {"web1", "db.prod"}, "both are recorded")


async def test_an_empty_list_of_a_client_is_no_list_of_everything(
    narrow: World,
) -> None:
    """SC-01, bad input: SSH_ALLOWED_HOSTS that names nothing is an error."""
    async with tools(narrow, env={"SSH_ALLOWED_HOSTS": " , "}) as ssh:
        error = await ssh.refused("ssh_exec", target="web1", command="true")
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert "SSH_ALLOWED_HOSTS" in error["message"]


async def test_the_command_line_keeps_to_both_lists(narrow: World) -> None:
    """SC-01: the person's own list holds for the person's command line as well."""
    done = await asyncio.to_thread(
        narrow.cli, "exec", "mail", "--", "true", check=False
    )
    assert done.returncode == 255
    assert b"not an allowed host" in done.stderr
    listed = await asyncio.to_thread(narrow.cli_json, "hosts", "list")
    assert "mail" not in {row["name"] for row in listed["hosts"]}


async def test_jobs_of_hosts_that_a_client_may_not_use_are_not_its(
    world: World,
) -> None:
    """SC-01, SC-04: neither listed, nor read, nor stopped."""
    async with tools(world, target="mail") as ssh:
        job = await ssh.start("echo secret; exec sleep 300")
        await ssh.until(job, "secret")
        async with tools(world, env={"SSH_ALLOWED_HOSTS": "web*"}, target="") as other:
            rows = (await other.told("ssh_job_list"))["jobs"]
            assert job not in [row["job_id"] for row in rows]
            for tool in ("ssh_job_read", "ssh_job_stop"):
                error = await other.refused(tool, job_id=job)
                assert error["reason"] == "HOST_NOT_ALLOWED"
                assert "secret" not in str(error)
        assert (await ssh.read(job, offset=0))["status"] == "running"
        await ssh.stop(job)
