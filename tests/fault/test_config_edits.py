"""What is away comes back by the ssh config of now, not by that of its beginning."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.restarting import restart
from fakes.services import dial
from fakes.sshd import Sshd, keygen
from fakes.tools import QUICK, served, tools
from fakes.watch import moment, records, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Result, Tools
    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

SESSION = {"target": "box", "session_name": "s", "durability": "remote"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


async def standing(ssh: Tools, *, away: bool) -> Result:
    """Return its row once it is away, or is not: nobody connects meanwhile."""
    async with asyncio.timeout(60):
        while True:
            told = await ssh.told("ssh_session_list")
            row: Result
            (row,) = told["sessions"]
            assert row["running"], row
            if bool(row.get("note")) is away:
                return row
            await moment()


def put(config: Path, text: str) -> None:
    """Write it at once: half a configuration names other hosts."""
    new = config.with_suffix(".new")
    new.write_text(text)
    new.replace(config)


async def waiting(ssh: Tools, why: str) -> Result:
    """Return the row of the only forward once it waits because of that."""
    async with asyncio.timeout(40):
        while True:
            row: Result
            (row,) = (await ssh.told("ssh_forward_list"))["forwards"]
            assert (row["state"], row["running"]) == ("away", True), row
            if why in row.get("last_error", ""):
                return row
            await moment()


def written(world: World) -> list[Result]:
    """Return the durable forwards on the disk."""
    rows: list[Result] = json.loads((world.state / "forwards.json").read_text())
    return rows


async def test_another_key_and_another_known_hosts(host: Sshd, tmp_path: Path) -> None:
    """NF-01, NF-09: a key that was changed while the host was away is used at once."""
    config = tmp_path / "config"
    put(config, host.client_config())
    with served(config) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told("ssh_session_open", **SESSION)
            job = await ssh.start("sleep 1000", durable=True)
            host.stop()
            await standing(ssh, away=True)
            for old in (host.key, host.known_hosts):
                shutil.copy(old, tmp_path)
            keygen(tmp_path / "other")
            shutil.copy(tmp_path / "other", host.key)
            host.known_hosts.write_text("")
            host.start()
            text = host.client_config()
            put(config, text.replace(str(host.key.parent), str(tmp_path)))
            row = await standing(ssh, away=False)
            assert row["session_id"] == opened["session_id"]
            await ssh.stop(job)
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_a_name_that_was_gone_for_a_while(host: Sshd, tmp_path: Path) -> None:
    """NF-20: without it nothing tells by which key; told once, that was for good."""
    config = tmp_path / "config"
    put(config, host.client_config())
    with served(config, limits=QUICK) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told("ssh_session_open", **SESSION)
            put(config, "")
            await asyncio.to_thread(restart, world)
            await standing(ssh, away=True)
            put(config, host.client_config())
            row = await standing(ssh, away=False)
            assert row["session_id"] == opened["session_id"]
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_a_durable_forward_whose_name_was_gone_for_a_while(
    host: Sshd, tmp_path: Path
) -> None:
    """FW-10, NF-20: it was given up until the next restart of the daemon."""
    config = tmp_path / "config"
    put(config, host.client_config())
    way = {
        "target": "box",
        "direction": "local",
        "local_port": 0,
        "remote_host": "127.0.0.1",
    }
    with served(config, limits=QUICK) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told(
                "ssh_forward_open", remote_port=host.port, durable=True, **way
            )
            put(config, "")
            await asyncio.to_thread(restart, world)
            row = await waiting(ssh, "another host now")
            assert row["forward_id"] == opened["forward_id"]
            # others are opened meanwhile
            put(config, host.client_config().replace("Host box", "Host other"))
            async with asyncio.timeout(40):
                while (await ssh.call("ssh_connect", target="other")).get("isError"):
                    await moment()
            other = await ssh.told(
                "ssh_forward_open", remote_port=host.port, **way | {"target": "other"}
            )
            assert other["forward_id"] != opened["forward_id"]
            put(config, host.client_config())
            async with asyncio.timeout(60):
                while opened["forward_id"] not in {
                    one["forward_id"]
                    for one in (await ssh.told("ssh_forward_list"))["forwards"]
                    if one["state"] == "up"
                }:
                    await moment()
            port = opened["listen"].rpartition(":")[2]
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            assert (await reader.readline()).startswith(b"SSH-2.0-")
            writer.close()
            await writer.wait_closed()


async def test_a_durable_forward_that_waits_can_be_seen_and_closed(
    host: Sshd, tmp_path: Path
) -> None:
    """FW-04, FW-05, NF-20: it was in no list, and came back whatever one did."""
    config = tmp_path / "config"
    put(config, host.client_config())
    way = {"target": "box", "direction": "local", "remote_host": "127.0.0.1"}
    with served(config, limits=QUICK) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told(
                "ssh_forward_open",
                remote_port=host.port, name="db", durable=True, **way,
            )  # fmt: skip
            put(config, host.client_config(extra="  Prot 22\n"))
            await asyncio.to_thread(restart, world)
            row = await waiting(ssh, "prot")
            shown = ("forward_id", "name", "listen", "connect", "target", "durable")
            assert [row[key] for key in shown] == [opened[key] for key in shown]
            assert [one["id"] for one in written(world)] == [row["forward_id"]]
            # nobody has to look for what is not there
            told = await ssh.told("ssh_forward_close", forward="db")
            assert (told["was_running"], told["state"]) == (True, "stopped")
            assert (await ssh.told("ssh_forward_list"))["forwards"] == []
            assert written(world) == []
            (row,) = (await ssh.told("ssh_forward_list", include_stopped=True))[
                "forwards"
            ]
            assert "closed by" in row["termination_reason"]
            put(config, host.client_config())
            await asyncio.to_thread(restart, world)
            assert (await ssh.told("ssh_forward_list"))["forwards"] == []
            with pytest.raises(ConnectionRefusedError):
                dial(opened["listen"])


async def test_a_durable_forward_that_the_rules_keep_away_can_be_closed(
    host: Sshd,
) -> None:
    """FW-05, SC-01: only the file named it, until the host was switched on again."""
    with served(host) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told(
                "ssh_forward_open", target="box", direction="dynamic", durable=True
            )
            world.configure("[hosts.box]\nenabled = false\n")
            await asyncio.to_thread(restart, world)
            row = await waiting(ssh, "box is disabled")
            assert row["forward_id"] == opened["forward_id"]
            told = await ssh.told("ssh_forward_close", forward=row["forward_id"])
            assert told["was_running"] is True
            assert written(world) == []


@pytest.mark.parametrize("opened", [True, False], ids=["opened", "opening"])
async def test_one_that_is_opened_anew_meanwhile_is_the_only_one(
    host: Sshd, tmp_path: Path, *, opened: bool
) -> None:
    """FW-10, NF-20: the old one came back all the same, two of them on one port."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    slow = f"touch {begun}; until test -e {gate}; do sleep 0.05; done"
    slow = f'Match originalhost box exec "{slow}"\n  LogLevel ERROR\n'
    config = tmp_path / "config"
    way = {"direction": "local", "remote_port": host.port, "durable": True}
    with Proxy(host.port) as proxy:
        proxy.config(host, config)
        quick = config.read_text().replace("Host box", "Host quick")
        both = quick + host.client_config()
        put(config, both)
        limits = f"{QUICK}connect_timeout_seconds = 60\nresolve_seconds = 60\n"
        with served(config, limits=limits) as world:
            async with tools(world, "--no-autostart") as ssh:
                old = await ssh.told("ssh_forward_open", target="box", **way)
                put(config, quick)
                await asyncio.to_thread(restart, world)
                await waiting(ssh, "another host now")
                put(config, both + slow)
                await soon(begun.exists, "its host is being looked up")
                if not opened:
                    proxy.freeze()
                port = int(old["listen"].rpartition(":")[2])
                wanted = {"target": "quick", "local_port": port, **way}
                call = await ssh.wire.start(
                    "tools/call", {"name": "ssh_forward_open", "arguments": wanted}
                )
                if opened:
                    await ssh.wire.reply(call)
                else:
                    await soon(lambda: proxy.accepted, "it logs in")
                gate.touch()

                def restored() -> bool:
                    ends = [x for x in records(world) if x["phase"] == "end"]
                    return any(one["metadata"].get("restored") for one in ends)

                await soon(restored, "its host is found")
                if not opened:
                    proxy.heal()
                    await ssh.wire.reply(call)
                (row,) = (await ssh.told("ssh_forward_list"))["forwards"]
                assert row["forward_id"] != old["forward_id"]
                assert row["state"] == "up"
                assert [one["id"] for one in written(world)] == [row["forward_id"]]


