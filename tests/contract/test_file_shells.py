"""File tools for accounts of every login shell, through the shim and a real sshd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.account import login
from fakes.filing import Desk
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish", "tcsh", "rbash"])
async def test_files_whatever_the_login_shell(tmp_path: Path, shell: str) -> None:
    """FI-10: by sh under it, or by SFTP where it is a restricted one; noise is none."""
    with login(tmp_path, shell) as (sshd, who):
        for name in (".bashrc", ".zshenv", ".tcshrc"):
            who.write(name, "echo noise of a start-up file\n")
        with served(sshd) as world:
            async with tools(world, "--results", "structured") as ssh:
                desk = Desk(ssh, who.home)
                name = '~/it\'s !a "name"'
                for number in range(3):  # a shell that waits takes the later ones
                    text = f"$HOME `id` 'q' ! {number}\n"
                    await desk.write(name, text, mode="overwrite")
                    assert (await desk.read(name))["content"] == text
                told = await desk.edit(name, ("! 2", "done"))
                assert told["path"] == str(who.home / name[2:])
                listed = await desk.told("ssh_dir_list", path="~")
                assert [row["path"] for row in listed["entries"]] == [name[2:]]
                assert ("SFTP" in told.get("note", "")) is (shell == "rbash")
        assert (who.home / name[2:]).read_text() == "$HOME `id` 'q' done\n"
