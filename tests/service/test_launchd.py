"""`holdfast service` on macOS, acted out with a recorded `launchctl`."""

from __future__ import annotations

import json
import os
import plistlib
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes import launchctl
from fakes.watch import alive, until
from fakes.world import program
from holdfast_shim.service import agent
from holdfast_shim.service.plan import Plan, environment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = agent.LABEL
# Types as launchd.plist(5) has them.
TYPES: dict[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "ProcessType": str,
    "Umask": int,
    "WorkingDirectory": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "EnvironmentVariables": dict,
    "SoftResourceLimits": dict,
    "HardResourceLimits": dict,
}
SCRIPT = (
    "import sys; from holdfast_shim.service import choose; choose.PLATFORM = 'darwin';"
    "from holdfast_shim.cli import main; sys.exit(main())"
)
PLAN = Plan(
    ("/Users/ann/.local/bin/holdfastd",),
    "/Users/ann",
    {"PATH": "/Users/ann/bin:/usr/bin"},
    "0.1.0",
)


class Mac:
    """A user's account on what acts as a Mac."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.place = root / "launchd"
        tools = root / "bin"
        for folder in (self.home, self.place, tools):
            folder.mkdir(mode=0o700)
        fake = tools / "launchctl"
        program = Path(launchctl.__file__)
        fake.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
        fake.chmod(0o755)
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HF_LAUNCHD": str(self.place),
            "XDG_RUNTIME_DIR": str(root),
        }

    @property
    def plist(self) -> Path:
        return self.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "service", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=80,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr + self.logs()
        return done.stdout or done.stderr

    def logs(self) -> str:
        """Return what the daemons said by now."""
        return "\n".join(path.read_text() for path in self.home.rglob("*.log"))

    def asked(self) -> list[str]:
        """Return what launchctl was asked since the last look, but for questions."""
        path = self.place / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("print ")]


@pytest.fixture
def mac() -> Iterator[Mac]:
    with tempfile.TemporaryDirectory(prefix="hf-") as root:
        one = Mac(Path(root))
        try:
            yield one
        finally:
            one.run("uninstall", "--now")


def test_every_key_has_a_type_and_a_reason() -> None:
    """PK-04: the property list is one, and says nothing that launchd does not know."""
    text = agent.text(PLAN)
    found: dict[str, Any] = plistlib.loads(text.encode())
    assert set(found) == set(TYPES) == set(agent.KEYS)
    for key, value in found.items():
        assert type(value) is TYPES[key], key
        assert f"{key}: {agent.KEYS[key]}" in text
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["Umask"] == 0o077
    assert found["ProcessType"] in ("Background", "Standard", "Adaptive", "Interactive")
    paths = [found[key] for key in TYPES if key.endswith(("Path", "Directory"))]
    for word in (*found["ProgramArguments"][:1], *paths):
        assert word.startswith("/")
        assert "$" not in word, "launchd expands nothing"
    environment = found["EnvironmentVariables"]
    assert "SSH_AUTH_SOCK" not in environment, "each login has another one"
    assert environment["PATH"].startswith("/Users/ann/bin:/usr/bin:/opt/homebrew/bin")


@pytest.mark.parametrize(
    "odd", ["/tmp/a b", "/tmp/<&>", "/tmp/--x", '/tmp/"q"', "/tmp/é"]
)
def test_odd_paths_survive(odd: str) -> None:
    """PK-04: a home may be named anything."""
    plan = PLAN._replace(command=(f"{odd}/holdfastd",), home=odd)
    found = plistlib.loads(agent.text(plan).encode())
    assert found["ProgramArguments"] == [f"{odd}/holdfastd"]
    assert found["WorkingDirectory"] == odd


def test_relative_parts_of_path_are_left_out() -> None:
    """PK-04: a service's working directory is not where somebody stood."""
    assert environment_of({"PATH": "bin:/a::/b:/a:."}) == {"PATH": "/a:/b"}


