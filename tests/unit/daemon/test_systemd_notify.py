from __future__ import annotations

import importlib
import os
import resource
import sys
import time
from typing import TYPE_CHECKING

import pytest

from fakes.supervisor import Supervisor
from holdfast_daemon.service import systemd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")


@pytest.fixture(params=["systemd-python", "own"])
def backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Use each backend in turn: the library, and ours with its import blocked."""
    name: str = request.param
    if name == "own":
        monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    else:
        pytest.importorskip("systemd.daemon", reason="the extra is not installed")
    systemd.library.cache_clear()
    assert systemd.backend() == name
    yield name
    systemd.library.cache_clear()


@pytest.fixture(params=["path", pytest.param("abstract", marks=needs_linux)])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Supervisor]:
    directory = tmp_path if request.param == "path" else None
    with Supervisor(directory) as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.mark.usefixtures("backend")
def test_the_manager_is_told_each_state(supervisor: Supervisor) -> None:
    """Issue 2, item 3: READY=1, STATUS=, watchdog, by either backend."""
    assert systemd.ready("2 hosts")
    assert supervisor.receive() == {"READY": "1", "STATUS": "2 hosts"}
    assert systemd.ready()
    assert supervisor.receive() == {"READY": "1"}
    assert systemd.status("3 jobs run")
    assert supervisor.receive() == {"STATUS": "3 jobs run"}
    assert systemd.watchdog()
    assert supervisor.receive() == {"WATCHDOG": "1"}
    assert systemd.stopping("draining")
    assert supervisor.receive() == {"STOPPING": "1", "STATUS": "draining"}
    assert systemd.stopping()
    assert supervisor.receive() == {"STOPPING": "1"}


@pytest.mark.usefixtures("backend")
def test_a_reload_tells_the_monotonic_clock(supervisor: Supervisor) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert systemd.reloading()
    told = supervisor.receive()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= after


@pytest.mark.usefixtures("backend")
def test_a_status_can_not_bring_in_another_field(supervisor: Supervisor) -> None:
    """A host's text in STATUS must not stop the daemon for the manager."""
    assert systemd.status("web1\nSTOPPING=1\r\nMAINPID=1 \udcff\0")
    told = supervisor.receive()
    assert set(told) == {"STATUS"}
    assert "web1 STOPPING=1" in told["STATUS"]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1"])
def test_without_a_manager_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.ready()


@pytest.mark.usefixtures("backend")
def test_a_manager_that_is_gone_is_no_error_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with Supervisor(tmp_path) as supervisor:
            monkeypatch.setenv("NOTIFY_SOCKET", supervisor.address)
            assert systemd.ready()
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
        assert not systemd.ready()
        assert "can't be told" in caplog.text
        caplog.clear()
        assert not systemd.status("serving")
        assert not caplog.text


@pytest.mark.usefixtures("backend")
@pytest.mark.timeout(20)
def test_a_manager_that_does_not_read_holds_nobody(supervisor: Supervisor) -> None:
    """NF-20: its socket takes some ten messages; the library waited for ever then."""
    told = [systemd.watchdog() for _ in range(2000)]
    assert told[0]
    assert not told[-1]
    assert supervisor.receive() == {"WATCHDOG": "1"}
    assert systemd.ready()


@pytest.mark.usefixtures("backend")
def test_a_daemon_with_many_descriptors_is_heard(supervisor: Supervisor) -> None:
    """PK-04: with a thousand connections its pings must come, or it is killed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert systemd.watchdog()
        assert supervisor.receive() == {"WATCHDOG": "1"}
    finally:
        for one in many:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("backend")
def test_the_environment_is_kept_for_later_calls(supervisor: Supervisor) -> None:
    assert systemd.ready()
    assert os.environ["NOTIFY_SOCKET"] == supervisor.address


def test_another_package_named_systemd_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two older packages import as `systemd` and shadow systemd-python."""
    impostor = type(sys)("systemd.daemon")
    impostor.__dict__["notify"] = lambda *_: pytest.fail("called")
    monkeypatch.setitem(sys.modules, "systemd.daemon", impostor)
    systemd.library.cache_clear()
    assert systemd.backend() == "own"
    systemd.library.cache_clear()


def test_alibrary_that_can_not_load_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_name: str) -> object:
        raise OSError("libsystemd.so.0: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    systemd.library.cache_clear()
    assert systemd.backend() == "own"
    systemd.library.cache_clear()


@pytest.mark.parametrize(
    ("usec", "pid", "wanted"),
    [
        ("20000000", None, 10.0),
        ("20000000", "own", 10.0),
        ("20000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("x", None, None),
        ("-5", None, None),
        (None, "own", None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit(
    monkeypatch: pytest.MonkeyPatch,
    usec: str | None,
    pid: str | None,
    wanted: float | None,
) -> None:
    if pid == "own":
        pid = str(os.getpid())
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == wanted


async def test_the_fake_waits_for_a_field(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_SOCKET", supervisor.address)
        systemd.status("starting")
        systemd.ready()
        assert await supervisor.until("READY") == {"READY": "1"}
        assert supervisor.told[0] == {"STATUS": "starting"}
        assert supervisor.silent()
