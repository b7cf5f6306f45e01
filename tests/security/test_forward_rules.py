"""Forwards that are open, and durable ones, under rules that change meanwhile."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fakes.proxy import Proxy
from fakes.restarting import restart
from fakes.services import dial, echo, exchange, read_all, serve
from fakes.sshd import Sshd, free_port
from fakes.tools import Tools, failure, served, tools
from fakes.watch import moment, records, soon
from holdfast_daemon.session.observer import SOCKET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_rules"),
    pytest.mark.needs_sshd,
]

OFF = "[hosts.box]\nenabled = false\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path, options={"SetEnv": f"HOME={tmp_path}"}) as one:
        yield one


async def opened(ssh: Tools, direction: str, **arguments: Any) -> dict[str, Any]:
    asked = {"target": "box", "direction": direction, **arguments}
    return await ssh.told("ssh_forward_open", **asked)


async def reload(world: World, text: str) -> None:
    world.configure(text)
    await asyncio.to_thread(world.cli, "reload")


async def stands(ssh: Tools, forward_id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(40):
        while True:
            told = await ssh.told("ssh_forward_list", include_stopped=True)
            for one in told["forwards"]:
                if one["forward_id"] == forward_id and one["state"] == state:
                    return dict(one)
            await moment()


def refuses(address: str) -> bool:
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return True
    return False


def answers(address: str) -> bool:
    try:
        return exchange(address, b"ping") == b"ping"
    except OSError:
        return False


@pytest.mark.parametrize(
    "rules",
    [OFF, 'allowed_hosts = ["elsewhere"]\n'],
    ids=["disabled", "allow-list"],
)
async def test_an_open_forward_ends_when_the_rules_forbid_its_host(
    own: Sshd, rules: str
) -> None:
    """SC-01, FW-10: it led into a host that was switched off, and logged in again."""
    own.config.write_text(own.client_config() + own.client_config("alias"))
    with serve(echo) as port, served(own) as world:
        async with tools(world) as ssh:
            told = [
                await opened(ssh, "local", remote_port=port),
                await opened(ssh, "remote", remote_port=0, local_port=port),
                await opened(ssh, "dynamic", target="alias"),
                await opened(ssh, "dynamic"),
            ]
            before = own.logins
            held = await asyncio.to_thread(dial, told[0]["listen"])
            with held:
                held.sendall(b"x")
                assert held.recv(1) == b"x"
                await reload(world, rules)
                for one in told:
                    await soon(partial(refuses, one["listen"]), "nobody listens")
                with pytest.raises(ConnectionResetError):
                    held.recv(1)
            assert own.logins == before
            await reload(world, "")
            for one in told:
                found = await stands(ssh, one["forward_id"], "stopped")
                assert "rules do not allow" in found["termination_reason"]
            again = await opened(ssh, "local", remote_port=port)
            assert again["reused"] is False
            assert answers(again["listen"])


async def test_other_forwards_stay_when_one_host_is_disabled(own: Sshd) -> None:
    """FW-10: what goes through an allowed host is not broken off."""
    with serve(echo) as port, served(own) as world:
        async with tools(world) as ssh:
            told = await opened(ssh, "local", remote_port=port)
            with dial(told["listen"]) as held:
                rules = '[hosts.other]\nhost = "127.0.0.9"\nenabled = false\n'
                await reload(world, rules)
                held.sendall(b"x")
                assert held.recv(1) == b"x"
            assert answers(told["listen"])


async def test_a_durable_one_returns_once_its_host_is_enabled_again(own: Sshd) -> None:
    """NF-20: one that was barred was forgotten at the next change of any other."""
    with serve(echo) as port, served(own) as world:
        async with tools(world) as ssh:
            kept = await opened(ssh, "local", remote_port=port, durable=True)
            await reload(world, OFF)
            await stands(ssh, kept["forward_id"], "stopped")
        await asyncio.to_thread(world.stop)
        await asyncio.to_thread(world.start)
        file = world.state / "forwards.json"
        assert [one["id"] for one in json.loads(file.read_text())] == [
            kept["forward_id"]
        ]
        await asyncio.to_thread(world.stop)
        world.configure("")
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            await stands(ssh, kept["forward_id"], "up")
            await soon(lambda: answers(kept["listen"]), "it answers again")
            await ssh.told("ssh_forward_close", forward=kept["forward_id"])
        assert json.loads(file.read_text()) == []


async def test_a_slow_return_is_waited_for(own: Sshd, tmp_path: Path) -> None:
    """NF-20: one whose name took long to look up was lost, or opened a second time."""
    gate = tmp_path / "gate"
    slow = f'Match originalhost box exec "test ! -e {gate} || sleep 2"\n'
    config = own.client_config("quick")
    own.config.write_text(own.client_config() + config + slow + "  LogLevel ERROR\n")
    with serve(echo) as port, served(own) as world:
        async with tools(world) as ssh:
            kept = await opened(ssh, "local", remote_port=port, durable=True)
        await asyncio.to_thread(world.stop)
        gate.touch()
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            same = await opened(
                ssh,
                "local",
                target="quick",
                remote_port=port,
                local_port=int(kept["listen"].rpartition(":")[2]),
            )
            assert same["reused"] is True
            assert same["forward_id"] == kept["forward_id"]
            other = await opened(ssh, "dynamic", target="quick", durable=True)
            file = world.state / "forwards.json"
            ids = {one["id"] for one in json.loads(file.read_text())}
            assert ids == {kept["forward_id"], other["forward_id"]}


async def test_a_disabled_host_that_no_one_can_find_bars_no_other(own: Sshd) -> None:
    """NF-20: a circle of jump hosts, switched off, kept all that is kept away."""
    circle = (
        '[hosts.a]\nhost = "127.0.0.8"\nproxy_jump = "b"\nenabled = false\n'
        '[hosts.b]\nhost = "127.0.0.9"\nproxy_jump = "a"\n'
    )
    with serve(echo) as port, served(own, more=circle) as world:
        async with tools(world) as ssh:
            kept = await opened(ssh, "local", remote_port=port, durable=True)
            job = await ssh.start("echo up; exec sleep 300", durable=True)
            await ssh.until(job, "up")
        await asyncio.to_thread(world.stop)
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            await stands(ssh, kept["forward_id"], "up")
            async with asyncio.timeout(40):
                while not (await ssh.stop(job))["stopped"]:
                    await moment()


async def test_no_call_is_told_ok_for_what_the_rules_forbid_meanwhile(
    own: Sshd, tmp_path: Path
) -> None:
    """SC-01, FW-02: it was, and the host listened on."""
    there = free_port()
    with (
        serve(echo) as port,
        Proxy(own.port) as proxy,
        served(proxy.config(own, tmp_path / "config")) as world,
    ):
        async with tools(world) as ssh:
            await ssh.run("true")
            proxy.freeze()
            wanted = {
                "name": "ssh_forward_open",
                "arguments": {
                    "target": "box",
                    "direction": "remote",
                    "remote_port": there,
                    "local_port": port,
                },
            }
            call = await ssh.wire.start("tools/call", wanted)

            def admitted() -> bool:
                return any(one["event_type"] == "forward" for one in records(world))

            await soon(admitted, "it is let in")
            await reload(world, 'allowed_hosts = ["elsewhere"]\n')
            proxy.heal()
            error = failure((await ssh.wire.reply(call))["result"])
            assert error["reason"] == "POLICY_DENIED", error
            assert "rules do not allow" in error["message"]
            await soon(lambda: refuses(f"127.0.0.1:{there}"), "nobody listens")
            told = await ssh.told("ssh_forward_list", include_stopped=True)
            assert told["forwards"] == []


async def test_none_listens_for_everybody_once_that_is_switched_off(own: Sshd) -> None:
    """FW-03, NF-20: those that were open stayed, and durable ones came back."""
    rule = "forward_wildcard = true\n"
    with serve(echo) as port, served(own, more=rule) as world:
        async with tools(world) as ssh:
            everybody = {"bind_address": "0.0.0.0", "durable": True}
            told = [
                await opened(ssh, "local", remote_port=port, **everybody),
                await opened(
                    ssh, "remote", remote_port=0, local_port=port, **everybody
                ),
                await opened(ssh, "dynamic", **everybody),
            ]
            one = await opened(ssh, "local", remote_port=port)
            assert all(x["listen"].startswith("0.0.0.0:") for x in told)
            places = [x["listen"].replace("0.0.0.0", "127.0.0.1") for x in told]
            assert not any(map(refuses, places))
            await reload(world, "")
            for x in told:
                found = await stands(ssh, x["forward_id"], "stopped")
                assert "forward_wildcard" in found["termination_reason"]
            for place in places:
                await soon(partial(refuses, place), "nobody listens")
            assert answers(one["listen"])
        await asyncio.to_thread(restart, world)
        async with tools(world) as ssh:
            for x in told:
                await stands(ssh, x["forward_id"], "stopped")
            assert all(map(refuses, places))
        # a person may change it again
        world.configure(rule)
        await asyncio.to_thread(restart, world)
        await soon(lambda: answers(places[0]), "it is back")


async def test_a_path_that_leads_to_our_own_socket_later_on(own: Sshd) -> None:
    """FW-02, SC-01: it was looked at once, when the forward was opened."""
    with served(own) as world:
        later = world.root / "later"
        async with tools(world) as ssh:
            told = await opened(
                ssh, "remote", remote_port=0, local_socket=str(later), durable=True
            )
            for number, link in enumerate((later.symlink_to, later.hardlink_to), 1):
                link(world.socket)
                with dial(told["listen"]) as caller:
                    assert read_all(caller) == b""
                (row,) = (await ssh.told("ssh_forward_list"))["forwards"]
                assert (row["refused"], row["served"]) == (number, 0)
                assert "act as you" in row["last_error"]
                later.unlink()
            with serve(echo, path=str(later)):
                assert answers(told["listen"])
            later.unlink()
        later.symlink_to(world.socket)
        await asyncio.to_thread(restart, world)
        async with tools(world) as ssh:
            await stands(ssh, told["forward_id"], "up")
            with dial(told["listen"]) as caller:
                assert read_all(caller) == b""
            (row,) = (await ssh.told("ssh_forward_list"))["forwards"]
            assert (row["refused"], row["served"]) == (1, 0)


async def test_the_windows_of_people_are_not_handed_to_a_host(own: Sshd) -> None:
    """FW-02: who has their tmux runs what he likes on this machine."""
    with served(own) as world:
        path = str(world.run / SOCKET_NAME)
        asked = {"target": "box", "direction": "remote", "local_socket": path}
        async with tools(world) as ssh:
            error = await ssh.refused("ssh_forward_open", remote_port=0, **asked)
            assert error["reason"] == "SENSITIVE_PATH"


async def test_the_agent_of_another_host_is_not_handed_to_one(
    own: Sshd, short_path: Path
) -> None:
    """FW-02: only that of the host itself, and the daemon's own, were guarded."""
    agent = short_path / "agent"
    extra = f"  IdentityAgent {agent}\n"
    own.config.write_text(own.client_config() + own.client_config("other", extra))
    asked = {"target": "box", "direction": "remote", "local_socket": str(agent)}
    with served(own) as world:
        async with tools(world) as ssh:
            await ssh.run("true", target="other")
            error = await ssh.refused("ssh_forward_open", remote_port=0, **asked)
            assert error["reason"] == "SENSITIVE_PATH"
