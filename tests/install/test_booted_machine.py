"""The service on a booted machine, for an ordinary user who logs in and out."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.booted import UID, USER, Booted
from fakes.machine import UNIT
from fakes.sshd import Sshd
from fakes.watch import until
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_systemd,
    pytest.mark.needs_sshd,
]
HOLDFAST = program("holdfast")
LINGERS = f"/var/lib/systemd/linger/{USER}"
# The way to the host, from within the sandbox: it tries what it may, then relays.
PROXY = Path(__file__).with_name("sandbox_probe.py")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a directory of the user's with the way to a host; `box` needs the agent."""
    directory = tmp_path_factory.mktemp("host")
    # below /tmp itself, as the ways to pytest's own directories are closed to others
    place = Path(tempfile.mkdtemp(prefix="hf-"))
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as sshd:
        config = sshd.client_config()
        for path in (sshd.key, sshd.known_hosts):
            shutil.copy(path, place / path.name)
            config = config.replace(str(path), str(place / path.name))
        words = [sys.executable, str(PROXY), str(place / "told"), str(sshd.port)]
        through = f"Host through\n  ProxyCommand {' '.join(words)}\n"
        alone = config.replace("Host box\n", "Host agent\n")
        alone = alone.replace(str(place / sshd.key.name), "none")
        alone = alone.replace("IdentitiesOnly yes", "IdentitiesOnly no")
        config = f"{config}\n{config.replace('Host box' + chr(10), through)}\n{alone}"
        (place / "config").write_text(config)
        for path in (place, *place.iterdir()):
            os.chown(path, UID, UID)
        yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def machine(place: Path) -> Iterator[Booted]:
    one = Booted(place)
    try:
        drop_in = f"/home/{USER}/.config/systemd/user/{UNIT}.d"
        one.login("mkdir", "-p", drop_in)
        told = f"[Service]\nEnvironment=HOLDFAST_SSH_CONFIG={place}/config\n"
        one.login("sh", "-c", f"printf '{told}' >{drop_in}/test.conf")
        yield one
    finally:
        one.close()


def test_the_sandbox_holds_and_ssh_works_in_it(machine: Booted, place: Path) -> None:
    """PK-04: each line acts on what the daemon starts; agent, helper and rsync work."""
    machine.login(HOLDFAST, "service", "install")
    said = machine.login(
        "sh",
        "-ec",
        f"systemctl --user start {UNIT}\n"
        f"{HOLDFAST} exec through -- echo on\n"
        # the agent is a client's own, and nothing else opens this door
        f"eval $(ssh-agent) >/dev/null; ssh-add -q {place}/id_ed25519\n"
        f"{HOLDFAST} exec agent -- echo agreed; kill $SSH_AGENT_PID\n"
        f"mkdir -p from; echo kept >from/file; chmod 6755 from/file\n"
        f"{HOLDFAST} sync from through:there >/dev/null\n"
        f"{HOLDFAST} exec through -- stat -c %a there/file\n"
        f"{HOLDFAST} sync through:there back >/dev/null; stat -c %a back/file\n",
    ).stdout
    assert said.split() == ["on", "agreed", "6755", "6755"]
    inside = json.loads((place / "told").read_text())
    (place / "told").unlink()
    machine.login(sys.executable, str(PROXY), str(place / "told"), "0")
    outside = json.loads((place / "told").read_text())
    # a user's manager can't raise what the machine gives its users
    assert inside.pop("descriptors") == min(65536, outside["descriptors"])
    assert inside == {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "capabilities": "0000000000000000",
        "umask": "077",
        "core": 0,
        "ptrace": "EPERM",
        "process_vm_readv": "EPERM",
        "personality": "EPERM",
        "raw packets": "EAFNOSUPPORT",
        "realtime": "EPERM",
        "user namespace": "works",
        "set-user-id": "works",
    }
    for name in ("ptrace", "process_vm_readv", "personality"):
        assert outside[name] == "works", "it is the unit that forbids it"
    assert outside["raw packets"] == "EPERM", "refused for another reason"