async def test_a_forward_finds_who_logs_in_by_the_edited_configuration(
    host: Sshd, tmp_path: Path
) -> None:
    """FW-10, NF-09: refused by the old key it looked for connections by that alone."""
    config = tmp_path / "config"
    put(config, host.client_config())
    with served(config) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told(
                "ssh_forward_open",
                target="box", direction="local", local_port=0,
                remote_host="127.0.0.1", remote_port=host.port,
            )  # fmt: skip

            async def until(state: str, why: str = "") -> None:
                async with asyncio.timeout(40):
                    while True:
                        (one,) = (await ssh.told("ssh_forward_list"))["forwards"]
                        if one["state"] == state and why in one.get("last_error", ""):
                            assert one["forward_id"] == opened["forward_id"]
                            return
                        await moment()

            other = keygen(tmp_path / "other")
            host.authorized_keys.write_text((tmp_path / "other.pub").read_text())
            host.drop_connections()
            await until("away", "refused the login")
            shutil.copy(host.known_hosts, tmp_path / "known_hosts")
            text = host.client_config().replace(str(host.key), str(other))
            put(config, text.replace(str(host.known_hosts.parent), str(tmp_path)))
            # an edit is noticed within a second
            async with asyncio.timeout(40):
                while (await ssh.call("ssh_exec", target="box", command="true")).get(
                    "isError"
                ):
                    await moment()
            await until("up")
