"""File tools for accounts of every login shell, through the shim and a real sshd."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.account import Account, why_not
from fakes.filing import Desk
from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish", "tcsh", "rbash"])
async def test_files_whatever_the_login_shell(tmp_path: Path, shell: str) -> None:
    """FI-10: by sh under it, or by SFTP where it is a restricted one; noise is none."""
    if reason := why_not():
        pytest.skip(reason)
    program = shutil.which(shell)
    if program is None or sshd_binary() is None:
        pytest.skip(f"no {shell} or no sshd here: run packaging/test-packages.sh")
    options = {"AuthorizedKeysFile": ".ssh/authorized_keys"}
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        Account(sshd.key, password="canary-x", shell=program) as who,
    ):
        for name in (".bashrc", ".zshenv", ".tcshrc"):
            who.write(name, "echo noise of a start-up file\n")
        sshd.config.write_text(
            sshd.client_config().replace(f"User {sshd.user}", f"User {who.name}")
        )
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