# What a user's manager takes and does not do, or what keeps a unit from starting.
# Should one of them begin to work, docs/service.md must be thought over.
HOLLOW = {
    "ProtectSystem=strict": '[ -z "$(findmnt -n -o OPTIONS /usr)" ]',
    "ProtectHome=read-only": "touch ~/written",
    "PrivateTmp=yes": "[ -d PLACE ]",
    "PrivateMounts=yes": "[ $(readlink /proc/self/ns/mnt) = $OUTER ]",
    "ProtectProc=invisible": "[ -d /proc/1 ]",
    "ProcSubset=pid": "[ -e /proc/cpuinfo ]",
    "ProtectControlGroups=yes": "[ $(readlink /proc/self/ns/mnt) = $OUTER ]",
    "ProtectKernelTunables=yes": "[ $(readlink /proc/self/ns/mnt) = $OUTER ]",
    "IPAddressDeny=any": "ssh-keyscan -p PORT 127.0.0.1 | grep -q .",
    # this one is done: what it does is the reason against it
    "PrivateUsers=yes": "[ $(stat -c %U /etc/ssh) = nobody ]",
}
FATAL = (
    "CapabilityBoundingSet=",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
)


def test_lines_left_out_would_only_look_good(machine: Booted, place: Path) -> None:
    """PK-04: under an ordinary user's manager they do nothing, or nothing starts."""
    (port,) = set(re.findall(r"Port (\d+)", (place / "config").read_text()))
    script = "OUTER=$(readlink /proc/self/ns/mnt)\n"
    script += "try() { systemd-run --user -E OUTER=$OUTER --quiet --wait --pipe -p $1"
    script += ' sh -c "$2" 2>/dev/null; echo "$1 $?"; }\n'
    for line, shown in (HOLLOW | dict.fromkeys(FATAL, "true")).items():
        shell = shown.replace("PLACE", str(place)).replace("PORT", port)
        script += f"try '{line}' '{shell}'\n"
    told = machine.login("sh", "-c", script).stdout.splitlines()
    assert told == [
        *(f"{line} 0" for line in HOLLOW),
        *(f"{line} 218" for line in FATAL),
    ]


def test_without_lingering_it_ends_with_the_last_login(machine: Booted) -> None:
    """PK-04: install says so; after a logout nothing of the user's runs any more."""
    told = machine.login(HOLDFAST, "service", "install").stdout
    assert "lingering is off: some seconds after your last logout" in told
    until(lambda: machine.manager() == "inactive", "the manager has ended")
    assert machine.root("pgrep", "-u", str(UID), check=False).stdout == ""


def test_lingering_lets_it_go_on_and_boot(machine: Booted) -> None:
    """PK-04: `install --linger` by the real logind; `uninstall` switches it off."""
    told = machine.login(HOLDFAST, "service", "install", "--linger").stdout
    assert f"lingering is on for {USER}: it starts at boot" in told
    machine.root("test", "-e", LINGERS)
    assert stays(machine), "it goes on after the logout"
    machine.reboot()
    until(lambda: main_process(machine), "it started without a login")
    assert machine.root("loginctl", "list-sessions", "--no-legend").stdout == ""
    state = until(lambda: active(machine), "it is ready")
    assert (state["lingers"], state["enabled"]) == (True, True)
    assert "lingering was on" in (
        machine.login(HOLDFAST, "service", "install", "--linger").stdout
    )
    assert (
        "lingering is off again"
        in machine.login(HOLDFAST, "service", "uninstall").stdout
    )
    assert machine.root("test", "-e", LINGERS, check=False).returncode == 1
    until(lambda: machine.manager() == "inactive", "nothing of it stays")


def test_lingering_of_ones_own_is_left_as_it_was(machine: Booted) -> None:
    """PK-04: what install did not switch on, uninstall does not switch off."""
    machine.root("loginctl", "enable-linger", USER)
    try:
        assert "lingering was on" in (
            machine.login(HOLDFAST, "service", "install", "--linger").stdout
        )
        assert "lingering" not in machine.login(HOLDFAST, "service", "uninstall").stdout
        machine.root("test", "-e", LINGERS)
    finally:
        machine.root("loginctl", "disable-linger", USER)


def main_process(machine: Booted) -> int:
    """Return the service's process; 0: it does not run."""
    done = machine.root("pgrep", "-u", str(UID), "-f", "holdfastd", check=False)
    return int((done.stdout.split() or ["0"])[0])


def active(machine: Booted) -> dict[str, Any]:
    """Return how the service stands, once it is ready."""
    done = machine.login(HOLDFAST, "service", "status", "--json", check=False)
    state = json.loads(done.stdout)
    assert isinstance(state, dict)
    return {} if done.returncode else state


def stays(machine: Booted) -> bool:
    """Return whether the service outlives a logout, which takes 1 s to tell here."""
    before = main_process(machine)
    # the manager of somebody who does not linger has ended before this one's login ends
    machine.root("systemd-run", "--quiet", "--wait", "sleep", "3")
    return machine.manager() == "active" and main_process(machine) == before != 0
