"""The daemon under a real `systemd --user`, in namespaces of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.machine import DROP_IN, UNIT, Machine
from fakes.watch import PATIENCE, first_answer, until
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd

pytestmark = [pytest.mark.needs_systemd, pytest.mark.xdist_group("systemd")]


@pytest.fixture(scope="module")
def machine(sshd: Sshd) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="hf-") as home:
        one = Machine(Path(home))
        try:
            one.drop_in.write_text(DROP_IN.format(ssh_config=sshd.config))
            one.service("install")
            yield one
        finally:
            one.close()


@pytest.fixture
def service(machine: Machine) -> Iterator[Machine]:
    """Yield the machine with the service running."""
    machine.systemctl("start", UNIT)
    yield machine
    machine.systemctl("stop", UNIT)
    machine.systemctl("reset-failed", UNIT, check=False)


def test_the_unit_is_well_formed(machine: Machine) -> None:
    """PK-04: no key of the unit is unknown to the manager."""
    path = machine.home / ".config" / "systemd" / "user" / UNIT
    verified = machine.run(
        *("systemd-analyze", "--user", "verify", "--man=no"),
        *("--recursive-errors=yes", str(path)),
        XDG_RUNTIME_DIR="/run/user/0",
    )
    assert verified.stderr == ""


def test_start_returns_when_the_socket_answers(service: Machine) -> None:
    """PK-04: Type=notify; the status line is the daemon's own."""
    told = service.cli("status")
    assert str(told["pid"]) == service.show("MainPID")
    assert told["socket"] == f"/run/user/{os.getuid()}/holdfast/holdfast.sock"
    assert service.show("StatusText").startswith("serving")
    assert service.show("ActiveState") == "active"
    done = service.run(program("holdfast"), "exec", "box", "--", "echo", "on")
    assert done.stdout == "on\n"


def test_after_a_kill_it_is_back_by_itself(service: Machine) -> None:
    """PK-04: Restart=on-failure; jobs of the killed one are still known."""
    service.run(program("holdfast"), "exec", "box", "--", "true")
    before = service.show("MainPID")
    jobs = service.home / ".local" / "state" / "holdfast" / "jobs"
    until(lambda: [*jobs.glob("*/job.json")], "the job is on the disk")
    service.signal("KILL")
    until(lambda: service.show("MainPID") not in (before, "0"), "a new one was started")
    until(lambda: service.show("ActiveState") == "active", "it is ready")
    assert service.cli("jobs")["jobs"]
    assert service.cli("audit", "--verify")["intact"]


def test_a_frozen_loop_is_ended_by_the_watchdog(service: Machine) -> None:
    """PK-04: WatchdogSec; SIGSTOP stands for a loop that hangs."""
    before = service.show("MainPID"), int(service.show("NRestarts"))
    service.signal("STOP")
    until(lambda: int(service.show("NRestarts")) > before[1], "it was restarted")
    until(lambda: service.show("ActiveState") == "active", "it is ready")
    assert service.show("MainPID") != before[0]
    assert service.cli("status")["pid"] == int(service.show("MainPID"))


def test_stop_and_restart_leave_no_old_socket(service: Machine) -> None:
    """A5.19, PK-05: `systemctl --user stop` is clean, though a command runs."""
    started = [program("holdfast"), "exec", "box", "--", "echo up; sleep 60"]
    running = subprocess.Popen(
        [*service.enter, *started],
        env=service.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        service.systemctl("restart", UNIT)
        assert running.wait(PATIENCE) != 0
    assert service.cli("status")["jobs_running"] == 0
    service.systemctl("stop", UNIT)
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    assert service.show("ActiveState") == "inactive"
    left = service.run("ls", "-A", f"/run/user/{os.getuid()}/holdfast").stdout.split()
    assert left == ["holdfast.sock.lock"]


def test_reload_reads_the_configuration(service: Machine) -> None:
    """IN-02: `systemctl --user reload`."""
    config = service.home / ".config" / "holdfast" / "config.toml"
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config.touch(mode=0o600)
    try:
        config.write_text("nonsense = 1\n")
        service.systemctl("reload", UNIT)
        until(lambda: "not taken" in service.show("StatusText"), "it is told")
        assert "nonsense" in service.cli("status")["config_error"]
    finally:
        config.unlink()


def test_one_that_comes_second_is_not_tried_again(service: Machine) -> None:
    """Exit 75 and 78 are no reason for another try."""
    restarts = service.show("NRestarts")
    second = service.run(program("holdfastd"), check=False)
    assert second.returncode == 75
    assert service.show("NRestarts") == restarts
    config = service.home / ".config" / "holdfast" / "config.toml"
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config.touch(mode=0o600)
    try:
        service.systemctl("stop", UNIT)
        config.write_text("nonsense = 1\n")
        service.systemctl("start", UNIT, check=False)
        assert service.show("ExecMainStatus") == "78"
        assert service.show("ActiveState") == "failed"
        assert service.show("NRestarts") == "0"
    finally:
        config.unlink()


def test_a_unit_that_starts_slowly_is_waited_for(
    machine: Machine, tmp_path: Path
) -> None:
    """Contract section 1, autostart: one more beside it would take its place.

    After 6 s a daemon was started by hand, and the service ended with 75.
    """
    machine.systemctl("stop", UNIT)
    gate = machine.home / "gate"
    os.mkfifo(gate)
    slow = machine.drop_in.with_name("slow.conf")
    slow.write_text(f"[Service]\nExecStartPre=/bin/sh -c 'read -r word <{gate}'\n")
    try:
        machine.systemctl("daemon-reload")
        asked = tmp_path / "asked"
        real = shutil.which("systemctl")
        told = tmp_path / "systemctl"
        told.write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexec {real} "$@"\n')
        told.chmod(0o755)
        words = [*machine.enter, program("holdfast"), "status", "--json"]
        environment = dict(machine.environment)
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as client:
            until(lambda: "SubState" in asked.read_text(), "it is asked for")
            gate.write_text("on\n")
            said, _ = client.communicate(timeout=40)
        assert json.loads(said)["pid"] == int(machine.show("MainPID"))
        assert machine.show("ActiveState") == "active"
    finally:
        slow.unlink()
        machine.systemctl("daemon-reload")
        machine.systemctl("stop", UNIT)


@pytest.mark.parametrize("client", ["shim", "cli"])
def test_clients_start_the_installed_unit(machine: Machine, client: str) -> None:
    """Contract section 1, autostart: `systemctl --user start` where it is installed."""
    machine.systemctl("stop", UNIT)
    assert machine.show("MainPID") == "0"
    if client == "cli":
        machine.run(program("holdfast"), "status")
    else:
        line = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            '{"name":"ssh_exec","arguments":{"target":"box","command":"echo on"}}}'
        )
        shim = [*machine.enter, program("holdfast-mcp")]
        answer, code = first_answer(shim, line, machine.environment)
        assert '"isError"' not in answer
        assert "exit 0" in answer
        assert code == 0
    try:
        assert machine.show("ActiveState") == "active"
        assert machine.cli("status")["pid"] == int(machine.show("MainPID"))
    finally:
        machine.systemctl("stop", UNIT)
