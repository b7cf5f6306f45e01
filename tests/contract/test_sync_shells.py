"""Syncs with accounts of every login shell, through the shim and a real sshd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.account import login
from fakes.syncing import ROOTS, without_rsync
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd

NAME = 'it\'s !a "name" $(id)'


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish", "tcsh", "rbash"])
async def test_syncs_whatever_the_login_shell(tmp_path: Path, shell: str) -> None:
    """FI-02: both ways, and what start-up files print is no part of it."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / NAME).write_text("one")
    with login(tmp_path, shell) as (sshd, who):
        for name in (".bashrc", ".zshenv", ".tcshrc"):
            who.write(name, "echo noise of a start-up file\n")
        with served(sshd, more=ROOTS) as world:
            async with tools(world, "--results", "structured") as ssh:
                for there in (f"~/{NAME}", f"~{who.name}/second", "third"):
                    ends = {"source": str(source), "destination": there}
                    await ssh.told("ssh_sync", target="box", direction="upload", **ends)
                    back = tmp_path / f"back-{there[-5:]}"
                    told = await ssh.told(
                        "ssh_sync",
                        target="box",
                        direction="download",
                        source=there,
                        destination=str(back),
                    )
                    assert (back / "sub" / NAME).read_text() == "one"
                    assert told["created"] == 3
                    place = who.home / there.removeprefix("~/").removeprefix(
                        f"~{who.name}/"
                    )
                    assert (place / "sub" / NAME).stat().st_uid != 0


async def test_a_home_is_the_same_without_rsync(tmp_path: Path) -> None:
    """FI-02: `~` however it is spelt; what only a shell knows is refused, not made."""
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    (source / "a").write_text("one")
    with login(tmp_path, "bash") as (sshd, who), served(sshd, more=ROOTS) as world:
        world.stop()
        world.start(PATH=str(without_rsync(tmp_path / "here")))
        async with tools(world, "--results", "structured") as ssh:
            up = {"target": "box", "direction": "upload", "source": str(source)}
            for there in ("~/", "~//below", "~/further/"):
                await ssh.told("ssh_sync", **up, destination=there)
                place = who.home / there.lstrip("~/")
                assert (place / "a").read_text() == "one"
            for there in ("~/", "~"):
                down = {"target": "box", "direction": "download", "source": there}
                await ssh.told("ssh_sync", **down, destination=str(back))
                assert (back / "below" / "a").read_text() == "one"
            error = await ssh.refused("ssh_sync", **up, destination=f"~{who.name}")
            assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
            assert error["field"] == "destination"
        assert not (who.home / f"~{who.name}").exists()
