"""README and tutorial: what they tell people to type is typed here."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.terminal import sitting
from fakes.tools import served
from fakes.world import World, program
from holdfast_shim import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
# What can't be typed here, and the test that does.
_EXEC = "tests/contract/test_cli_exec.py"
ELSEWHERE = {
    "make demo": "tests/service/test_demo.py",
    "make test": ".ci/run",
    "pipx install .": "tests/service/test_packaging.py",
    "claude mcp add --scope user holdfast -- holdfast-mcp": "docs/how-it-works.md",
    "holdfast service install": "tests/service/test_service_install.py",
    "holdfast login web1": "tests/contract/test_login_person.py",
    "holdfast exec web1 -- 'tail -f /var/log/syslog'": _EXEC,
}
_LEAVE = "\r~."

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


def commands(page: str) -> list[str]:
    """Return the commands of a page's `sh` blocks, without what is said of them."""
    text = (ROOT / page).read_text()
    found: list[str] = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(re.sub(r"\s+#\s.*$", "", line).rstrip())
    return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    options = {"SetEnv": f"HOME={home}"}
    with Sshd(tmp_path / "sshd", options=options) as one:
        both = one.client_config("web1") + one.client_config("box")
        one.config.write_text(both)
        yield one


async def type_in(world: World, words: list[str]) -> int:
    """Run what wants a terminal, and leave it as a person does."""
    async with sitting(seconds=30) as person:
        await person.run(program(words[0]), *words[1:], env=world.environment)
        if words[1] == "replay":
            return await person.ended()
        if words[1] in ("shell", "attach"):
            await person.until(r"leave with[^\r]*\r\n")
            person.type("echo seen-$((1+1))\r")
            await person.until("seen-2")
            person.type(_LEAVE)
        return await person.ended()


async def run(world: World, line: str) -> str:
    """Type a command as it stands in a page; return what it printed."""
    words = shlex.split(line)
    assert words[0] == "holdfast", line
    if words[1] in ("shell", "attach", "replay"):
        assert await type_in(world, words) == 0, line
        return ""
    done = await asyncio.to_thread(world.cli, *words[1:], check=False)
    assert done.returncode == 0, (line, done)
    return done.stdout.decode()


async def test_the_tutorial_can_be_followed(host: Sshd) -> None:
    """PK-01, NF-18: every line of it, in its order, on a new machine."""
    with served(host) as world:
        printed = {
            line: await run(world, line) for line in commands("docs/tutorial.md")
        }
        shown = {line.split()[1]: text for line, text in printed.items()}
        assert "working\nfinished\n" in shown["exec"]
        assert "build" in shown["sessions"] or "closed" in shown["sessions"]
        assert "holdfast-mcp" in shown["mcp-config"]
        found = json.loads(world.cli("sessions", "--json").stdout)
        assert not found.get("sessions")


async def test_what_readme_says_can_be_typed(host: Sshd, tmp_path: Path) -> None:
    """NF-18: each line of README, here or in the test that is named for it."""
    lines = commands("README.md")
    for line, where in ELSEWHERE.items():
        assert line in lines, f"README has it no more: {line}"
        assert (ROOT / where).exists()
    with served(host) as world:
        job = await asyncio.to_thread(world.cli, "exec", "web1", "--", "echo done")
        assert job.stdout == b"done\n"
        (row,) = world.cli_json("jobs")["jobs"]
        site = tmp_path / "site"
        site.mkdir()
        (tmp_path / "srv").mkdir()
        (site / "index.html").write_text("hello")
        # What the examples name, as it is called here.
        names = {
            "j4k2m9xq": row["job_id"],
            "./site": str(site),
            "web1:/srv": f"web1:{tmp_path}/srv",
        }
        for line in lines:
            if line not in ELSEWHERE:
                for name, here in names.items():
                    line = line.replace(name, here)  # noqa: PLW2901  the same line
                await run(world, line)
        await run(world, "holdfast sessions --close build --force")


def test_the_reference_is_what_the_programs_say() -> None:
    """NF-18: pages that are generated are those of today: `make docs` writes them."""
    place = ROOT / "packaging" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = ROOT / "docs" / "reference"
    assert (pages / "tools.md").read_text() == module.tools_page()
    assert (pages / "cli.md").read_text() == module.cli_page()


def test_every_setting_of_a_client_is_told() -> None:
    """Design 2: what narrows it or logs it in has to be known to be used."""
    source = Path(settings.__file__).read_text("utf-8")
    named = set(re.findall(r'"(SSH_[A-Z_]+)"', source))
    assert len(named) > 5
    told = (ROOT / "docs" / "clients.md").read_text("utf-8")
    assert not [name for name in named if f"`{name}`" not in told]


def test_every_page_is_in_the_menu() -> None:
    """A page nobody is led to is not read."""
    menu = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        assert f" {path.relative_to(ROOT / 'docs')}\n" in menu, path
