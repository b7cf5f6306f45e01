"""Figures of many hosts and of far ones; the hosts are addresses of one real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from grpc import aio

from bench.figures import MIB, Figure, median, ms, percentile, resident
from bench.line import FAR_SECONDS, far, round_trip
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd
from fakes.watch import soon
from fakes.world import World
from holdfast.v1 import admin_pb2, admin_pb2_grpc, host_pb2, host_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

MANY = 100
HELD = 1000
FAR_CALLS = 21
_AT_ONCE = 20
_ASKED = 300
# What one sshd listens on at most.
_LISTENS = 16
_PEER = """
import json, sys, time
from pssh.clients import ParallelSSHClient
from pssh.config import HostConfig
user, table = sys.argv[1:]
hosts = [address for address, _, _ in json.loads(table)]
config = [HostConfig(port=p, private_key=k, user=user) for _, p, k in json.loads(table)]
client = ParallelSSHClient(
    hosts, host_config=config, pool_size=len(hosts), num_retries=1
)
begun = time.perf_counter()
output = client.run_command("true")
client.join(output)
seconds = time.perf_counter() - begun
assert len(output) == len(hosts) and not any(o.exit_code for o in output), output
print(seconds)
"""


class Peer(NamedTuple):
    """One host: its alias, and what a program without ssh configuration needs."""

    name: str
    address: str
    port: int
    key: Path


@contextlib.contextmanager
def many_hosts(root: Path, count: int) -> Generator[tuple[Path, list[Peer]]]:
    """Serve `count` loopback addresses, each a host of its own to everybody.

    Yields an ssh configuration that knows them as h0, h1 … and where they are.
    """
    with contextlib.ExitStack() as stack:
        text = ""
        known = ""
        peers: list[Peer] = []
        for first in range(0, count, _LISTENS):
            mine = [
                f"127.0.{1 + n // 250}.{1 + n % 250}"
                for n in range(first, min(count, first + _LISTENS))
            ]
            directory = root / f"sshd{first}"
            directory.mkdir(parents=True)
            options = {"SetEnv": f"HOME={directory}", "MaxStartups": "400"}
            sshd = stack.enter_context(Sshd(directory, options=options, addresses=mine))
            known += sshd.known_hosts_lines()
            for address in mine:
                block = sshd.client_config(f"h{len(peers)}")
                block = block.replace(f"HostName {sshd.address}", f"HostName {address}")
                text += block.replace(str(sshd.known_hosts), str(root / "known_hosts"))
                peers.append(Peer(f"h{len(peers)}", address, sshd.port, sshd.key))
        (root / "config").write_text(text)
        (root / "known_hosts").write_text(known)
        yield root / "config", peers


def cold_figures(root: Path) -> list[Figure]:
    """One command on each of 100 hosts nobody is connected to."""
    with many_hosts(root / "cold", MANY) as (config, peers):
        with World(root / "cold", ssh_config=config) as world:
            ours = asyncio.run(_on_all(world, [peer.name for peer in peers]))
        ssh = ["xargs", "-P", str(_AT_ONCE), "-I{}", "ssh", "-F", str(config)]
        lines = "\n".join(peer.name for peer in peers).encode()
        begun = time.perf_counter()
        subprocess.run([*ssh, "{}", "true"], input=lines, check=True)
        xargs = time.perf_counter() - begun
        table = json.dumps([[p.address, p.port, str(p.key)] for p in peers])
        other = float(
            subprocess.run(
                [sys.executable, "-c", _PEER, getpass.getuser(), table],
                check=True,
                stdout=subprocess.PIPE,
            ).stdout
        )
    what = f"{MANY} hosts cold, one command each, through the shim"
    xargs_said = f"`xargs -P{_AT_ONCE} ssh` {xargs:.2f} s"
    return [
        Figure(what, f"{ours:.2f} s", xargs_said, ours / xargs, 0.25),
        Figure(what, f"{ours:.2f} s", f"parallel-ssh {other:.2f} s", ours / other, 1.1),
    ]


async def _on_all(world: World, names: Sequence[str]) -> float:
    async with Wire(env=world.environment, seconds=120) as shim:
        await shim.initialize()
        await shim.call("ssh_hosts")
        begun = time.perf_counter()
        idents = [
            await shim.start(
                "tools/call",
                {
                    "name": "ssh_exec",
                    "arguments": {"target": name, "command": "true"},
                },
            )
            for name in names
        ]
        left = set(idents)
        while left:
            answer = await shim.receive()
            if answer.get("id") in left:
                left.discard(answer["id"])
                assert not answer["result"].get("isError"), answer
        return time.perf_counter() - begun


def held_figures(root: Path) -> list[Figure]:
    """A thousand connections that are held, and what asking about them costs."""
    with (
        many_hosts(root / "held", HELD) as (config, peers),
        World(root / "held", ssh_config=config) as world,
    ):
        waits = asyncio.run(_hold(world, [peer.name for peer in peers]))
        memory = resident(world.pid)
    return [
        Figure(
            f"{HELD:,} held connections: the daemon's memory",
            f"{memory / MIB:.0f} MiB",
            "",
            memory / MIB,
            150,
            "MiB",
        ),
        Figure(
            f"{HELD:,} held connections: status, p99",
            ms(percentile(waits, 0.99)),
            f"median {ms(median(waits))}",
            percentile(waits, 0.99) * 1000,
            50,
            "ms",
        ),
    ]


async def _hold(world: World, names: Sequence[str]) -> list[float]:
    """Connect to all, then ask for the status again and again; return the waits."""
    async with aio.insecure_channel(f"unix:{world.socket}") as channel:
        hosts = host_pb2_grpc.HostServiceStub(channel)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def connect(name: str) -> None:
            async with gate:
                await hosts.Connect(host_pb2.ConnectRequest(target=name))

        await asyncio.gather(*(connect(name) for name in names))
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        waits: list[float] = []
        for _ in range(_ASKED):
            begun = time.perf_counter()
            status = await admin.Status(admin_pb2.StatusRequest())
            waits.append(time.perf_counter() - begun)
            assert len(status.connections) == len(names)
        return waits


async def far_figure(root: Path) -> Figure:
    """A warm command over a round trip of 100 ms, beside ssh's connection sharing."""
    (root / "far").mkdir()
    (root / "farsshd").mkdir()
    options = {"SetEnv": f"HOME={root / 'home'}"}
    with Sshd(root / "farsshd", options=options) as sshd:
        async with far(sshd.port, FAR_SECONDS / 2) as port:
            text = sshd.client_config().replace(f"Port {sshd.port}", f"Port {port}")
            sshd.config.write_text(f"{text}  HostKeyAlias far\n")
            sshd.known_hosts.write_text(sshd.known_hosts_lines(["far"]))
            with World(root / "far", ssh_config=sshd.config) as world:
                ours, peer = await _both(world, sshd, root / "farmaster")
        trip = await round_trip()
    return Figure(
        "warm `ssh_exec true` through the shim over a 100 ms round trip",
        ms(median(ours)),
        f"`ssh -S` over a ControlMaster {ms(median(peer))}"
        f" ({median(peer) / trip:.2f} round trips), the line {ms(trip)}",
        median(ours) / trip,
        1.1,
        "round trips",
    )


async def _both(
    world: World, sshd: Sshd, master: Path
) -> tuple[list[float], list[float]]:
    ssh = ["ssh", "-F", str(sshd.config), "-S", str(master)]
    holder = await asyncio.create_subprocess_exec(*ssh, "-M", "-N", "box")
    ours: list[float] = []
    peer: list[float] = []
    arguments = {"target": "box", "command": "true"}
    async with Wire(env=world.environment, seconds=60) as shim:
        await shim.initialize()
        for _ in range(3):
            await shim.call("ssh_exec", arguments)
        await soon(master.exists, "ssh shares its connection")
        for _ in range(FAR_CALLS):
            begun = time.perf_counter()
            await shim.call("ssh_exec", arguments)
            ours.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            run = await asyncio.create_subprocess_exec(*ssh, "box", "true")
            assert await run.wait() == 0
            peer.append(time.perf_counter() - begun)
    holder.terminate()
    await holder.wait()
    return ours, peer
