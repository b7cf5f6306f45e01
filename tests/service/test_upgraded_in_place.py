"""A daemon that runs on while its own files are replaced, as `pip install -U` does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.supervisor import Supervisor
from fakes.tools import tools
from fakes.world import PATIENCE, World
from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.client import DaemonClient
from holdfast_shim.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs_sshd

ROOT = Path(__file__).resolve().parents[2]


class Installed:
    """A daemon that runs from an installation of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._library = world.root / "lib"
        for source in ("proto/holdfast", "daemon/holdfast_daemon"):
            place = self._library / Path(source).name
            shutil.copytree(ROOT / source, place)

    @property
    def environment(self) -> dict[str, str]:
        """What it is started with."""
        return {**self.world.environment, "PYTHONPATH": str(self._library)}

    def upgrade(self) -> None:
        """Put another release there, which knows one tool and other scripts."""
        told = self._library / "holdfast" / "catalog.json"
        catalogue = json.loads(told.read_text())
        catalogue["tools"] = catalogue["tools"][:1]
        told.write_text(json.dumps(catalogue))
        for script in (self._library / "holdfast_daemon/kept/host").iterdir():
            script.write_text("echo another release >&2; exit 9\n")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    """Yield a host that no daemon has put anything on."""
    with Sshd(tmp_path, options={"SetEnv": f"HOME={tmp_path}"}) as one:
        yield one


@pytest.fixture
def daemon(short_path: Path, host: Sshd) -> Iterator[Installed]:
    """Yield a daemon that was upgraded just after its start."""
    world = World(short_path, ssh_config=host.config)
    world.run.mkdir(mode=0o700)
    one = Installed(world)
    with Supervisor(world.root) as supervisor:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "holdfast_daemon"],
            env={**one.environment, **supervisor.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while "READY" not in supervisor.receive(PATIENCE):
                pass
            one.upgrade()
            yield one
        finally:
            process.terminate()
            process.wait(PATIENCE)


async def test_it_tells_the_tools_that_it_knows_itself(daemon: Installed) -> None:
    """NF-20: it told those of the next release, and dropped their arguments."""
    world = daemon.world
    context = Settings.read(os.environ).context("test", "1")
    async with DaemonClient(world.socket, context, autostart=False) as client:
        await client.connect()
        answer = await admin_pb2_grpc.AdminServiceStub(client.channel).ReadCatalogue(
            admin_pb2.ReadCatalogueRequest(), metadata=client.metadata(), timeout=10
        )
    assert len(json.loads(answer.catalogue)["tools"]) > 1


async def test_hosts_are_given_its_own_scripts(daemon: Installed) -> None:
    """NF-20: the first durable command behind an upgrade got the next one's."""
    async with tools(daemon.world) as ssh:
        told = await ssh.told("ssh_exec", target="box", command="echo on", durable=True)
    assert (told["exit_code"], told["stdout"]) == (0, "on\n")
