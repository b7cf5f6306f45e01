"""One large file and many small ones by `ssh_copy`, beside scp, in one run."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import time
from typing import TYPE_CHECKING

from bench.figures import MIB, Figure, median
from fakes.sshd import Sshd
from fakes.syncing import WAYS
from fakes.tools import tools
from fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

_LARGE = int(os.environ.get("HOLDFAST_BENCH_MIB", "1024")) * MIB
_FILES = int(os.environ.get("HOLDFAST_BENCH_FILES", "10000"))
_ROUNDS = 3
_GCM = ("-c", "aes128-gcm@openssh.com")
# Of the time of scp: 1.5 times its throughput, as fast as with gcm, and half of its
# time for a tree.
_BARS = {"scp": 1 / 1.5, "gcm": 1.0, "sure": 1.0, "tree": 0.5}
# What our copies end with, too: both sides add up what they have, at the same time.
_SURE = ("openssl", "dgst", "-sha256", "-r")


def _fill(source: Path) -> None:
    source.mkdir()
    with (source / "large").open("wb") as file:
        for _ in range(_LARGE // MIB):
            file.write(os.urandom(MIB))
    for number in range(_FILES):
        folder = source / "tree" / f"{number // 100:03}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:05}").write_bytes(os.urandom(1024))


# A tree that was copied stays until all is measured, here as in bench.sync: ext4
# without a journal walks past the inodes that were freed in the last minutes each time
# it makes a file, which then takes ten times as long.
_number = itertools.count()


def _anew(place: Path) -> Path:
    """Return a name in `place` that nothing had yet."""
    place.mkdir(exist_ok=True)
    return place / str(next(_number))


def _touch(root: Path, source: Path) -> None:
    """Have as much memory at hand as a large file takes, for whoever is measured next.

    A virtual machine gives unused pages back after some seconds, and has each new one
    from its host: the first to copy would pay two seconds more than who comes behind.
    """
    if not source.is_file():
        return
    spent = root / "spent"
    with spent.open("wb") as file:
        for _ in range(_LARGE // MIB):
            file.write(bytes(MIB))
    spent.unlink()


async def _ours(world: World, source: Path, place: Path, way: str) -> float:
    """Return the time of one copy by a shim that is up."""
    _touch(place.parent, source)
    place = _anew(place)
    async with tools(world, "--results", "structured") as ssh:
        await ssh.run("true")
        begun = time.perf_counter()
        told = await ssh.told(
            "ssh_copy",
            target="box",
            direction=way,
            sources=[str(source)],
            destination=str(place),
            recursive=True,
        )
        if told["status"] == "running":
            told = await ssh.ended(told["job_id"])
        taken = time.perf_counter() - begun
    assert told["status"] == "exited", told
    _drop_large(place)
    return taken


def _drop_large(place: Path) -> None:
    """Delete a large file: the disk would be full of them."""
    if place.is_file():
        place.unlink()


def _theirs(
    sshd: Sshd, source: Path, place: Path, way: str, *more: str, sure: bool = False
) -> float:
    """Return the time of scp; `sure`: until both sides' checksums agree."""
    _touch(place.parent, source)
    place = _anew(place)
    ends = [str(source), f"box:{place}"]
    if way == "download":
        ends = [f"box:{source}", str(place)]
    begun = time.perf_counter()
    subprocess.run(
        ["scp", "-q", "-r", "-F", str(sshd.config), *more, *ends], check=True
    )
    if sure:
        there, here = (place, source) if way == "upload" else (source, place)
        far = ["ssh", "-F", str(sshd.config), "box", *_SURE, str(there)]
        with subprocess.Popen(far, stdout=subprocess.PIPE) as adding:
            ours = subprocess.run([*_SURE, str(here)], check=True, capture_output=True)
            theirs, _ = adding.communicate()
        assert ours.stdout.split()[0] == theirs.split()[0]
    taken = time.perf_counter() - begun
    _drop_large(place)
    return taken


def _figure(what: str, ours: list[float], theirs: list[float], bar: str) -> Figure:
    mine, other = median(ours), median(theirs)

    def shown(seconds: float) -> str:
        speed = f"{_LARGE / seconds / MIB:.0f} MiB/s"
        return f"{seconds:.2f} s" if bar == "tree" else speed

    return Figure(what, shown(mine), shown(other), mine / other, _BARS[bar])


def transfer_figures(root: Path) -> list[Figure]:
    """Measure both directions, ours and scp's turn by turn."""
    directory = root / "sshd"
    directory.mkdir(parents=True)
    source, place = root / "source", root / "place"
    _fill(source)
    figures: list[Figure] = []
    size = f"{_LARGE // MIB} MiB"
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as sshd:
        world = World(root, ssh_config=sshd.config)
        world.configure(f'local_roots = ["{root}"]\n')
        with world:
            for way in WAYS:
                large, tree = source / "large", source / "tree"
                rows: dict[str, list[float]] = {
                    name: []
                    for name in ("large", "scp", "gcm", "sure", "tree", "scp -r")
                }
                for _ in range(_ROUNDS):
                    rows["large"].append(asyncio.run(_ours(world, large, place, way)))
                    rows["scp"].append(_theirs(sshd, large, place, way))
                    rows["gcm"].append(_theirs(sshd, large, place, way, *_GCM))
                    rows["sure"].append(
                        _theirs(sshd, large, place, way, *_GCM, sure=True)
                    )
                    rows["tree"].append(asyncio.run(_ours(world, tree, place, way)))
                    rows["scp -r"].append(_theirs(sshd, tree, place, way))
                what = f"{way} of {size} by `ssh_copy`, against"
                figures += [
                    _figure(f"{what} `scp`", rows["large"], rows["scp"], "scp"),
                    _figure(
                        f"{what} `scp {' '.join(_GCM)}`",
                        rows["large"],
                        rows["gcm"],
                        "gcm",
                    ),
                    _figure(
                        f"{what} that and `{' '.join(_SURE[:3])}` at both ends",
                        rows["large"],
                        rows["sure"],
                        "sure",
                    ),
                    _figure(
                        f"{way} of {_FILES} files of 1 KiB, against `scp -r`",
                        rows["tree"],
                        rows["scp -r"],
                        "tree",
                    ),
                ]
    (source / "large").unlink()
    return figures
