"""Measures the figures that the project states, beside peers, in one run.

`make bench` prints the table; with ARGS=--write it also goes to docs/figures.md.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from grpc import aio

from bench.client import HELLO, Shim
from bench.distant import distant_figures
from bench.figures import MIB, Figure, machine, median, ms, percentile, resident, table
from bench.fleet import cold_figures, far_figure, held_figures
from bench.forward import forward_figures
from bench.line import timely
from bench.session import (
    far_session_figure,
    found_again_figure,
    many_session_figures,
)
from bench.sync import sync_figures
from bench.transfer import transfer_figures
from fakes.forked import Forking
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd
from fakes.world import World, program
from holdfast.v1 import admin_pb2, admin_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
STARTS = 41
CALLS = 300
BURST = 4000
FLOOD = 1024 * MIB


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def start_shim(world: World) -> tuple[float, int]:
    """Return the time to an answered tools/list, and the memory then."""
    begun = time.perf_counter()
    with subprocess.Popen(
        [program("holdfast-mcp")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=world.environment,
    ) as shim:
        assert shim.stdin is not None
        assert shim.stdout is not None
        shim.stdin.write(HELLO)
        shim.stdin.flush()
        shim.stdout.readline()
        assert json.loads(shim.stdout.readline())["id"] == 2
        seconds = time.perf_counter() - begun
        memory = resident(shim.pid)
        shim.stdin.close()
        shim.wait(5)
    return seconds, memory


def shim_figures(world: World) -> list[Figure]:
    """Start-up beside a bare interpreter, and memory before any call."""
    bare = [sys.executable, "-c", "import asyncio, json"]
    start_shim(world)
    ours: list[float] = []
    peer: list[float] = []
    memory = 0
    for _ in range(STARTS):
        seconds, memory = start_shim(world)
        ours.append(seconds)
        peer.append(timed(lambda: subprocess.run(bare, check=True)))
    return [
        Figure(
            "shim: spawn to answered `tools/list`",
            ms(median(ours)),
            f"`python3 -c 'import asyncio, json'` {ms(median(peer))}",
            median(ours) / median(peer),
            1.0,
        ),
        Figure(
            "shim: memory before the first call",
            f"{memory / MIB:.1f} MiB",
            "",
            memory / MIB,
            15,
            "MiB",
        ),
    ]


def exec_figures(world: World, sshd: Sshd, master: Path) -> list[Figure]:
    """`ssh_exec true` beside ssh over a ControlMaster, in turn."""
    ssh = ["ssh", "-F", str(sshd.config), "-S", str(master), "box", "true"]
    ours: list[float] = []
    peer: list[float] = []
    with closing(Shim(world)) as shim:
        for _ in range(20):
            shim.run("true")
        for _ in range(CALLS):
            ours.append(timed(lambda: shim.run("true")))
            peer.append(timed(lambda: subprocess.run(ssh, check=True)))
        memory = resident(shim.pid)
    return [
        Figure(
            "`ssh_exec true` through the shim, held connection, loopback",
            ms(median(ours)),
            f"`ssh -S` over a ControlMaster {ms(median(peer))}",
            median(ours) / median(peer),
            0.45,
        ),
        Figure(
            "shim: memory after calls",
            f"{memory / MIB:.1f} MiB",
            "",
            memory / MIB,
            42,
            "MiB",
        ),
    ]


async def flood_figures(world: World) -> list[Figure]:
    """1 GiB from one exec: the daemon's memory, and what a second client sees."""
    command = f"head -c {FLOOD} /dev/zero | tr '\\0' 'x' | fold -w 120"
    async with (
        Wire(env=world.environment, seconds=300) as first,
        Wire(env=world.environment) as second,
    ):
        await first.initialize()
        await second.initialize()
        await second.call("ssh_exec", {"target": "box", "command": "true"})
        before = peak = resident(world.pid)
        flood = asyncio.create_task(
            first.call("ssh_exec", {"target": "box", "command": command})
        )
        waits: list[float] = []
        begun = time.perf_counter()
        while not flood.done():
            started = time.perf_counter()
            await second.call("ssh_job_list", {"running_only": True})
            waits.append(time.perf_counter() - started)
            peak = max(peak, resident(world.pid))
        result = await flood
        seconds = time.perf_counter() - begun
    printed = result["structuredContent"]["stdout_bytes"]
    assert printed >= FLOOD, result
    return [
        Figure(
            "1 GiB of output from one exec: growth of the daemon",
            f"{(peak - before) / MIB:.1f} MiB",
            f"at {printed / MIB / seconds:.0f} MiB/s",
            (peak - before) / MIB,
            16,
            "MiB",
        ),
        Figure(
            "a second client's calls meanwhile, p99",
            ms(percentile(waits, 0.99)),
            f"{len(waits)} calls",
            percentile(waits, 0.99) * 1000,
            100,
            "ms",
        ),
    ]


