"""What happens to a file between two steps of a change: nothing lost, nothing shown."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from fakes.filing import Desk
from fakes.proxy import Proxy
from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_races"),
    pytest.mark.needs_sshd,
]

SECRET = "canary-only-mine"
# Somebody makes the same file just before it is put there.
_LN = """#!/bin/sh
for last;do name=${before##*/};before=$last;done
[ ! -d "$last" ]||last=$last$name
[ -e "$last" ]||printf 'theirs\\n' >"$last"
exec /bin/ln "$@"
"""
# Notes each file that others may read while the secret is in it.
_LOOK = """#!/bin/sh
PATH={path}
export PATH
for one in "{place}"/.holdfast.*;do
[ -d "$one" ]&&ls -ldn "$one" >>"{log}";done
for one in "{place}"/*;do
[ -f "$one" ]&&grep -q {secret} "$one"&&ls -ldn "$one" >>"{log}";done
exec "${{0##*/}}" "$@"
"""


class Host:
    """A host some of whose programs do something else besides."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "bin"
        self.place = directory / "place"
        self.home = directory / "home"
        for one in (self.programs, self.place, self.home):
            one.mkdir(parents=True)
        self.path = f"{self.programs}:{os.environ['PATH']}"

    def program(self, name: str, text: str) -> None:
        """Have a program begin as `text` says."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    return Host(tmp_path / "host")


@pytest.fixture
def sshd(host: Host, tmp_path: Path) -> Iterator[Sshd]:
    (tmp_path / "sshd").mkdir()
    options = {"SetEnv": f"HOME={host.home} PATH={host.path}"}
    with Sshd(tmp_path / "sshd", options=options) as one:
        yield one


async def test_two_append_to_what_was_not_there(host: Host, sshd: Sshd) -> None:
    """FI-04: what somebody wrote first to a new file stays when more is appended.

    The second one's text took the place of the first one's.
    """
    host.program("ln", _LN)
    with served(sshd) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, host.place)
            path = host.place / "log"
            told = await desk.write(path, "mine\n", mode="append")
    assert path.read_text() == "theirs\nmine\n"
    assert not told["created"]
    assert sorted(one.name for one in host.place.iterdir()) == ["log"]


@pytest.mark.parametrize("links", [1, 2])
async def test_permissions_hold_before_the_content_comes(
    host: Host, sshd: Sshd, tmp_path: Path, links: int
) -> None:
    """FI-04, SC-11: nobody reads a text before the permissions it was to have hold."""
    log = tmp_path / "seen"
    text = _LOOK.format(
        place=host.place, secret=SECRET, log=log, path=os.environ["PATH"]
    )
    for name in ("mv", "chmod", "ls", "rm", "cat"):
        host.program(name, text)
    path = host.place / "open"
    path.write_text("old")
    path.chmod(0o644)
    if links > 1:
        (host.place / "other").hardlink_to(path)
    with served(sshd) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, host.place)
            await desk.write(path, SECRET, mode="overwrite", permissions="600")
    assert path.read_text() == SECRET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seen = log.read_text().splitlines()
    assert seen
    assert {row.partition(" ")[0] for row in seen} <= {"-rw-------", "drwx------"}


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Sshd]:
    """Yield a host without a shell."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    (tmp_path / "plain").mkdir()
    options = {"ForceCommand": "internal-sftp", "Subsystem": "sftp internal-sftp"}
    with Sshd(tmp_path / "plain", options=options) as one:
        yield one


async def test_by_sftp_nobody_reads_a_secret_on_its_way(
    plain: Sshd, tmp_path: Path
) -> None:
    """FI-13: without a shell too a file that is its owner's alone stays so all along.

    Its new text lay open beside it until all of it had come.
    """
    place = tmp_path / "place"
    place.mkdir()
    path = place / "secret"
    path.write_text("old\n")
    path.chmod(0o600)
    modes: set[int] = set()
    with (
        Proxy(plain.port) as proxy,
        served(
            proxy.config(plain, tmp_path / "config"), limits="probe_seconds = 2\n"
        ) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            await desk.read(path)
            proxy.throttle(400_000)
            wire = ssh.wire
            ident = await wire.start(
                "tools/call",
                {
                    "name": "ssh_file_write",
                    "arguments": {
                        "target": "box",
                        "path": str(path),
                        "content": "new\n" * 100_000,
                        "mode": "overwrite",
                    },
                },
            )
            while path.read_text() == "old\n":
                for draft in place.glob(".holdfast.*"):
                    try:
                        modes.add(stat.S_IMODE(draft.stat().st_mode))
                    except FileNotFoundError:
                        continue
            proxy.throttle(0)
            message = await wire.receive()
            assert message["id"] == ident
            assert "isError" not in message["result"], message
    assert modes == {0o600}
    assert path.read_text() == "new\n" * 100_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_by_sftp_a_name_that_is_no_utf_8(plain: Sshd, tmp_path: Path) -> None:
    """FI-10: a file that a link leads to is the one that is written, whatever its name.

    The text went to a new file called as the name is shown, and the old one stayed.
    """
    place = tmp_path / "place"
    place.mkdir()
    odd = place / os.fsdecode(b"caf\xe9")
    odd.write_text("old\n")
    (place / "link").symlink_to(odd)
    with served(plain, limits="probe_seconds = 2\n") as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            await desk.told(
                "ssh_file_edit",
                path=str(place / "link"),
                edits=[{"old": "old", "new": "new"}],
            )
            assert odd.read_text() == "new\n"
            await desk.write(place / "link", "more\n", mode="append")
            assert odd.read_text() == "new\nmore\n"
            assert len(list(place.iterdir())) == 2
            error = await desk.refused(
                "ssh_file_write", path="~nobody/x", content="x", make_parents=True
            )
            assert error["reason"] == "INVALID_ARGUMENT"
