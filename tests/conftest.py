"""What every test may ask for, and the rule that CI skips nothing."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.copying import WAYS, Ways
from fakes.filing import Desk
from fakes.forked import Forking
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import Pair
from fakes.tools import Tools, served, tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator


HERE = Path(__file__).parent
# Their tests take the longest, and wait for most of it: begun early, and one after the
# other between files that have work to do, so that there is always some of both.
LONGEST = (
    "fault/test_host_restarted.py",
    "contract/test_held_runs.py",
    "contract/test_held_prompts.py",
    "fault/test_sync_restarts.py",
    "fault/test_sync_begun_anew.py",
    "fault/test_frozen_peer.py",
    "fault/test_run_adopted.py",
    "fault/test_link_faults.py",
    "fault/test_copy_faults.py",
    "contract/test_kept_runs.py",
    "fault/test_session_failpoints.py",
    "contract/test_session_lifetimes.py",
    "fault/test_storms.py",
    "contract/test_kept_start.py",
    "fault/test_durable.py",
    "contract/test_wait.py",
    "contract/test_session_tools.py",
    "contract/test_sudo.py",
    "fault/test_copy_restarts.py",
    "fault/test_session_model.py",
    "fault/test_let_go.py",
    "fault/test_copy_watched.py",
    "contract/test_people_sessions.py",
    "fault/test_sync_faults.py",
    "fault/test_exec_stop.py",
    "fault/test_stopped_early.py",
    "contract/test_foreign_hosts.py",
    "service/test_demo.py",
    "service/test_service_install.py",
    "service/test_daemon_start.py",
    "service/test_user_systemd.py",
    "soak/test_cycles.py",
)
# There programs are started as such, and are no forks of what is imported already.
STARTED = {"service", "soak", "test_shim_life.py"}
# What these show is done by a daemon that is there already.
FORKED = {
    "test_daemon_config.py",
    "test_daemon_log.py",
    "test_daemon_socket.py",
    "test_daemon_stop.py",
    "test_doctor_daemon.py",
    "test_reload_answer.py",
    "test_shared_socket.py",
    "test_status_of_it_all.py",
    "test_stop_orphans.py",
    "test_stop_sessions.py",
}
BETWEEN = 3
# What is quick and small comes last: so the end is the same for all who share the work.
LAST = "unit"
LARGE = {"unit/daemon/test_screen.py", "unit/daemon/test_audit_chain.py"}


def pytest_sessionstart() -> None:
    """Look for no garbage while tests are collected: hardly anything is any.

    What programs do about signals must not depend on how the tests were started.
    """
    gc.disable()
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler
            signal.signal(number, usual if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Look for it from here on, but never again among what was collected."""
    gc.freeze()
    gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the tests of a file together: they share a host, a daemon, a client."""
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group(_place(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by how long they take, as far as that matters."""
    usual = [one for one in dict.fromkeys(map(_place, items)) if one not in LONGEST]
    usual.sort(key=lambda one: one.startswith(LAST) and one not in LARGE)
    order = {one: float(number) for number, one in enumerate(usual)}
    order |= {one: BETWEEN * number - 0.5 for number, one in enumerate(LONGEST)}
    items.sort(key=lambda item: order[_place(item)])


def _place(item: pytest.Item) -> str:
    return _below(item.path)


@cache
def _below(path: Path) -> str:
    return path.relative_to(HERE).as_posix()


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


@pytest.fixture(scope="module", autouse=True)
def _programs_started(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fork nothing where the program itself, or what it needs, is shown."""
    with pytest.MonkeyPatch.context() as patch:
        if STARTED & set(request.path.parts) and request.path.name not in FORKED:
            patch.setattr(Forking, "allowed", False)
        yield


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


@pytest.fixture(scope="module")
def shared(sshd: Sshd) -> Iterator[World]:
    """Yield such a daemon, for all tests of a file."""
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(shared: World) -> AsyncIterator[Tools]:
    """Yield the tools of an agent there, which they share, too."""
    async with tools(shared) as one:
        yield one


@pytest.fixture
def desk(ssh: Tools, tmp_path: Path) -> Desk:
    """Return a place whose files those tools work on."""
    return Desk(ssh, tmp_path)


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, ssh: Tools, tmp_path: Path) -> Ways:
    """Return a place here and one there that they copy between, each way."""
    return Ways(ssh, tmp_path, request.param)


@pytest.fixture(params=WAYS)
def pair(request: pytest.FixtureRequest, ssh: Tools, tmp_path: Path) -> Pair:
    """Return the same for ssh_sync."""
    return Pair(ssh, tmp_path, request.param)