async def burst_figure(world: World) -> Figure:
    """4,000 unary calls at once on one channel."""
    async with aio.insecure_channel(f"unix:{world.socket}") as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        answers = await asyncio.gather(
            *(stub.Hello(admin_pb2.HelloRequest()) for _ in range(BURST)),
            return_exceptions=True,
        )
    lost = sum(isinstance(answer, BaseException) for answer in answers)
    return Figure(
        f"{BURST:,} simultaneous unary calls: not answered",
        f"{BURST - lost:,} answered",
        "",
        lost,
        0,
        "calls",
    )


async def stalled_figure(world: World) -> Figure:
    """A client that is stopped in a flood: what others wait meanwhile."""
    command = f"head -c {256 * MIB} /dev/zero | tr '\\0' 'x' | fold -w 120"
    async with (
        Wire(env=world.environment, seconds=120) as stopped,
        Wire(env=world.environment) as other,
    ):
        await stopped.initialize()
        await other.initialize()
        await stopped.call("ssh_exec", {"target": "box", "command": "true"})
        call = asyncio.create_task(
            stopped.call("ssh_exec", {"target": "box", "command": command})
        )
        listing = await other.call("ssh_job_list", {"running_only": True})
        while not listing["structuredContent"]["jobs"]:
            listing = await other.call("ssh_job_list", {"running_only": True})
        os.kill(stopped.process.pid, signal.SIGSTOP)
        waits: list[float] = []
        while listing["structuredContent"]["jobs"]:
            begun = time.perf_counter()
            listing = await other.call("ssh_job_list", {"running_only": True})
            waits.append(time.perf_counter() - begun)
        os.kill(stopped.process.pid, signal.SIGCONT)
        result = await call
        assert result["structuredContent"]["status"] == "exited", result
    return Figure(
        "a client stopped (SIGSTOP) during a flood: others' calls, p99",
        ms(percentile(waits, 0.99)),
        f"{len(waits)} calls; it resumed with its result",
        percentile(waits, 0.99) * 1000,
        100,
        "ms",
    )


def control_master(stack: ExitStack, sshd: Sshd, socket: Path) -> None:
    """Start ssh's own connection sharing."""
    ssh = ["ssh", "-F", str(sshd.config), "-S", str(socket)]
    subprocess.run([*ssh, "-M", "-f", "-N", "box"], check=True)
    stop = [*ssh, "-O", "exit", "box"]
    stack.callback(subprocess.run, stop, check=False, capture_output=True)


def main() -> int:
    """Measure everything and print the table; 1 when a bar is missed."""
    Forking.allowed = False  # what is measured is the program as it is started
    Sshd.exchange = ""  # and the server as it comes
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hfb-")))
        for name in ("sshd", "home"):
            (root / name).mkdir()
        # An empty home on the far side: a slow start-up file would hide both programs.
        options = {"SetEnv": f"HOME={root / 'home'}"}
        sshd = stack.enter_context(Sshd(root / "sshd", options=options))
        world = stack.enter_context(World(root, ssh_config=sshd.config))
        control_master(stack, sshd, root / "master")
        figures = shim_figures(world)
        figures += exec_figures(world, sshd, root / "master")
        figures += asyncio.run(flood_figures(world))
        figures.append(asyncio.run(burst_figure(world)))
        figures.append(asyncio.run(stalled_figure(world)))
        figures.append(timely(far_figure(root)))
        figures += cold_figures(root)
        figures += held_figures(root)
        figures.append(timely(far_session_figure(root)))
        figures.append(found_again_figure(root))
        figures += many_session_figures(root)
        figures += forward_figures(root / "forward")
        figures += sync_figures(root)
        figures += transfer_figures(root / "transfer")
        figures += distant_figures(root / "distant")
    text = table(figures)
    today = dt.datetime.now(dt.UTC).date()
    sys.stdout.write(f"{text}\n{today}, {machine()}\n")
    if "--write" in sys.argv:
        (ROOT / "docs" / "figures.md").write_text(
            "# Figures\n\nPrinted by `make bench`; medians, peers measured in the same"
            f" run, over loopback.\n\n{text}\nMeasured {today} on {machine()}.\n"
        )
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
