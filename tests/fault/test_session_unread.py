"""Records of sessions that the next daemon can't read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.sshd import sshd_binary
from fakes.tools import served_at_home, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd


@pytest.mark.parametrize("how", ["unread", "torn"])
async def test_a_session_that_can_t_be_read_for_once_is_there_later(
    tmp_path: Path, how: str
) -> None:
    """SE-11: it was forgotten for good, with all that it had printed."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    with served_at_home(tmp_path) as world:
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", shell="sh", durability="remote"
            )
            ident = opened["session_id"]
            told = await ssh.told(
                "ssh_session_run", session=ident, command="v=kept; echo $v"
            )
            assert told["stdout"] == "kept\n"
        world.stop()
        (record,) = world.state.glob("**/session.json")
        aside = tmp_path / "aside"
        record.rename(aside)
        if how == "unread":
            record.symlink_to(record)
        else:
            record.write_text("")
        world.start()
        async with tools(world) as ssh:
            assert (await ssh.told("ssh_session_list"))["count"] == 0
        world.stop()
        aside.replace(record)
        world.start()
        async with tools(world) as ssh:
            told = await ssh.told("ssh_session_run", session=ident, command="echo $v")
            assert told["stdout"] == "kept\n"
            await ssh.told("ssh_session_close", session=ident, force=True)