def test_installed_restarted_and_gone(mac: Mac) -> None:
    """PK-04: the same verbs as elsewhere, in launchctl's words, with a real daemon."""
    told = mac.run("install")
    assert "holdfast.holdfastd.plist is written" in told
    domain = f"gui/{os.getuid()}"
    load = f"bootstrap {domain} {mac.plist}"
    assert mac.asked() == [f"enable {domain}/{LABEL}", load]
    assert mac.plist.stat().st_mode & 0o777 == 0o644
    first = json.loads(mac.run("status", "--json"))
    assert (first["kind"], first["active"], first["enabled"]) == (
        "launchd",
        "active",
        True,
    )
    assert first["daemon"]["pid"] == first["pid"] > 0
    assert "runs on" in mac.run("install")
    assert mac.asked() == [], "there was nothing to do"
    assert "last exit code" not in mac.run("status")
    (mac.place / "exited").write_text("78: EX_CONFIG")
    assert "last exit code 78: EX_CONFIG" in mac.run("status")
    assert "took over from" in mac.run("restart")
    assert mac.asked() == [
        f"enable {domain}/{LABEL}",
        f"bootout {domain}/{LABEL}",
        load,
    ]
    assert not alive(first["pid"])
    assert "took over from" in mac.run("upgrade")
    assert "serving on" in mac.run("logs", "-n", "50")
    assert "systemd" in mac.run("logs", "--host", "box", code=1)
    pid = json.loads(mac.run("status", "--json"))["pid"]
    gone = mac.run("uninstall")
    assert f"{mac.plist} is removed" in gone
    until(lambda: not alive(pid), "the daemon ended")
    assert not mac.plist.exists()
    assert not (mac.home / "Library" / "Logs" / "holdfast").exists()
    assert "not installed" in mac.run("status", code=1)


def test_the_logs_tell_why_it_does_not_start(mac: Mac) -> None:
    """PK-04: it ends before its own log is open."""
    config = mac.home / ".config" / "holdfast" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("no_such_key = 1\n")
    config.chmod(0o600)
    mac.run("install", code=69)
    assert "no_such_key" in mac.run("logs")


def test_upgrade_keeps_the_environment_of_the_installation(mac: Mac) -> None:
    """NF-20: from a shell that knows less, the next daemon finds the same."""
    assert agent.environment_of("<plist>") == {}
    mac.run("install")
    plist = plistlib.loads(mac.plist.read_bytes())
    plist["EnvironmentVariables"]["PATH"] += ":/opt/once"
    # as an editor of plists may leave it
    mac.plist.write_bytes(plistlib.dumps(plist, fmt=plistlib.FMT_BINARY))
    mac.run("upgrade")
    told = plistlib.loads(mac.plist.read_bytes())["EnvironmentVariables"]
    assert told == plist["EnvironmentVariables"]
    mac.plist.write_bytes(b"bplist00 and no more")
    assert "can't be read" in mac.run("upgrade", code=69)


def test_clients_have_launchd_start_it(mac: Mac) -> None:
    """Contract section 1, autostart: `launchctl kickstart` where it is installed."""
    mac.run("install")
    pid = json.loads(mac.run("status", "--json"))["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid), "it ended, and a clean end stays one")
    mac.asked()
    done = subprocess.run(
        [program("holdfast"), "status", "--json"],
        env=mac.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert mac.asked() == [f"kickstart gui/{os.getuid()}/{LABEL}"]
    started = json.loads(mac.run("status", "--json"))
    assert json.loads(done.stdout)["pid"] == started["pid"] != pid


def test_a_daemon_that_launchd_starts_slowly_is_waited_for(mac: Mac) -> None:
    """Contract section 1, autostart: one more beside it would take its place.

    It was started by hand after 3 s, and the agent's own ended, again and again.
    """
    mac.run("install")
    pid = json.loads(mac.run("status", "--json"))["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid), "it ended")
    gate = mac.home / "gate"
    os.mkfifo(gate)
    agent_of = mac.place / "plist"
    told = plistlib.loads(agent_of.read_bytes())
    slow = f'read -r word <"{gate}"; exec "$@"'
    told["ProgramArguments"] = ["/bin/sh", "-c", slow, "sh", *told["ProgramArguments"]]
    agent_of.write_bytes(plistlib.dumps(told))
    asked = mac.place / "asked"
    asked.unlink()
    words = [program("holdfast"), "status", "--json"]
    with subprocess.Popen(words, env=mac.environment, stdout=subprocess.PIPE) as client:
        until(
            lambda: asked.exists() and "print" in asked.read_text(), "it is asked for"
        )
        gate.write_text("on\n")
        said, _ = client.communicate(timeout=40)
    assert json.loads(said)["pid"] == int((mac.place / "pid").read_text())


def test_without_a_session_the_next_step_is_told(mac: Mac) -> None:
    """PK-04: over ssh into a Mac where nobody is logged in at the screen."""
    (mac.place / "no-session").touch()
    try:
        told = mac.run("install", code=1)
    finally:
        (mac.place / "no-session").unlink()
    assert "launchd has no session for this user" in told
    assert "log in at the screen" in told
    assert not mac.plist.exists()
