"""`holdfast service` from each way to install, by a user of a booted machine."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.booted import USER, Booted
from fakes.machine import UNIT
from fakes.shelf import INSTALL, OFFLINE, PIP, PYTHON, build
from fakes.watch import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.shelf import Shelf

pytestmark = [pytest.mark.needs_systemd, pytest.mark.timeout(600)]

HOME = Path("/home", USER)
BIN = HOME / ".local" / "bin"
NEXT = "99.0.0"
PATH = f"{BIN}:/usr/bin:/bin"


@dataclass(frozen=True)
class Way:
    """One way to install.

    Attributes:
        install: Its command; `FROM` is where the wheels are, `WHAT` our name.
        upgrade: The one that takes a newer version.
        program: The command of a person.
        daemon: What the unit has to start.
        root: It is the administrator who installs.
    """

    install: str
    upgrade: str
    program: Path
    daemon: Path
    root: bool = False


TARGET = "/usr/lib/python3/dist-packages"
SYSTEM = (
    f"pip --python {PYTHON} install --quiet --root-user-action ignore --upgrade"
    f" --target {TARGET} {OFFLINE} holdfast && "
    f"mv -f {TARGET}/bin/holdfast* /usr/bin/"
)
WAYS = {
    "pip in an environment": Way(
        INSTALL["pip"],
        f"env/bin/python {PIP} --upgrade holdfast",
        HOME / "env/bin/holdfast",
        HOME / "env/bin/holdfastd",
    ),
    "pip --user": Way(
        f"{PYTHON} {PIP} --user --break-system-packages holdfast",
        f"{PYTHON} {PIP} --user --break-system-packages --upgrade holdfast",
        BIN / "holdfast",
        BIN / "holdfastd",
    ),
    "pipx": Way(
        INSTALL["pipx"],
        f"pipx upgrade --quiet --pip-args='{OFFLINE}' holdfast",
        BIN / "holdfast",
        HOME / ".local/share/pipx/venvs/holdfast/bin/holdfastd",
    ),
    "uv tool": Way(
        INSTALL["uv"],
        f"uv tool upgrade --quiet --offline {OFFLINE} holdfast",
        BIN / "holdfast",
        HOME / ".local/share/uv/tools/holdfast/bin/holdfastd",
    ),
    "a distribution's package": Way(
        SYSTEM, SYSTEM, Path("/usr/bin/holdfast"), Path("/usr/bin/holdfastd"), root=True
    ),
}


@pytest.fixture(scope="module")
def later(shelf: Shelf) -> Path:
    """Return a directory with the wheels of the next release."""
    top = shelf.top / "next"
    shutil.copytree(shelf.source, top)
    for name in ("pyproject.toml", "shim/holdfast_shim/version.py"):
        text = (top / name).read_text()
        changed = re.sub(r'(?mi)^(version = )"[^"]+"', rf'\1"{NEXT}"', text, count=1)
        assert changed != text
        (top / name).write_text(changed)
    wheel = build("wheel", top, shelf.top / "next-wheel")
    return shelf.beside("later", wheel)


@pytest.fixture
def machine(shelf: Shelf) -> Iterator[Booted]:
    """Yield a machine on which nothing is installed yet."""
    one = Booted(shelf.top)
    try:
        yield one
    finally:
        one.close()


def do(machine: Booted, way: Way, command: str, shelf: Shelf, wheels: Path) -> None:
    """Run what installs."""
    command = command.replace("FROM", str(wheels)).replace("WHAT", "holdfast")
    path = f"PATH={PATH}:{shelf.tool(command)}; {command}"
    if way.root:
        machine.root("sh", "-ec", path)
    else:
        machine.login("sh", "-ec", path)


@pytest.mark.parametrize("name", WAYS)
def test_the_service_is_that_of_the_installation(
    name: str, shelf: Shelf, later: Path, machine: Booted
) -> None:
    """PK-01, PK-04, NF-20: the unit starts this very daemon, and `upgrade` the next."""
    way = WAYS[name]
    do(machine, way, way.install, shelf, shelf.now)
    # lingering, so that logging out between two commands ends nothing
    machine.login(str(way.program), "service", "install", "--linger", PATH=PATH)
    unit = machine.root("cat", f"{HOME}/.config/systemd/user/{UNIT}").stdout
    (started,) = re.findall(r"^ExecStart=(\S+) --socket ", unit, re.MULTILINE)
    assert started == str(way.daemon)
    before = status(machine, way)
    assert before["active"] == "active"
    daemon = before["daemon"]
    assert daemon["pid"] == before["pid"]
    command = machine.root("cat", f"/proc/{before['pid']}/cmdline").stdout.split("\0")
    assert str(way.daemon) in command
    do(machine, way, way.upgrade, shelf, later)
    stale = status(machine, way)
    assert stale["outdated"]
    assert stale["daemon"]["version"] == daemon["version"] != NEXT
    told = machine.login(str(way.program), "service", "upgrade", PATH=PATH).stdout
    assert f"holdfast {NEXT} (process " in told
    assert f"took over from {daemon['version']} (process {before['pid']})" in told
    after = status(machine, way)
    assert not after["outdated"]
    assert after["daemon"]["version"] == NEXT
    assert after["pid"] == after["daemon"]["pid"] != before["pid"]
    machine.login(str(way.program), "service", "uninstall", PATH=PATH)
    until(lambda: machine.manager() == "inactive", "nothing of it runs")


def status(machine: Booted, way: Way) -> Any:
    """Return how the service stands."""
    told = machine.login(str(way.program), "service", "status", "--json", PATH=PATH)
    return json.loads(told.stdout)


@pytest.mark.parametrize(
    "command",
    [
        f"uvx --quiet --offline --python {PYTHON} {OFFLINE} --from holdfast",
        f"pipx run --quiet --python {PYTHON} --pip-args='{OFFLINE}' --spec holdfast",
    ],
    ids=["uvx", "pipx run"],
)
def test_a_passing_installation_is_refused(
    command: str, shelf: Shelf, machine: Booted
) -> None:
    """PK-04: what its tool tidies away one day is no program for a service."""
    words = f"{command} holdfast service install --json"
    words = words.replace("FROM", str(shelf.now))
    path = f"{PATH}:{shelf.tool(command)}"
    done = machine.login("sh", "-c", words, PATH=path, check=False)
    assert done.stdout, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == "UNSUPPORTED", error
    assert "passing installation" in error["message"]
    assert "uv tool install holdfast" in error["hint"]
    unit = HOME / ".config" / "systemd" / "user" / UNIT
    assert machine.root("test", "-e", str(unit), check=False).returncode == 1
