"""Syncs with accounts of every login shell, through the shim and a real sshd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.account import login
from fakes.syncing import ROOTS
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
