"""Syncs without rsync, with a host whose SFTP server stands still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fakes.filing import only_busybox
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.syncing import ROOTS, WAYS, Pair
from fakes.tools import QUICK, failure, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from fakes.world import World

MIB = 1024 * 1024
SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.xdist_group("sync_stalled"),
    pytest.mark.needs_sshd,
]


@contextlib.contextmanager
def standing(place: Path, limits: str = "") -> Generator[tuple[World, Proxy, Path]]:
    """Yield a daemon, a slow network, and where the pid of the SFTP server is told."""
    server = next(filter(os.path.exists, SERVERS), None) or shutil.which("sftp-server")
    if server is None:
        pytest.skip("there is no sftp-server here")
    told, script = place / "pid", place / "server"
    script.write_text(f"#!/bin/sh\necho $$ >{told}\nexec {server}\n")
    script.chmod(0o755)
    options = {
        "SetEnv": f"HOME={place} PATH={only_busybox(place / 'bin')}",
        "Subsystem": f"sftp {script}",
    }
    with Sshd(place / "sshd", options=options) as sshd, Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, place / "through-the-proxy")
        with served(config, more=ROOTS, limits=f"{QUICK}{limits}") as world:
            proxy.throttle(4 * MIB)
            yield world, proxy, told


def send(told: Path, number: signal.Signals) -> None:
    os.kill(int(told.read_text()), number)


async def stopped(pair: Pair, told: Path) -> asyncio.Task[dict[str, object]]:
    """Begin a sync, and stop the host's server once a part of it has arrived."""
    (pair.source / "large").write_bytes(os.urandom(40 * MIB))
    task = asyncio.create_task(pair.ssh.call("ssh_sync", **pair.filled({})))

    def parts() -> list[Path]:
        return [p for p in pair.destination.glob(".large*") if p.stat().st_size]

    await soon(parts, "a part arrives")
    send(told, signal.SIGSTOP)
    return task


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_that_stands_still(tmp_path: Path, way: str) -> None:
    """FI-12: the sync never ended, whatever sync_idle_seconds said."""
    with standing(tmp_path, "sync_idle_seconds = 5\n") as (world, _, told):
        async with tools(world, "--results", "structured") as ssh:
            try:
                error = failure(await (await stopped(Pair(ssh, tmp_path, way), told)))
            finally:
                send(told, signal.SIGCONT)
            assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "unknown")
            assert "stood still" in error["message"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_stop_meanwhile(tmp_path: Path, way: str) -> None:
    """FI-02, NF-10: ssh_job_stop waited for the server, and so for ever."""
    with standing(tmp_path) as (world, _, told):
        async with (
            tools(world, "--results", "structured") as ssh,
            tools(world, "--results", "structured", client="other") as other,
        ):
            task = await stopped(Pair(ssh, tmp_path, way), told)
            try:
                (job,) = (await other.told("ssh_job_list", running_only=True))["jobs"]
                began = time.monotonic()
                async with asyncio.timeout(40):
                    ended = await other.stop(job["job_id"])
                    assert ended["status"] == "cancelled"
                    await task
                assert time.monotonic() - began < 30
            finally:
                send(told, signal.SIGCONT)


async def test_a_session_that_says_nothing(tmp_path: Path) -> None:
    """FI-02: a forced command that never answers is given up in time."""
    options = {"ForceCommand": "exec sleep 60"}
    limits = f"{QUICK}probe_seconds = 0.5\nchannel_open_seconds = 3\n"
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        served(sshd, more=ROOTS, limits=limits) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            error = await Pair(ssh, tmp_path, "upload").refused()
            assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
            assert "nothing answered for 3 s" in error["message"]
