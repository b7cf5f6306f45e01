"""Framed commands of held sessions for accounts of every login shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.account import login
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish", "tcsh"])
async def test_runs_whatever_the_login_shell(tmp_path: Path, shell: str) -> None:
    """SE-02: where no shell was asked for, and start-up files print; or it is said."""
    with login(tmp_path, shell) as (sshd, who):
        for name in (".bashrc", ".profile", ".zshenv", ".zshrc", ".tcshrc"):
            who.write(name, "echo noise of a start-up file\n")
        with served(sshd) as world:
            async with tools(world) as ssh:
                opened = await ssh.told(
                    "ssh_session_open", target="box", durability="held", cwd="/usr"
                )
                call = {"session": opened["session_id"], "timeout_seconds": 20}
                if shell == "tcsh":
                    error = await ssh.refused(
                        "ssh_session_run", command="echo out", **call
                    )
                    assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
                    assert "tcsh" in error["message"]
                    return
                for _ in range(2):
                    told = await ssh.told(
                        "ssh_session_run",
                        command="pwd; id -un; echo err >&2; sh -c 'exit 3'",
                        **call,
                    )
                    assert told["stdout"] == f"/usr\n{who.name}\n"
                    assert (told["stderr"], told["exit_code"]) == ("err\n", 3)
