"""Rules that change while something is under way, and hosts met on the way there."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from fakes.copying import WAYS, Ways
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.syncing import ROOTS
from fakes.tools import content, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
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
            world.configure(rule + ROOTS if rule == NARROWED else ROOTS + rule)
            await asyncio.to_thread(world.cli, "reload")
            logins = sshd.logins
            proxy.throttle(0)
            proxy.rst()
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
