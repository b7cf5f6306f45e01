"""Compose's two containers without an engine: confined as it says, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.image import Image, services, volume
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd
from fakes.tools import content
from fakes.watch import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_sshd,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, for namespaces"),
]


@pytest.fixture
def volumes() -> Iterator[dict[str, Path]]:
    """Yield the volumes: the socket's, the state's, and ~/.ssh of one who uses it."""
    top = Path(tempfile.mkdtemp(prefix="hf-"))
    top.chmod(0o755)
    yield {name: volume(top / name) for name in ("socket", "state", "ssh")}
    shutil.rmtree(top)


async def test_one_daemon_and_a_shim_that_share_a_socket(
    built: Path, volumes: dict[str, Path], tmp_path: Path
) -> None:
    """PK-02, PK-03: read-only, no capabilities, user 10001; the shim has no network."""
    built.parents[0].chmod(0o755)
    found = services()
    with Sshd(tmp_path / "sshd") as sshd, Image(tmp_path, built) as image:
        fill(volumes["ssh"], sshd)
        before = sorted(path.name for path in volumes["ssh"].iterdir())
        daemon = start(image, volumes)
        try:
            until(lambda: health(image, volumes) == 0, "the health check is content")
            shim = image.command(found["shim"], volumes, *found["shim"]["command"])
            async with Wire(program=shim) as wire:
                await wire.initialize(name="one")
                arguments = {"target": "box", "command": "echo in"}
                ran = await wire.call("ssh_exec", arguments)
                assert content(ran)["stdout"] == "in\n"
                wire.close_stdin()
                assert await wire.ended(10) == 0
            confined(image, volumes)
            stop(daemon)
            assert sorted(path.name for path in volumes["ssh"].iterdir()) == before
            assert {path.stat().st_uid for path in volumes["state"].rglob("*")} == {
                10001
            }
        finally:
            if daemon.poll() is None:
                daemon.kill()
            daemon.communicate(timeout=20)
    assert health(image, volumes) != 0


def start(image: Image, volumes: dict[str, Path]) -> subprocess.Popen[bytes]:
    """Start the daemon's container."""
    daemon = services()["daemon"]
    return subprocess.Popen(
        image.command(daemon, volumes, *daemon["command"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def fill(place: Path, sshd: Sshd) -> None:
    """Put there what a person's ~/.ssh has."""
    config = sshd.client_config()
    for path in (sshd.key, sshd.known_hosts):
        config = config.replace(str(path), f"~/.ssh/{path.name}")
        shutil.copy(path, place / path.name)
    (place / "config").write_text(config)
    for path in place.iterdir():
        os.chown(path, 10001, 10001)


def health(image: Image, volumes: dict[str, Path]) -> int:
    """Run the health check of the daemon's container; return its exit code."""
    daemon = services()["daemon"]
    check, *words = daemon["healthcheck"]["test"]
    assert check == "CMD"
    return subprocess.run(
        image.command(daemon, volumes, *words),
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
    ).returncode


def confined(image: Image, volumes: dict[str, Path]) -> None:
    """Show that the containers here are as tight as compose says."""
    script = (
        "import json, os, socket\n"
        "status = dict(line.split(':\\t') for line in open('/proc/self/status'))\n"
        "asked = ('CapEff', 'CapBnd', 'NoNewPrivs')\n"
        "told = {name: status[name].strip() for name in asked}\n"
        "told['user'] = os.getuid()\n"
        "told['written'] = [p for p in ('/', '/home/holdfast', '/home/holdfast/.ssh',"
        " '/usr', '/opt', '/tmp', '/run/holdfast') if os.access(p, os.W_OK)]\n"
        "told['network'] = [name for _, name in socket.if_nameindex()]\n"
        "print(json.dumps(told))\n"
    )
    for name, service in services().items():
        done = subprocess.run(
            image.command(service, volumes, "python3", "-c", script),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
        told = json.loads(done.stdout)
        assert (told["CapEff"], told["CapBnd"]) == ("0" * 16, "0" * 16)
        assert (told["NoNewPrivs"], told["user"]) == ("1", 10001)
        assert told["written"] == ["/tmp", "/run/holdfast"]
        assert (told["network"] == ["lo"]) == (name == "shim")


def stop(daemon: subprocess.Popen[bytes]) -> None:
    """Stop the daemon's container as an engine does; what holds it here is unshare."""
    children = (
        Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    )
    os.kill(int(children[0]), 15)
    assert daemon.wait(10) == 0
