"""A release as its users get it: each way to install works, and agrees with itself.

`make release-check` runs this, and test_release.py. The wheel is installed by pip, pipx
and uv, the sdist by pip: what builds it there is the same for all three.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.mcp_wire import Wire
from fakes.shelf import INSTALL, files_below
from fakes.watch import soon, told_of, until
from holdfast_shim.client import DaemonClient
from holdfast_shim.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.shelf import Shelf

pytestmark = pytest.mark.timeout(600)

PROGRAMS = ("holdfast", "holdfast-mcp", "holdfastd")


@dataclass(frozen=True)
class Installed:
    """One installation, in a home of its own.

    Attributes:
        home: That home, and nothing else of this user's, is in its environment.
        programs: Where its user finds the commands.
        env: The environment of that user.
    """

    home: Path
    programs: Path
    env: dict[str, str]

    @property
    def own(self) -> Path:
        """The directory of its Python, and of the commands themselves."""
        return (self.programs / "holdfast").resolve().parent

    def run(self, *words: str | Path, check: bool = True) -> str:
        """Run a program as its user would; return what it printed."""
        done = subprocess.run(
            words,
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def files(self) -> list[str]:
        """Return what is in the home, but for modules compiled when first used."""
        return [name for name in files_below(self.home) if "__pycache__" not in name]


def install(tool: str, kind: str, shelf: Shelf, home: Path) -> Installed:
    """Install the `wheel` by its name, or the `sdist`, by one of the tools."""
    programs = home / ("env/bin" if tool == "pip" else ".local/bin")
    for name in ("run", "tmp"):
        (home / name).mkdir(mode=0o700)
    env = {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": f"{programs}:/usr/bin:/bin",
        "TMPDIR": str(home / "tmp"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        # nor does anybody's configuration name another place to fetch from
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
    }
    one = Installed(home, programs, env)
    place, what = shelf.now, "holdfast"
    if kind == "sdist":
        place, what = shelf.building, str(shelf.sdist)
    command = INSTALL[tool].replace("FROM", str(place)).replace("WHAT", what)
    one.run("/bin/sh", "-ec", f'PATH="$PATH:{shelf.tool(tool)}"; {command}')
    return one


@pytest.fixture(
    scope="module",
    params=[("pip", "wheel"), ("pipx", "wheel"), ("uv", "wheel"), ("pip", "sdist")],
    ids=lambda way: f"{way[1]} by {way[0]}",
)
def installed(request: pytest.FixtureRequest, shelf: Shelf) -> Iterator[Installed]:
    """Yield an installation that sees no other; of what it started nothing stays."""
    tool, kind = request.param
    home = Path(tempfile.mkdtemp(prefix="hf-"))
    try:
        yield install(tool, kind, shelf, home)
    finally:
        for pid in told_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(home)


def test_an_installation_stands_alone(installed: Installed) -> None:
    """PK-01, release: its modules are its own, and so are all that it needs."""
    code = (
        "import json, sys, asyncssh, grpc, holdfast.contract, holdfast_daemon,"
        " holdfast_shim; print(json.dumps([sys.prefix, sys.base_prefix,"
        " [sys.modules[name].__file__ for name in ('asyncssh', 'grpc',"
        " 'holdfast.contract', 'holdfast_daemon', 'holdfast_shim')], sys.path]))"
    )
    told = installed.run(installed.own / "python", "-I", "-c", code)
    prefix, base, modules, path = json.loads(told)
    assert Path(prefix) == installed.own.parent
    assert Path(prefix).is_relative_to(installed.home)
    assert all(Path(module).is_relative_to(prefix) for module in modules)
    for entry in map(Path, path):
        shared = entry.is_relative_to(base) and "packages" not in entry.name
        assert entry.is_relative_to(installed.home) or shared, entry


async def test_versions_and_contract_agree(
    installed: Installed, project: dict[str, Any], digest: str
) -> None:
    """PK-01, release: three commands, serverInfo, the Hello of its own daemon."""
    told: dict[str, str] = {}
    for name in PROGRAMS:
        said = await asyncio.to_thread(
            installed.run, installed.programs / name, "--version"
        )
        told[name] = said.split()[-1]
    words = [f"{name}={value}" for name, value in installed.env.items()]
    shim = ["/usr/bin/env", "-i", *words, "holdfast-mcp"]
    context = Settings.read({}).context("release", "1")
    socket = installed.home / "run" / "holdfast" / "holdfast.sock"
    async with Wire(program=shim) as wire:
        told["serverInfo"] = (await wire.initialize())["serverInfo"]["version"]
        hosts = await wire.call("ssh_hosts")
        assert not hosts.get("isError"), hosts
        async with DaemonClient(socket, context, autostart=False) as client:
            hello = await client.connect()
        told["Hello"] = hello.version
        doctor = await asyncio.to_thread(
            installed.run, "/usr/bin/env", "holdfast", "doctor", "--json", check=False
        )
    try:
        assert told == dict.fromkeys(told, project["version"])
        assert hello.contract_hash == digest
        rows = {row["check"]: row for row in json.loads(doctor)["findings"]}
        row = rows["versions"]
        assert row["verdict"] == "ok"
        assert row["details"]["client_contract"] == digest
        assert words_of(hello.pid)[0].startswith(f"{installed.own}/python")
    finally:
        os.kill(hello.pid, signal.SIGTERM)
        await soon(lambda: not told_of(installed.home), "nothing of it runs")


def words_of(pid: int) -> list[str]:
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_the_demo_runs_to_its_end(installed: Installed) -> None:
    """NF-01, PK-01, release: what the README shows, and nothing of it stays."""
    before = installed.files()
    text = installed.run("/usr/bin/env", "holdfast", "demo")
    tools = re.findall(r"^   Its tools: (.+)$", text, re.MULTILINE)
    assert {"ssh_exec", "ssh_job_list", "ssh_job_read"} <= set(tools[0].split(", "))
    system = os.uname()
    assert f"\n    {system.sysname} {system.release}\n" in text
    step = r"^    \d\d:\d\d:\d\d step (\d+) of a long build$"
    crash = text.index("5. The editor crashes: SIGKILL to its shim")
    early = [int(number) for number in re.findall(step, text[:crash], re.MULTILINE)]
    late = [int(number) for number in re.findall(step, text[crash:], re.MULTILINE)]
    assert early, text
    assert late[-1:] == [12], text
    assert sorted({*early, *late}) == list(range(1, 13)), text
    (job,) = re.findall(r"^    job (\w+) still runs$", text, re.MULTILINE)
    assert job in text[:crash]
    assert re.search(r"^    exit 0\b", text[crash:], re.MULTILINE), text
    assert "Every line is there, and the exit code: the work never noticed." in text
    assert "The daemon, the server and their files are gone again." in text
    (shim,) = re.findall(
        r"claude mcp add --scope user holdfast -- (.+)$", text, re.MULTILINE
    )
    assert Path(shim) == installed.own / "holdfast-mcp"
    assert "\n    holdfast mcp-config CLIENT\n" in text
    assert "Traceback" not in text
    assert "Warning" not in text
    assert installed.files() == before
    until(lambda: not told_of(installed.home), "nothing of it runs")
