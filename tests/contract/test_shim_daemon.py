"""The shim and the daemon's life: started on demand, lost in mid-call, found again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.daemon import FakeDaemon
from fakes.mcp_wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TESTS = Path(__file__).parents[1]


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[FakeDaemon]:
    async with FakeDaemon(short_path / "hf.sock") as running:
        yield running


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    assert result["isError"] is True
    error = result["structuredContent"]["error"]
    assert isinstance(error, dict)
    return error


class Start:
    """A place where `python -m holdfast_daemon` is a stand-in that notes its pid."""

    def __init__(self, path: Path, body: str) -> None:
        self.socket = path / "run" / "hf.sock"
        self.state = path / "state"
        self.pids = path / "pids"
        package = path / "lib" / "holdfast_daemon"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            "import os, sys\n"
            f"sys.path.insert(0, {str(TESTS)!r})\n"
            f"open({str(self.pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n{body}"
        )
        self.env = {
            "PYTHONPATH": str(path / "lib"),
            "HOME": str(path),
            "HOLDFAST_STATE_DIR": str(self.state),
            "SSH_DEFAULT_PASSWORD": "hunter2",
        }

    def wire(self, *args: str) -> Wire:
        return Wire("--socket", str(self.socket), *args, env=self.env)

    def under_systemd(self, systemctl: bytes) -> None:
        """Have its unit installed, and this `systemctl` found before any other."""
        path = self.pids.parent
        units, tools = path / "config" / "systemd" / "user", path / "bin"
        units.mkdir(parents=True)
        (units / "holdfast.service").touch()
        tools.mkdir()
        program = tools / "systemctl"
        program.write_bytes(systemctl)
        program.chmod(0o755)
        del self.env["HOLDFAST_STATE_DIR"]
        self.env |= {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(path / "config"),
            "XDG_RUNTIME_DIR": str(path),
        }

    def started(self) -> list[int]:
        text = self.pids.read_text() if self.pids.exists() else ""
        return [int(line) for line in text.split()]

    def end(self) -> None:
        for pid in self.started():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


SERVE = """
import asyncio, pathlib
from fakes import daemon
assert "SSH_DEFAULT_PASSWORD" not in os.environ
asyncio.run(daemon._program(pathlib.Path(sys.argv[sys.argv.index("--socket") + 1])))
"""


@pytest.fixture
def start(short_path: Path) -> Iterator[Any]:
    made: list[Start] = []

    def make(body: str = SERVE) -> Start:
        made.append(Start(short_path, body))
        return made[-1]

    yield make
    for one in made:
        one.end()


async def test_a_lost_call_that_may_be_repeated_is_repeated_once(
    daemon: FakeDaemon,
) -> None:
    """NF-17: the same request_id at the same daemon can't run a command twice."""
    async with Wire("--socket", str(daemon.socket), "--no-autostart") as shim:
        result = await shim.call("ssh_exec", {"command": "lose-once"})
        assert result["content"][0]["text"].endswith("again")
        first, second = daemon.runs
        assert first.request_id == second.request_id
        listed = await shim.call("ssh_job_list", {"target": "lose-once"})
        assert "isError" not in listed


async def test_a_repeated_call_that_is_refused_tells_nothing_of_the_first(
    daemon: FakeDaemon,
) -> None:
    """NF-17, EX-20: the buggy shim said that nothing ran, of what may have run."""
    async with Wire("--socket", str(daemon.socket), "--no-autostart") as shim:
        error = error_of(await shim.call("ssh_exec", {"command": "lose-once refuse"}))
        assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "unknown")
        assert len(daemon.runs) == 2
        error = error_of(await shim.call("ssh_exec", {"command": "refuse"}))
        assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "no")


async def test_a_lost_call_is_not_repeated_at_another_daemon(
    daemon: FakeDaemon,
) -> None:
    """PK-06: a daemon that was started since knows nothing of the first call."""
    async with Wire("--socket", str(daemon.socket), "--no-autostart") as shim:
        await shim.call("ssh_hosts")
        daemon.instance = "second"
        error = error_of(await shim.call("ssh_exec", {"command": "lose-once"}))
        assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
        assert "ssh_job_list" in error["hint"]
        assert str(daemon.socket) not in str(error)
        assert len(daemon.runs) == 1


async def test_a_daemon_that_restarts_in_mid_call_loses_that_call_only(
    daemon: FakeDaemon,
) -> None:
    """PK-06: typed error with ran unknown, and the next call works."""
    async with Wire("--socket", str(daemon.socket), "--no-autostart") as shim:
        arguments = {"command": "wait"}
        params = {"name": "ssh_exec", "arguments": arguments}
        ident = await shim.start("tools/call", params)
        await daemon.begun.wait()
        await daemon.stop()
        error = error_of((await shim.reply(ident))["result"])
        assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
        gone = error_of(await shim.call("ssh_hosts"))
        assert (gone["reason"], gone["ran"]) == ("DAEMON_UNAVAILABLE", "no")
        daemon.instance = "second"
        await daemon.start()
        for _ in range(2):
            result = await shim.call("ssh_exec", {"command": "echo on"})
            assert "isError" not in result


async def test_a_daemon_killed_in_mid_call_is_started_again(start: Any) -> None:
    """PK-06: reconnects to a restarted daemon, starting it when need be."""
    place: Start = start()
    async with place.wire() as shim:
        error = error_of(await shim.call("ssh_exec", {"command": "crash"}))
        assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
        result = await shim.call("ssh_exec", {"command": "echo on"})
        assert result["content"][0]["text"].endswith("on")
    assert len(place.started()) == 2


