"""Our programs where HOME is set and empty, as by `HOME= holdfast …`."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fakes.watch import daemons_of, until
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What each takes for its home, once it has begun.
LOOK = """\
import contextlib, importlib, pathlib, sys
entry, sys.argv = importlib.import_module(sys.argv[1]), ["it", "--version"]
with contextlib.suppress(SystemExit):
    entry.main()
print(pathlib.Path.home())
"""


@pytest.fixture
def world(short_path: Path) -> Iterator[World]:
    """Yield a user's machine on which no daemon runs yet."""
    one = World(short_path)
    yield one
    for pid in daemons_of(one):
        os.kill(pid, signal.SIGTERM)
    until(lambda: not daemons_of(one), "every daemon ended")


def ran(
    *words: str, home: str | None, **environment: str
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(
        words,
        env=env if home is None else {**env, "HOME": home},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "entry",
    ["holdfast_shim.cli", "holdfast_shim.mcp_stdio", "holdfast_daemon.__main__"],
)
def test_an_empty_home_is_none(entry: str) -> None:
    """PK-01: the account's counts; all that is below it was looked for below /."""
    done = ran(sys.executable, "-c", LOOK, entry, home="")
    account = pwd.getpwuid(os.getuid()).pw_dir
    assert done.stdout.splitlines()[-1:] == [account], done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("holdfast", "--version"),
        ("holdfast", "--no-autostart", "status"),
        ("holdfast-mcp", "--version"),
        ("holdfastd", "--check"),
    ],
    ids=" ".join,
)
def test_it_is_as_where_it_is_not_set(short_path: Path, words: tuple[str, ...]) -> None:
    """PK-01: the same words, and the same end."""
    name, *rest = words
    runtime = str(short_path)
    unset, empty = (
        ran(program(name), *rest, home=home, XDG_RUNTIME_DIR=runtime)
        for home in (None, "")
    )
    assert (empty.stdout, empty.stderr) == (unset.stdout, unset.stderr)
    assert empty.returncode == unset.returncode


def test_a_daemon_is_started_without_one(world: World) -> None:
    """PK-01: it has a place for all it keeps, and answers."""
    assert world.cli("status", "--json", env={"HOME": ""}).returncode == 0
