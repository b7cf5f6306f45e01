"""A session's name on a host that a client may not see tells it nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("terminals")]


async def test_a_name_that_is_taken_elsewhere(tmp_path: Path) -> None:
    """SE-04, SC-04: neither told of nor in the way, in whatever call."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    homes = {"SetEnv": f"HOME={tmp_path / 'two'}"}
    with (
        Sshd(tmp_path / "one", alias="box", options=homes) as mine,
        Sshd(tmp_path / "two", alias="secret", options=homes) as other,
    ):
        config = tmp_path / "config"
        config.write_text(mine.client_config() + other.client_config())
        with served(config) as world:
            async with (
                tools(world) as both,
                tools(world, env={"SSH_ALLOWED_HOSTS": "box"}) as ssh,
            ):
                for target in ("box", "secret"):
                    await both.told(
                        "ssh_session_open",
                        target=target,
                        session_name="build",
                        durability="held",
                    )
                error = await both.refused(
                    "ssh_session_run", session="build", command="true"
                )
                assert "2 sessions are named" in error["message"]
                told = await ssh.told(
                    "ssh_session_run", session="build", command="echo on"
                )
                assert (told["stdout"], told["target"]) == ("on\n", "box")
                await ssh.told("ssh_session_read", session="build")
                waited = await ssh.told(
                    "ssh_wait",
                    any_of=[{"session": "build", "exited": True}],
                    wait_seconds=0,
                )
                assert "secret" not in str(waited)
                await ssh.told("ssh_session_close", session="build")
                # the one that ended there is still its own
                read = await ssh.told("ssh_session_read", session="build")
                assert "box" in read["target"] or str(mine.port) in read["target"]
                only = await both.told(
                    "ssh_session_open", target="secret", session_name="only"
                )
                error = await ssh.refused("ssh_session_read", session="only")
                assert error["reason"] == "HOST_NOT_ALLOWED"
                for known in (only["session_id"], other.target):
                    assert known not in str(await ssh.told("ssh_session_list"))
