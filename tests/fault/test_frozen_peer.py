"""SE-15, NF-09: with the limits as they come, and after this machine has slept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fakes.gate import Gate
from fakes.links import find_host, make_pool, run
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import served, tools
from fakes.watch import moment
from holdfast_daemon.connection import lookup

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd


async def standing(world: World, target: str = "box") -> dict[str, Any]:
    found = await asyncio.to_thread(world.cli_json, "status", target)
    assert isinstance(found, dict)
    return found


@pytest.mark.timed
async def test_a_frozen_peer_is_noticed_within_twenty_seconds_by_default(
    sshd: Sshd, tmp_path: Path
) -> None:
    """SE-15: idle and in a command at once; about 90 s would do, this takes 20."""
    gate = Gate(tmp_path / "gate")
    with Proxy(sshd.port) as proxy, Proxy(sshd.port) as idle:
        config = proxy.config(sshd, tmp_path / "config")
        other = idle.config(sshd, tmp_path / "other").read_text()
        config.write_text(
            config.read_text() + other.replace("Host box\n", "Host idle\n")
        )
        with served(config, limits="") as world:
            async with tools(world) as ssh:
                await ssh.run("true", target="idle")
                job = await ssh.start(f"echo begun; {gate.wait}")
                await ssh.until(job, "begun")
                begun = datetime.now(UTC)
                proxy.freeze()
                idle.freeze()
                result = await ssh.ended(job)
                assert (result["status"], result["ok"]) == ("lost", False)
                assert "exit_code" not in result
                assert "stopped answering" in result["note"]
                while (await standing(world, "idle"))["state"] != "lost":
                    assert datetime.now(UTC) - begun < timedelta(seconds=30)
                    await moment()
                for host in ("box", "idle"):
                    told = (await standing(world, host))["events"][-1]
                    at = datetime.fromisoformat(told["time"])
                    # 5 s x (3 + 1) after the last word, as the daemon noticed it
                    assert 14 < (at - begun).total_seconds() < 21
            gate.open()


@pytest.mark.timed
async def test_after_a_sleep_every_host_is_asked_at_once(
    sshd: Sshd, tmp_path: Path
) -> None:
    """NF-09: what is gone is let go of within seconds, and what is there stays.

    The daemon is stopped as a sleeping machine stops it. The network of one host is
    gone when it wakes, which keepalive would notice in a minute.
    """
    gate = Gate(tmp_path / "gate")
    with Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        config.write_text(config.read_text() + sshd.client_config("near"))
        limits = (
            "wake_check_seconds = 0.2\nwake_gap_seconds = 1\nwake_probe_seconds = 1\n"
            "keepalive_seconds = 15\n"
        )
        with served(config, limits=limits) as world:
            async with tools(world) as ssh:
                await ssh.run("true", target="near")
                job = await ssh.start(f"echo begun; {gate.wait}")
                await ssh.until(job, "begun")
                near = (await standing(world, "near"))["since"]
                os.kill(world.pid, signal.SIGSTOP)
                proxy.freeze()
                await asyncio.sleep(1.6)  # the sleep's own length
                os.kill(world.pid, signal.SIGCONT)
                begun = time.monotonic()
                result = await ssh.ended(job)
                assert time.monotonic() - begun < 8
                assert (result["status"], "exit_code" in result) == ("lost", False)
                assert "woke" in result["note"]
                stands = await standing(world)
                assert stands["state"] == "lost"
                kinds = [event["kind"] for event in stands["events"]]
                assert kinds[-2:] == ["woke", "lost"]
                # the other one answered, and is the same one
                there = await standing(world, "near")
                assert there["state"] == "connected"
                assert there["since"][:19] == near[:19]
                proxy.heal()
                assert (await ssh.run("echo well"))["stdout"] == "well\n"
            gate.open()


async def test_a_name_that_resolves_to_another_address_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-09: DNS moved: the connection stays while it lives, the next one goes there.

    Nobody can edit the names of this machine, so the resolver is a fake one.
    """
    addresses = ["127.0.0.1", "127.0.0.2"]
    find = lookup.look_up

    async def resolve(host: str, *more: Any, **kwargs: Any) -> Any:
        found = addresses[0] if host == "moving.example" else host
        return await find(found, *more, **kwargs)

    monkeypatch.setattr(lookup, "look_up", resolve)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Sshd(tmp_path / "one"))
        second = stack.enter_context(
            Sshd(
                tmp_path / "two",
                addresses=addresses[1:],
                port=first.port,
                client_key=first.key,
            )
        )
        text = first.client_config(extra="  HostKeyAlias moving\n")
        first.config.write_text(
            text.replace("HostName 127.0.0.1", "HostName moving.example")
        )
        first.known_hosts.write_text(
            first.known_hosts_lines(["moving"]) + second.known_hosts_lines(["moving"])
        )
        host = await find_host(first.config)
        async with make_pool() as pool:
            async with await pool.lease(host) as lease:
                del addresses[0]
                assert (await run(lease, "echo old"))[1] == b"old\n"
                assert (first.logins, second.logins) == (1, 0)
                await asyncio.to_thread(first.drop_connections)
                await lease.link.wait_closed()
                assert (await run(lease, "echo new"))[1] == b"new\n"
            assert (first.logins, second.logins) == (1, 1)


async def test_a_host_that_moved_is_found_where_it_is_now(
    sshd: Sshd, tmp_path: Path
) -> None:
    """NF-09: the name leads elsewhere after the loss: each login asks anew.

    The name is one of the ssh configuration, edited while the daemon runs.
    """
    with Proxy(sshd.port) as old, Proxy(sshd.port) as new:
        config = old.config(sshd, tmp_path / "config")
        limits = "resolve_check_seconds = 0\n"
        with served(config, limits=limits) as world:
            async with tools(world) as ssh:
                await ssh.run("true")
                job = await ssh.start("echo begun; sleep 30")
                await ssh.until(job, "begun")
                config.write_text(new.config(sshd, tmp_path / "moved").read_text())
                old.refuse()
                old.rst()
                assert (await ssh.ended(job))["status"] == "lost"
                assert (await ssh.run("echo here"))["stdout"] == "here\n"
                assert (len(old.accepted), len(new.accepted)) == (1, 1)
