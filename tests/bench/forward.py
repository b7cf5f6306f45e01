"""Bytes through a local forward, beside `ssh -L`, in one run."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING

from bench.figures import MIB, Figure, median
from fakes import services
from fakes.sshd import Sshd, free_port
from fakes.watch import until
from fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

_SIZE = 512 * MIB
_ROUNDS = 5
# Of the time of `ssh -L`: 0.8 of its throughput.
_BAR = 1.25


def _take(address: str) -> float:
    """Return the bytes a second of one download of all there is."""
    with services.dial(address) as one:
        one.setblocking(True)
        left, begun = _SIZE, time.perf_counter()
        buffer = bytearray(MIB)
        while left > 0:
            got = one.recv_into(buffer)
            assert got, "it ended early"
            left -= got
        return _SIZE / (time.perf_counter() - begun)


def _give(address: str) -> float:
    """Return the bytes a second of one upload, until all of it has arrived."""
    with services.dial(address) as one:
        begun = time.perf_counter()
        for _ in range(_SIZE // len(services.BLOCK)):
            one.sendall(services.BLOCK)
        one.shutdown(socket.SHUT_WR)
        services.read_all(one)
        return _SIZE / (time.perf_counter() - begun)


def _reachable(address: str) -> bool:
    try:
        services.dial(address).close()
    except OSError:
        return False
    return True


def _await(address: str) -> None:
    until(lambda: _reachable(address), "ssh -L listens")


def _swallow(peer: socket.socket) -> None:
    buffer = bytearray(MIB)
    while peer.recv_into(buffer):
        pass
    peer.shutdown(socket.SHUT_WR)


def forward_figures(root: Path) -> list[Figure]:
    """Measure both directions, ours and ssh's turn by turn."""
    directory = root / "sshd"
    directory.mkdir(parents=True)
    figures: list[Figure] = []
    with (
        Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as sshd,
        World(root, ssh_config=sshd.config) as world,
    ):
        for what, handle, move in (
            ("down", services.source(_SIZE), _take),
            ("up", _swallow, _give),
        ):
            with services.serve(handle) as port:
                told = world.cli_json("forward", "box", "-L", f"0:127.0.0.1:{port}")
                peer = f"127.0.0.1:{free_port()}"
                words = ["ssh", "-F", str(sshd.config), "-N", "-L"]
                words += [f"{peer}:127.0.0.1:{port}", "box"]
                with subprocess.Popen(words, stdin=subprocess.DEVNULL) as ssh:
                    _await(peer)
                    ours: list[float] = []
                    theirs: list[float] = []
                    for _ in range(_ROUNDS):
                        ours.append(move(told["listen"]))
                        theirs.append(move(peer))
                    ssh.kill()
            figures.append(
                Figure(
                    f"bytes through a local forward, {what}, against `ssh -L`",
                    f"{median(ours) / MIB:.0f} MiB/s",
                    f"{median(theirs) / MIB:.0f} MiB/s",
                    median(theirs) / median(ours),
                    _BAR,
                )
            )
    return figures
