"""A host that hides what sudo says: nobody can tell whether the command ran."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.account import why_not
from fakes.sshd import Sshd
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd


async def test_what_may_have_run_under_sudo_is_not_run_again(tmp_path: Path) -> None:
    """EX-17, NF-17: it was told as unknown, kept as «nothing ran», and ran twice."""
    if (reason := why_not()) or shutil.which("sudo") is None:
        pytest.skip(reason or "no sudo here")
    ran = tmp_path / "ran"
    options = {
        "SetEnv": f"HOME={tmp_path}",
        "ForceCommand": 'sh -c "$SSH_ORIGINAL_COMMAND" 2>/dev/null',
    }
    call = {
        "command": f"echo once >> '{ran}'",
        "sudo": True,
        "request_id": "r-unheard",
    }
    with Sshd(tmp_path / "sshd", options=options) as sshd, served(sshd) as world:
        async with tools(world, "--results", "structured", target=sshd.alias) as ssh:
            told = [await ssh.refused("ssh_exec", **call) for _ in range(2)]
            for error in told:
                assert (error["reason"], error["ran"]) == ("SUDO_REFUSED", "unknown")
            assert ran.read_text() == "once\n"
            read = await ssh.read(told[0]["job_id"], offset=0)
            assert "nothing ran" not in read.get("note", "")
