"""OB-03, NF-09: how one host stands, and what became of it, on every face."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fakes.proxy import Proxy
from fakes.tools import failure, served, tools
from fakes.watch import connected, moment
from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.xdist_group("status_host")]

LIMITS = """
keepalive_seconds = 1
keepalive_misses = 1
connect_timeout_seconds = 3
login_pause_seconds = 0.05
"""


@pytest.fixture(scope="module")
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    with Proxy(sshd.port) as one:
        yield one


@pytest.fixture(scope="module")
def world(
    sshd: Sshd, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    config = proxy.config(sshd, tmp_path_factory.mktemp("status") / "config")
    text = config.read_text()
    config.write_text(
        text
        + text.replace("Host box\n", "Host inner\n  ProxyJump box\n").replace(
            f"Port {proxy.port}", f"Port {sshd.port}"
        )
        + sshd.client_config("hidden")
        + sshd.client_config("other")
    )
    known = config.with_name("config.known_hosts")
    known.write_text(known.read_text() + sshd.known_hosts_lines())
    hosts = '[hosts.hidden]\nshow = "purpose"\ndescription = "the vault"\n'
    with served(config, limits=LIMITS, more=hosts) as one:
        yield one


async def status(world: World, target: str) -> dict[str, Any]:
    found = await asyncio.to_thread(world.cli_json, "status", target)
    assert isinstance(found, dict)
    return found


async def test_a_host_s_life_is_told_from_never_used_to_lost_and_back(
    world: World, proxy: Proxy, sshd: Sshd
) -> None:
    """OB-03: state, since when, why, and the events in their order."""
    async with tools(world) as ssh:
        never = await status(world, "box")
        assert (never["state"], never["since"], never["events"]) == ("", "", [])
        assert never["target"] == f"{sshd.user}@127.0.0.1:{proxy.port}"
        job = await ssh.start("echo begun; sleep 20")
        await ssh.until(job, "begun")
        there = await status(world, "box")
        assert there["state"] == "connected"
        since = datetime.fromisoformat(there["since"])
        assert timedelta(0) <= datetime.now(UTC) - since < timedelta(seconds=30)
        assert there["jobs"] == [job]
        (row,) = there["connections"]
        assert (row["state"], row["channels"]) == ("ready", 1)
        proxy.rst()
        assert (await ssh.ended(job))["status"] == "lost"
        gone = await status(world, "box")
        assert (gone["state"], gone["connections"], gone["jobs"]) == ("lost", [], [])
        assert "cut" in gone["last_error"]
        proxy.freeze()
        await ssh.refused("ssh_exec", command="true")
        failed = await status(world, "box")
        assert failed["state"] == "failed"
        assert "was not ready within 3 s" in failed["last_error"]
        proxy.heal()
        await ssh.run("true")
        await ssh.told("ssh_disconnect", target="box")
        closed = await status(world, "box")
        assert closed["state"] == "closed"
        # what went wrong last is told also after it was mended
        assert closed["last_error"] == failed["last_error"]
        kinds = [event["kind"] for event in closed["events"]]
        assert kinds == ["connected", "lost", "failed", "connected", "closed"]
        assert closed["events"][0]["detail"].startswith("by publickey SHA256:")
        assert "disconnected on request" in closed["events"][-1]["detail"]
        times = [event["time"] for event in closed["events"]]
        assert times == sorted(times)


async def test_ssh_hosts_says_in_short_how_each_host_stands(
    world: World, proxy: Proxy
) -> None:
    """OB-03: an agent sees what is wrong before it calls; nothing of a host unused."""
    async with tools(world) as ssh:
        await ssh.run("true")
        proxy.rst()

        async def rows() -> dict[str, dict[str, Any]]:
            hosts = (await ssh.told("ssh_hosts"))["hosts"]
            return {host["name"]: host for host in hosts}

        while (found := await rows())["box"]["connected"]:
            assert found["box"]["state"] == "connected"
            await moment()
        assert found["box"]["state"] == "lost"
        assert "cut" in found["box"]["last_error"]
        assert found["box"]["since"]
        for field in ("state", "since", "last_error"):
            assert field not in found["other"]
        await ssh.run("true")
        again = (await rows())["box"]
        assert (again["state"], again["connected"]) == ("connected", True)
        assert "last_error" not in again


async def test_people_read_the_same(world: World, proxy: Proxy) -> None:
    """OB-03: `holdfast status HOST` in words."""
    async with tools(world) as ssh:
        await ssh.run("true")
    proxy.heal()
    words = (await asyncio.to_thread(world.cli, "status", "box")).stdout.decode()
    assert "connected, " in words
    assert "CONNECTION" in words
    assert "by publickey" in words
    never = (await asyncio.to_thread(world.cli, "status", "other")).stdout.decode()
    assert "not used yet" in never


async def test_a_way_to_others_is_told_as_one(world: World, proxy: Proxy) -> None:
    """OB-03: why a connection that carries no command is kept."""
    async with tools(world) as ssh:
        await ssh.run("true", target="inner")
        (row,) = (await status(world, "box"))["connections"]
        assert row["passengers"] == 1
        (over,) = (await status(world, "inner"))["connections"]
        assert over["via"].endswith(str(proxy.port))
        assert (await status(world, "inner"))["events"][-1]["detail"].endswith("box")
        await ssh.told("ssh_disconnect", target="inner")


async def test_a_host_shown_by_its_purpose_hides_its_place(
    world: World, sshd: Sshd
) -> None:
    """OB-03: no address of it, neither as a target nor in an event."""
    async with tools(world) as ssh:
        await ssh.run("true", target="hidden")
        told = await status(world, "hidden")
        assert (told["state"], told["target"]) == ("connected", "")
        assert str(sshd.port) not in json.dumps(told)
        await ssh.told("ssh_disconnect", target="hidden")


async def test_grpc_and_the_command_line_tell_the_same(world: World) -> None:
    """NF-18, OB-03: one answer, whoever asks."""
    async with connected(world) as client:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        request = admin_pb2.StatusRequest(target="box")
        answer = await stub.Status(request, metadata=client.metadata())
        assert to_json(answer.host)["events"] == (await status(world, "box"))["events"]
        plain = await stub.Status(admin_pb2.StatusRequest(), metadata=client.metadata())
        assert not plain.HasField("host")
        for target in ("-oProxyCommand=x", "a b", "box:99999"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Status(
                    admin_pb2.StatusRequest(target=target), metadata=client.metadata()
                )
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_who_may_not_use_a_host_is_not_told_of_it(world: World) -> None:
    """SE-05, OB-03: an allow-list holds for looking, too."""
    env = {"SSH_ALLOWED_HOSTS": "other"}
    done = await asyncio.to_thread(
        world.cli, "status", "box", "--json", check=False, env=env
    )
    assert done.returncode != 0
    assert b"HOST_NOT_ALLOWED" in done.stdout + done.stderr
    async with tools(world, env=env) as ssh:
        error = failure(await ssh.call("ssh_exec", command="true"))
        assert error["reason"] == "HOST_NOT_ALLOWED"
