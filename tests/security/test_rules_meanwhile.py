"""Rules that change while something is under way, and hosts met on the way there."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fakes.copying import WAYS, Ways
from fakes.proxy import Proxy
from fakes.served import info_of, metadata
from fakes.sshd import Sshd
from fakes.syncing import ROOTS
from fakes.tools import content, served, tools
from fakes.watch import soon
from holdfast.v1 import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd

MIB = 1024 * 1024
DISABLED = "[hosts.box]\nenabled = false\n"
NARROWED = 'allowed_hosts = ["elsewhere"]\n'


@pytest.mark.parametrize("rule", [DISABLED, NARROWED])
@pytest.mark.parametrize("way", WAYS)
async def test_a_copy_that_lost_its_way_does_not_log_in_against_the_rules(
    tmp_path: Path, way: str, rule: str
) -> None:
    """SC-01: cut off it logged in again to a host that was switched off meanwhile."""
    home = tmp_path / "home"
    home.mkdir()
    with (
        Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as sshd,
        Proxy(sshd.port) as proxy,
        served(proxy.config(sshd, tmp_path / "config"), more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, way)
            (ways.source / "big").write_bytes(os.urandom(4 * MIB))
            proxy.throttle(MIB)
            asking = asyncio.create_task(ssh.call("ssh_copy", **ways.filled("big")))
            await soon(lambda: proxy.up + proxy.down > MIB // 4, "it is under way")
            proxy.throttle(MIB / 16)
            world.configure(rule + ROOTS if rule == NARROWED else ROOTS + rule)
            await asyncio.to_thread(world.cli, "reload")
            logins = sshd.logins
            proxy.rst()
            proxy.throttle(0)
            told = (await asking)["structuredContent"]["error"]
            wanted = "HOST_DISABLED" if rule == DISABLED else "HOST_NOT_ALLOWED"
            assert (told["reason"], told["ran"]) == (wanted, "unknown")
            assert sshd.logins == logins
            assert not (ways.destination / "big").exists()
            world.configure(ROOTS)
            await asyncio.to_thread(world.cli, "reload")
            again = content(await ssh.call("ssh_copy", **ways.filled("big")))
            assert again["files"] == 1


async def test_nobody_goes_through_a_jump_host_that_is_disabled(
    sshd: Sshd, tmp_path: Path
) -> None:
    """SC-01: as ProxyJump of the configuration it was logged in to all the same."""
    with Sshd(tmp_path / "bastion", alias="bastion") as bastion:
        file = tmp_path / "both"
        jump = sshd.client_config(extra="  ProxyJump bastion\n")
        file.write_text(bastion.client_config() + jump)
        off = "[hosts.bastion]\nenabled = false\n"
        with served(file, more=off) as world:
            async with tools(world) as ssh:
                for tool, given in (
                    ("ssh_exec", {"command": "true"}),
                    ("ssh_connect", {}),
                ):
                    error = await ssh.refused(tool, target="box", **given)
                    assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no")
                    assert "[hosts.bastion]" in error["hint"]
                assert bastion.logins == 0
                world.configure("")
                await asyncio.to_thread(world.cli, "reload")
                assert (await ssh.run("true", target="box"))["exit_code"] == 0


async def test_a_disabled_host_is_not_reached_as_this_machine(sshd: Sshd) -> None:
    """SC-01: 0.0.0.0 and :: lead to this machine too, and a zone changes no address."""
    with served(sshd, more=DISABLED) as world:
        before = sshd.logins
        async with tools(world, target="") as ssh:
            for name in ("0.0.0.0", "0", "[::]", "[::1%lo]", "[::ffff:127.0.0.1]"):
                error = await ssh.refused(
                    "ssh_exec",
                    command="true",
                    target=f"{sshd.user}@{name}:{sshd.port}",
                    connect={
                        "identity_file": str(sshd.key),
                        "host_key_checking": "accept-new",
                    },
                )
                assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no"), name
        assert sshd.logins == before


async def test_a_disabled_host_is_not_reached_in_other_characters(sshd: Sshd) -> None:
    """SC-01: a lookup takes wide letters and other dots for the plain ones."""
    with served(sshd, more=DISABLED) as world:
        before = sshd.logins
        async with tools(world, target="") as ssh:
            for name in (
                "\uff11\uff12\uff17.0.0.1",
                "127\u30020\uff0e0\uff611",
                "\uff4cocalhost",
                "loc\u034falhost",
            ):
                error = await ssh.refused(
                    "ssh_exec",
                    command="true",
                    target=f"{sshd.user}@{name}:{sshd.port}",
                    connect={
                        "identity_file": str(sshd.key),
                        "host_key_checking": "accept-new",
                    },
                )
                assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no"), name
        assert sshd.logins == before


async def test_nobody_strict_shares_what_nobody_looked_at(
    sshd: Sshd, tmp_path: Path
) -> None:
    """AU-09: with no file to write to, accept-new let strict callers in behind it."""
    for number, own in enumerate(("none", "/dev/null")):
        file = tmp_path / f"config{number}"
        text = sshd.client_config()
        file.write_text(text.replace(str(sshd.known_hosts), own))
        with served(file) as world:
            async with tools(world) as ssh:
                lax = {"host_key_checking": "accept-new"}
                assert (await ssh.run("true", connect=lax))["exit_code"] == 0
                error = await ssh.refused("ssh_exec", command="true")
                assert (error["reason"], error["ran"]) == ("HOST_KEY_UNKNOWN", "no")
                assert (await ssh.run("true", connect=lax))["exit_code"] == 0


async def test_nobody_shares_a_connection_that_another_call_made_blind(
    sshd: Sshd,
) -> None:
    """SE-15: a call's ServerAliveInterval kept a dead peer from everybody's notice."""
    with served(sshd) as world:
        async with tools(world) as ssh:
            blind = {"options": {"ServerAliveInterval": "36000"}}
            assert not (await ssh.told("ssh_connect", connect=blind))["reused"]
            assert not (await ssh.told("ssh_connect"))["reused"]
            assert (await ssh.told("ssh_connect", connect=blind))["reused"]


@pytest.mark.parametrize("rule", [DISABLED, NARROWED])
async def test_a_person_s_keys_reach_no_host_that_the_rules_name_meanwhile(
    sshd: Sshd, tmp_path: Path, rule: str
) -> None:
    """SC-01, NF-05: an open session took keys for as long as somebody was attached."""
    with served(sshd) as world:
        async with (
            tools(world) as ssh,
            grpc.aio.insecure_channel(f"unix:{world.socket}") as channel,
        ):
            opened = await ssh.told("ssh_session_open", target="box")
            who = metadata(name="cli", instance="me", person=True)
            stub: Any = session_pb2_grpc.SessionServiceStub(channel)
            call = stub.AttachSession(metadata=who)
            start = session_pb2.AttachStart(session=opened["session_id"])
            await call.write(session_pb2.AttachSessionRequest(start=start))
            assert (await call.read()).HasField("attached")
            before, after = tmp_path / "before", tmp_path / "after"
            await call.write(keys(f"touch {before}\n"))
            await soon(before.exists, "it was typed")
            world.configure(rule)
            await asyncio.to_thread(world.cli, "reload")
            await call.write(keys(f"touch {after}\n"))
            wanted = "HOST_DISABLED" if rule == DISABLED else "HOST_NOT_ALLOWED"
            assert await refusal(call, after.exists) == wanted
            world.configure("")
            await asyncio.to_thread(world.cli, "reload")
            session = opened["session_id"]
            await ssh.told("ssh_session_run", session=session, command="true")
            assert not after.exists()
            await ssh.told("ssh_session_close", session=session, force=True)


def keys(text: str) -> session_pb2.AttachSessionRequest:
    return session_pb2.AttachSessionRequest(keys=text.encode())


async def refusal(call: Any, never: Callable[[], bool]) -> str:
    """Return why a call is refused; until then `never` stays so."""
    try:
        while await call.read() is not grpc.aio.EOF:
            assert not never()
    except grpc.aio.AioRpcError as error:
        return str(info_of(error).reason)
    raise AssertionError("it was not refused")


async def test_a_usual_port_that_is_named_is_the_usual_one_after_a_slow_login(
    sshd: Sshd, tmp_path: Path
) -> None:
    """SC-01: asked again after its login, the rules took it for another server."""
    file = tmp_path / "slow"
    slow = "  PermitLocalCommand yes\n  LocalCommand sleep 0.3\n"
    file.write_text(sshd.client_config(extra=slow))
    with served(file, more='allowed_hosts = ["box"]\n') as world:
        async with tools(world) as ssh:
            told = await ssh.run("true", target=f"box:{sshd.port}")
            assert told["exit_code"] == 0
            error = await ssh.refused("ssh_exec", command="true", target="box:1")
            assert error["reason"] == "HOST_NOT_ALLOWED"
