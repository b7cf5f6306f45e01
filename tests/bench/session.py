"""Figures of sessions: one far away, many at once, and those found after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.client import Shim
from bench.figures import MIB, Figure, median, ms, percentile, resident
from bench.fleet import many_hosts
from bench.line import FAR_SECONDS, far, round_trip
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

CALLS = 21
HOSTS = 50
SESSIONS = 500
ECHOES = 300
FOUND = 50
_AT_ONCE = 8
_WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")
_OPEN_SECONDS = 300
_LIMITS = f"[limits]\nsessions_total = {SESSIONS}\nsessions_per_host = {SESSIONS}\n"


@contextlib.asynccontextmanager
async def shim(world: World) -> AsyncGenerator[Wire]:
    """Yield a client of the world's daemon."""
    async with Wire(env=world.environment, seconds=_OPEN_SECONDS) as wire:
        await wire.initialize()
        yield wire


async def told(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must answer; return its document."""
    result = await wire.call(tool, arguments)
    assert not result.get("isError"), result
    return dict(result["structuredContent"])


async def far_session_figure(root: Path) -> Figure:
    """One command in a kept shell over a round trip of 100 ms."""
    for name in ("farshell", "farshellsshd", "farhome"):
        (root / name).mkdir()
    options = {"SetEnv": f"HOME={root / 'farhome'}"}
    with Sshd(root / "farshellsshd", options=options) as sshd:
        async with far(sshd.port, FAR_SECONDS / 2) as port:
            text = sshd.client_config().replace(f"Port {sshd.port}", f"Port {port}")
            sshd.config.write_text(f"{text}  HostKeyAlias far\n")
            sshd.known_hosts.write_text(sshd.known_hosts_lines(["far"]))
            with World(root / "farshell", ssh_config=sshd.config) as world:
                # beside the loop, which has the line's delay to keep
                ours, plain = await asyncio.to_thread(_in_turn, world)
        trip = await round_trip()
    return Figure(
        "`ssh_session_run true` through the shim over a 100 ms round trip",
        ms(median(ours)),
        f"`ssh_exec true` {ms(median(plain))}, the line {ms(trip)}",
        median(ours) / trip,
        1.05,
        "round trips",
    )


def _in_turn(world: World) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    plain: list[float] = []
    with contextlib.closing(Shim(world)) as shim:
        shim.call(
            "ssh_session_open", target="box", session_name="far", durability="remote"
        )
        for number in range(CALLS + 3):
            begun = time.perf_counter()
            shim.call("ssh_session_run", session="far", command="true")
            middle = time.perf_counter()
            shim.run("true")
            if number >= 3:
                ours.append(middle - begun)
                plain.append(time.perf_counter() - middle)
        shim.call("ssh_session_close", session="far", force=True)
    return ours, plain


async def _together(
    wire: Wire, tool: str, calls: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Make several calls, a few at a time; return their results in that order."""
    left = list(enumerate(calls))[::-1]
    asked: dict[int, int] = {}
    answers: dict[int, dict[str, Any]] = {}
    while left or asked:
        while left and len(asked) < _AT_ONCE:
            number, arguments = left.pop()
            params = {"name": tool, "arguments": arguments}
            asked[await wire.start("tools/call", params)] = number
        message = await wire.receive()
        if message.get("id") in asked:
            answers[asked.pop(message["id"])] = message["result"]
    return [answers[number] for number in range(len(calls))]


async def _open(wire: Wire, names: Sequence[str], hosts: Sequence[str]) -> None:
    calls = [
        {"target": host, "session_name": name}
        for name, host in zip(names, hosts, strict=True)
    ]
    for result in await _together(wire, "ssh_session_open", calls):
        assert not result.get("isError"), result


async def _close(wire: Wire, names: Sequence[str]) -> None:
    calls = [{"session": name, "force": True} for name in names]
    await _together(wire, "ssh_session_close", calls)


@contextlib.contextmanager
def many_watches() -> Generator[None]:
    """Let one machine stand for 50 hosts: each of those has 128 of these of its own."""
    before = _WATCHES.read_text()
    try:
        _WATCHES.write_text("2048")
    except PermissionError:
        # then some of the echoes take a second, and the figure is what it is
        yield
        return
    try:
        yield
    finally:
        _WATCHES.write_text(before)


def many_session_figures(root: Path) -> list[Figure]:
    """500 sessions on 50 connections: memory, and the echo of a key."""
    with many_watches(), many_hosts(root / "many", HOSTS) as (config, peers):
        world = World(root / "many", ssh_config=config)
        world.configure(_LIMITS)
        with world:
            hosts = [peers[n % HOSTS].name for n in range(SESSIONS)]
            memory, waits = asyncio.run(_many(world, hosts))
    return [
        Figure(
            f"{SESSIONS} sessions on {HOSTS} connections: the daemon's memory",
            f"{memory / MIB:.0f} MiB",
            "",
            memory / MIB,
            150,
            "MiB",
        ),
        Figure(
            f"{SESSIONS} sessions on {HOSTS} connections: echo of a key, p99",
            ms(percentile(waits, 0.99)),
            f"median {ms(median(waits))}",
            percentile(waits, 0.99) * 1000,
            20,
            "ms",
        ),
    ]


async def _many(world: World, hosts: Sequence[str]) -> tuple[int, list[float]]:
    names = [f"n{number}" for number in range(len(hosts))]
    async with shim(world) as wire:
        await _open(wire, names, hosts)
        waits: list[float] = []
        for number in range(ECHOES):
            key = chr(ord("a") + number % 26)
            begun = time.perf_counter()
            # the terminal's echo is what it waits for
            answer = await told(
                wire,
                "ssh_session_write",
                session=names[number * 7 % len(names)],
                input=key,
                until=key,
                wait_seconds=10,
            )
            waits.append(time.perf_counter() - begun)
            assert key in answer["output"], answer
        memory = resident(world.pid)
        await _close(wire, names)
    return memory, waits


def found_again_figure(root: Path) -> Figure:
    """50 kept sessions after a restart of the daemon: when the last one is there."""
    (root / "found").mkdir()
    (root / "foundhome").mkdir()
    options = {"SetEnv": f"HOME={root / 'foundhome'}", "MaxStartups": "100"}
    with Sshd(root / "found" / "sshd", options=options) as sshd:
        world = World(root / "found", ssh_config=sshd.config)
        world.configure(_LIMITS)
        with world:
            seconds = asyncio.run(_found(world))
    return Figure(
        f"{FOUND} kept sessions used again after a restart of the daemon",
        f"{seconds:.2f} s after READY=1",
        "",
        seconds,
        3,
        "s",
    )


async def _found(world: World) -> float:
    names = [f"n{number}" for number in range(FOUND)]
    async with shim(world) as wire:
        await _open(wire, names, ["box"] * FOUND)
        await asyncio.to_thread(world.stop)
        await asyncio.to_thread(world.start)
        begun = time.perf_counter()
        left = names
        while left:
            left = await _not_echoed(wire, left)
        seconds = time.perf_counter() - begun
        await _close(wire, names)
    return seconds


async def _not_echoed(wire: Wire, names: Sequence[str]) -> list[str]:
    """Type into sessions; return those that took nothing yet."""
    calls = [
        {"session": name, "input": "z", "until": "z", "wait_seconds": 10}
        for name in names
    ]
    left: list[str] = []
    results = await _together(wire, "ssh_session_write", calls)
    for name, result in zip(names, results, strict=True):
        told = result["structuredContent"]
        if result.get("isError"):
            assert told["error"]["ran"] == "no", told
            left.append(name)
        else:
            assert "z" in told["output"], told
    return left