async def test_ten_at_once_start_one_daemon_that_outlives_them(start: Any) -> None:
    """Contract section 1, autostart."""
    place: Start = start()

    async def one() -> dict[str, Any]:
        async with place.wire() as shim:
            result = await shim.call("ssh_exec", {"command": "echo on"})
            shim.close_stdin()
            await shim.ended()
            return result

    results = await asyncio.gather(*(one() for _ in range(10)))
    assert all("isError" not in result for result in results)
    (pid,) = place.started()
    assert os.getsid(pid) == pid
    os.kill(pid, 0)
    log = place.state / "log" / "holdfastd.log"
    assert log.stat().st_mode & 0o777 == 0o600
    assert (place.state.stat().st_mode & 0o777) == 0o700
    assert (place.socket.parent.stat().st_mode & 0o777) == 0o700
    async with place.wire("--no-autostart") as later:
        assert "isError" not in await later.call("ssh_hosts")
    assert place.started() == [pid]


async def test_a_daemon_that_will_not_start_says_why_in_its_own_words(
    start: Any,
) -> None:
    """Contract section 1: exit 78 names file, line and key."""
    said = "config.toml line 3: no such key"
    place: Start = start(f"print({said!r}, file=sys.stderr)\nsys.exit(78)\n")
    async with place.wire() as shim:
        error = error_of(await shim.call("ssh_exec", {"command": "echo on"}))
        assert (error["reason"], error["ran"]) == ("DAEMON_UNAVAILABLE", "no")
        assert said in error["message"]
        assert "78" in error["message"]


async def test_a_daemon_that_was_second_is_no_failure(start: Any) -> None:
    """Contract section 1: exit 75 says that another one serves the socket."""
    place: Start = start(
        "import subprocess\n"
        "if len(open(__file__.replace('lib/holdfast_daemon/__main__.py', 'pids'))"
        ".readlines()) == 1:\n"
        "    subprocess.Popen([sys.executable, *sys.orig_argv[1:]])\n"
        "    sys.exit(75)\n" + SERVE
    )
    async with place.wire() as shim:
        assert "isError" not in await shim.call("ssh_hosts")
    assert len(place.started()) == 2


async def test_without_autostart_a_missing_daemon_is_a_typed_error(
    start: Any,
) -> None:
    """Contract section 1: --no-autostart."""
    place: Start = start()
    async with place.wire("--no-autostart") as shim:
        error = error_of(await shim.call("ssh_hosts"))
        assert (error["reason"], error["ran"]) == ("DAEMON_UNAVAILABLE", "no")
    assert place.started() == []


async def test_a_socket_that_others_could_have_made_is_refused(
    daemon: FakeDaemon,
) -> None:
    """Contract section 2: directories 0700, refused when open to others."""
    daemon.socket.parent.chmod(0o755)
    async with Wire("--socket", str(daemon.socket)) as shim:
        error = error_of(await shim.call("ssh_exec", {"command": "echo on"}))
        assert error["reason"] == "DAEMON_UNAVAILABLE"
        assert "0755" in error["message"]
    assert daemon.runs == []


async def test_a_socket_path_that_is_too_long_is_a_typed_error(
    short_path: Path,
) -> None:
    """Issue 2, bad input: a path over 107 bytes for the socket."""
    socket = short_path / ("x" * 110) / "hf.sock"
    async with Wire("--socket", str(socket), env={"HOME": str(short_path)}) as shim:
        error = error_of(await shim.call("ssh_hosts"))
        assert error["reason"] == "DAEMON_UNAVAILABLE"
        assert "long" in error["message"]


async def test_a_socket_below_home_is_named_as_people_do(start: Any) -> None:
    """Contract section 1: no shell stands between a client's file and the shim."""
    place: Start = start()
    below = place.socket.relative_to(place.env["HOME"])
    async with Wire("--socket", f"~/{below}", env=place.env) as shim:
        assert "isError" not in await shim.call("ssh_hosts")
    assert place.socket.is_socket()


async def test_a_place_that_can_not_be_used_is_a_typed_error(short_path: Path) -> None:
    """Contract section 2: variables name absolute paths."""
    env = {"HOLDFAST_SOCKET": "relative", "HOME": str(short_path)}
    async with Wire(env=env) as shim:
        error = error_of(await shim.call("ssh_hosts"))
        assert "HOLDFAST_SOCKET" in error["message"]


@pytest.mark.parametrize("works", [True, False])
async def test_an_installed_unit_is_started_by_systemd(
    start: Any, short_path: Path, works: bool
) -> None:
    """Contract section 1: systemctl where the unit is installed, else by hand."""
    place: Start = start()
    place.socket = short_path / "holdfast" / "holdfast.sock"
    state = "running" if works else "auto-restart"
    systemctl = (
        f'#!/bin/sh\necho "$*" >> {short_path}/asked\n'
        f'[ "$2" = start ] || {{ echo SubState={state} && exit; }}\n'
        f"{'true' if works else 'exit 1'}\n"
        f"mkdir -m 700 {place.socket.parent}\n"
        f"{sys.executable} -m holdfast_daemon --socket {place.socket} &\n"
    )
    place.under_systemd(systemctl.encode())
    # The unit knows nothing of this client's variables.
    place.env.pop("SSH_DEFAULT_PASSWORD")
    async with Wire(env=place.env) as shim:
        assert "isError" not in await shim.call("ssh_hosts")
    asked = (short_path / "asked").read_text().splitlines()
    assert asked[0] == "--user start holdfast.service"
    assert len(place.started()) == 1


async def test_a_systemctl_that_can_not_be_run_is_no_reason_to_fail(
    start: Any,
) -> None:
    """Contract section 1: the daemon is started by hand then."""
    place: Start = start()
    place.under_systemd(b"\x7fELF of another machine")
    async with Wire(env=place.env) as shim:
        assert "isError" not in await shim.call("ssh_hosts")
    assert len(place.started()) == 1
