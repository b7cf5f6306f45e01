"""What every test may ask for, and the rule that CI skips nothing."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd, sshd_binary
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped test as a failure under CI: what is not run is not known."""
    report = yield
    if (
        report.skipped
        and os.environ.get("CI") == "true"
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_client_agent() -> Iterator[None]:
    """Keep the developer's own agent and variables out of the tests."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith(("SSH_", "HOLDFAST_", "MCP_TOKEN")):
            patch.delenv(name)
    yield
    patch.undo()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Yield a private directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="hf-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a real OpenSSH server with its defaults."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    directory = tmp_path_factory.mktemp("sshd")
    # An empty home, so that no shell start-up file of the developer takes part.
    home = directory / "remote-home"
    home.mkdir()
    with Sshd(directory, options={"SetEnv": f"HOME={home}"}) as server:
        yield server


@pytest.fixture(scope="session")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where the sshd of this user can't hand out terminals."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    with Sshd(tmp_path_factory.mktemp("terminals")) as server:
        granted = server.grants_terminals()
    if not granted:
        said = "; ".join(server.log.text.splitlines()[-2:])
        pytest.skip(
            "an sshd of this user can't hand out a terminal (without root it needs "
            f"a /dev/pts mounted with gid=5): {said}"
        )


@pytest.fixture(scope="module")
def collected() -> None:
    """Collect what earlier tests left: gRPC's objects block when they are finalized."""
    gc.collect()


@pytest.fixture(params=[False, True], ids=str)
def tty(request: pytest.FixtureRequest) -> bool:
    """Return without and with a terminal, which must be had for the latter."""
    wanted = bool(request.param)
    if wanted:
        request.getfixturevalue("terminals")
    return wanted


@pytest.fixture
def world(short_path: Path, sshd: Sshd) -> Iterator[World]:
    """Yield a running daemon that knows the sshd as `box`."""
    with World(short_path, ssh_config=sshd.config) as one:
        yield one
