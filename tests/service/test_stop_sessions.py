"""A stop under a real `systemd --user`, with sessions of both kinds on several hosts.

`make soak` has a hundred of them (HOLDFAST_SERVICE_SESSIONS), the ordinary suite a few.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.machine import DROP_IN, UNIT, Machine
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd, descendants, kill_kept
from fakes.tools import Tools
from fakes.watch import soon, until
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fakes.tools import Result

pytestmark = [
    pytest.mark.needs_systemd,
    pytest.mark.needs_sshd,
    pytest.mark.xdist_group("systemd"),
    pytest.mark.timeout(600),
]

SESSIONS = int(os.environ.get("HOLDFAST_SERVICE_SESSIONS", "20"))
HOSTS = ("one", "two", "three", "four")
KINDS = ("held", "remote")
AT_ONCE = 6
BUSY = 5  # each fifth one has a command that doesn't heed HUP
STOP_SECONDS = 5


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sshd]]:
    """Yield hosts whose accounts have homes of the test's own."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Sshd] = {}
        for name in HOSTS:
            directory = tmp_path_factory.mktemp(name)
            stack.callback(kill_kept, directory)
            stack.callback(kill_at_home, directory)
            home = {"SetEnv": f"HOME={directory}", "MaxStartups": "100"}
            found[name] = stack.enter_context(Sshd(directory, options=home))
        yield found


@pytest.fixture(scope="module")
def machine(
    hosts: dict[str, Sshd], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Yield a machine with the service installed."""
    config = tmp_path_factory.mktemp("client") / "config"
    text = (
        one.config.read_text().replace("Host box\n", f"Host {name}\n")
        for name, one in hosts.items()
    )
    config.write_text("\n".join(text))
    with tempfile.TemporaryDirectory(prefix="hf-") as home:
        one = Machine(Path(home))
        try:
            # its own watchdog: a full machine is no hanging one
            told = DROP_IN.format(ssh_config=config).replace("WatchdogSec=1s\n", "")
            one.drop_in.write_text(told)
            one.service("install")
            yield one
        finally:
            one.close()


def kill_at_home(home: Path) -> None:
    """Kill what ran on a host and did not heed HUP, as it would there for ever."""
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if f"HOME={home}".encode() in (directory / "environ").read_bytes().split(
                b"\0"
            ):
                os.kill(int(directory.name), signal.SIGKILL)


@contextlib.asynccontextmanager
async def agent(machine: Machine) -> AsyncGenerator[Tools]:
    """Spawn a shim inside the machine, as one agent has it."""
    given = [f"{name}={value}" for name, value in machine.environment.items()]
    words = [*machine.enter, "env", "-i", *given, program("holdfast-mcp")]
    async with Wire(program=words, seconds=90) as wire:
        try:
            await wire.initialize(name="editor")
            yield Tools(wire, "")
        finally:
            # a kill would hit nsenter alone, and the shim would go on
            wire.close_stdin()
            await wire.ended(20)


async def open_all(machine: Machine) -> dict[str, str]:
    """Open the sessions, each with something that runs; return their kinds by name."""
    kinds = {f"s{n}": KINDS[n // len(HOSTS) % 2] for n in range(SESSIONS)}
    names = iter(enumerate(kinds))

    async def work() -> None:
        async with agent(machine) as one:
            for number, name in names:
                await one.told(
                    "ssh_session_open",
                    target=HOSTS[number % len(HOSTS)],
                    session_name=name,
                    durability=kinds[name],
                )
                ran = await one.told(
                    "ssh_session_run", session=name, command=f"mark={name}; sleep 600 &"
                )
                assert ran["exit_code"] == 0, ran
                if number % BUSY == 0:
                    long = "trap '' HUP; sleep 600"
                    ran = await one.told(
                        "ssh_session_run", session=name, command=long, wait_seconds=0
                    )
                    assert ran["status"] == "running", ran

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return kinds


def listed(machine: Machine) -> dict[str, Result]:
    """Return the sessions that the daemon knows, by name."""
    return {one["session_name"]: one for one in machine.cli("sessions")["sessions"]}


@pytest.mark.timed
async def test_a_stop_with_all_sessions_open_takes_five_seconds_at_most(
    machine: Machine, hosts: dict[str, Sshd]
) -> None:
    """PK-05: `systemctl --user stop`; what hosts keep is back, the rest is told."""
    kinds = await open_all(machine)
    before = await asyncio.to_thread(listed, machine)
    assert {name: one["durability"] for name, one in before.items()} == kinds
    begun = time.monotonic()
    await asyncio.to_thread(machine.systemctl, "stop", UNIT)
    took = time.monotonic() - begun
    sys.stdout.write(f"{SESSIONS} sessions on {len(HOSTS)} hosts: stop {took:.2f} s\n")
    assert took <= STOP_SECONDS
    assert machine.show("Result") == "success"
    assert machine.show("ExecMainStatus") == "0"
    assert machine.show("ActiveState") == "inactive"
    told = machine.service("logs", "-n", "1000").stdout
    assert "is forced" not in told
    assert "was not clean" not in told
    for host in hosts.values():
        await soon(partial(alone, host.pid), "no connection is left")
    await asyncio.to_thread(machine.systemctl, "start", UNIT)
    remote = [name for name, kind in kinds.items() if kind == "remote"]
    back = await asyncio.to_thread(
        until, lambda: restored(machine, remote), "what hosts keep is back"
    )
    assert all(
        back[name]["session_id"] == before[name]["session_id"] for name in remote
    )
    async with agent(machine) as one:
        free = [name for name in remote if int(name[1:]) % BUSY]
        for name in (free[0], free[-1]):
            ran = await one.told("ssh_session_run", session=name, command="echo $mark")
            assert ran["stdout"] == f"{name}\n"
        ended = next(name for name, kind in kinds.items() if kind == "held")
        gone = await one.refused("ssh_session_run", session=ended, command="true")
        assert gone["reason"] == "SESSION_ENDED", gone
        running = await one.told("ssh_job_list", running_only=True)
        busy = [name for name in remote if name not in free]
        assert len(running["jobs"]) == len(busy), "in kept shells they go on"
        for name in remote:
            await one.told("ssh_session_close", session=name, force=True)


def alone(pid: int) -> bool:
    """Return whether a process has no children."""
    return not descendants(pid)


def restored(machine: Machine, names: list[str]) -> dict[str, Result]:
    """Return the sessions once all of these are there."""
    found = listed(machine)
    return found if all(name in found for name in names) else {}
