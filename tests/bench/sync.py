"""Many small files made alike by `ssh_sync`, beside `rsync -a` over ssh, in one run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import TYPE_CHECKING

from bench.figures import Figure, median
from fakes.sshd import Sshd
from fakes.syncing import WAYS
from fakes.tools import tools
from fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

_FILES = int(os.environ.get("HOLDFAST_BENCH_FILES", "10000"))
_SIZE = 1024
_ROUNDS = 5
# Of the time of `rsync -a` over ssh, which logs in.
_BAR = 1.2


def _fill(directory: Path) -> None:
    data = os.urandom(_SIZE)
    for number in range(_FILES):
        if number % 100 == 0:
            (directory / f"{number // 100:03}").mkdir(parents=True)
        (directory / f"{number // 100:03}" / f"{number:05}").write_bytes(data)


async def _ours(world: World, source: Path, place: Path, way: str) -> float:
    """Return the time of one call of the tool, by a shim that is up."""
    async with tools(world) as ssh:
        await ssh.run("true")
        begun = time.perf_counter()
        await ssh.told(
            "ssh_sync",
            target="box",
            direction=way,
            source=str(source),
            destination=str(place),
        )
        return time.perf_counter() - begun


def _theirs(sshd: Sshd, source: Path, place: Path, way: str) -> float:
    ends = [f"{source}/", str(place)]
    there = 0 if way == "download" else 1
    ends[there] = f"box:{ends[there]}"
    begun = time.perf_counter()
    command = ["rsync", "-a", "-e", f"ssh -F {sshd.config}", *ends]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begun


def sync_figures(root: Path) -> list[Figure]:
    """Measure both directions, ours and rsync's turn by turn."""
    root = root / "sync"
    directory = root / "sshd"
    directory.mkdir(parents=True)
    source = root / "source"
    _fill(source)
    figures: list[Figure] = []
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as sshd:
        world = World(root, ssh_config=sshd.config)
        world.configure(f'local_roots = ["{root}"]\n')
        with world:
            for way in WAYS:
                mine: list[float] = []
                peers: list[float] = []
                for number in range(_ROUNDS):
                    place = root / f"{way}-{number}"  # bench.transfer says why anew
                    mine.append(asyncio.run(_ours(world, source, place, way)))
                    assert len(list(place.rglob("*/*"))) == _FILES
                    place = root / f"{way}-{number}-rsync"
                    peers.append(_theirs(sshd, source, place, way))
                figures.append(
                    Figure(
                        f"{_FILES} files of 1 KiB by `ssh_sync`, {way},"
                        " against `rsync -a` over ssh",
                        f"{median(mine):.2f} s",
                        f"{median(peers):.2f} s",
                        median(mine) / median(peers),
                        _BAR,
                    )
                )
    return figures
