"""Sessions that the daemon holds, whose shell does not say which one it is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from fakes.framed import Session, Sessions, place
from fakes.tools import QUICK, tools

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("terminals")]

_LIMITS = f"{QUICK}connections_per_host = 1\n"


@contextlib.asynccontextmanager
async def opened(home: Path, shell: str) -> AsyncGenerator[Session]:
    """Open a session whose commands stand within its terminal's stream."""
    with place(home, _LIMITS, MaxSessions="1") as at:
        async with tools(at.world, "--results", "structured") as ssh:
            yield await Sessions(ssh, at, "inband").open(shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_busy_shell_is_no_other_one_for_ever(
    tmp_path: Path, shell: str
) -> None:
    """SE-02: it was taken for sh from then on; zsh and fish told 127, or hung."""
    async with opened(tmp_path, shell) as one:
        ssh = one.ssh
        await ssh.told("ssh_session_write", session=one.id, input="cat >/dev/null\n")
        error = await ssh.refused("ssh_session_run", session=one.id, command="echo no")
        assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no"), error
        assert "does not say which one it is" in error["message"]
        await ssh.told("ssh_session_write", session=one.id, input="\x04")
        told = await one.run("sh -c 'echo out; exit 4'")
        assert (told["stdout"], told.get("exit_code")) == ("out\n", 4), told


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
async def test_a_shell_that_takes_no_unset_variable_says_it_too(
    tmp_path: Path, shell: str
) -> None:
    """SE-02: asked for one, it said what is wrong with the question."""
    async with opened(tmp_path, shell) as one:
        await one.ssh.told("ssh_session_write", session=one.id, input="set -u\n")
        told = await one.run("sh -c 'echo out; exit 4'")
        assert (told["stdout"], told.get("exit_code")) == ("out\n", 4), told


async def test_a_shell_that_ends_when_it_is_asked_is_told_as_ended(
    tmp_path: Path,
) -> None:
    """SE-11: it was told as busy, once ten seconds had gone by."""
    async with opened(tmp_path, "bash") as one:
        words = "read -r _; exit 3\n"
        await one.ssh.told("ssh_session_write", session=one.id, input=words)
        error = await one.ssh.refused(
            "ssh_session_run", session=one.id, command="echo no"
        )
        assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "no"), error
