"""Where sessions are kept on a host: nobody else's directory, and none of nowhere."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from fakes.sshd import Sshd
from fakes.tools import content, served, tools
from holdfast_daemon.kept import script

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]

_SOMEBODY = 65534
_FILE = 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
@pytest.mark.parametrize("whole", [True, False])
async def test_what_somebody_left_is_not_run(tmp_path: Path, *, whole: bool) -> None:
    """SE-06: a script that somebody put where ours would be is not ours to run."""
    room = tmp_path / "cache" / "holdfast" / "kept"
    room.mkdir(parents=True)
    trap = tmp_path / "trap"
    file = room / script.name()
    file.write_text(f"touch {trap}\n")
    file.chmod(_FILE)
    os.chown(file, _SOMEBODY, _SOMEBODY)
    if whole:
        os.chown(room, _SOMEBODY, _SOMEBODY)
    away = {"SetEnv": f"HOME={tmp_path} XDG_CACHE_HOME={tmp_path}/cache"}
    with Sshd(tmp_path, options=away) as host, served(host) as world:
        async with tools(world) as ssh:
            opened = await ssh.call(
                "ssh_session_open", target="box", durability="remote"
            )
            assert not trap.exists()
            if whole:
                assert "NOT_KEPT" in str(opened)
                assert "belongs to another user" in str(opened)
                opened = await ssh.call("ssh_session_open", target="box")
            session = content(opened)["session_id"]
            ran = await ssh.told("ssh_session_run", session=session, command="echo ok")
            assert ran["stdout"] == "ok\n"
            assert not trap.exists()
            await ssh.told("ssh_session_close", session=session)


async def test_a_fifo_that_somebody_left_holds_nobody_up(tmp_path: Path) -> None:
    """SE-02: what another left among temporary files is no reason to stay there."""
    left = tmp_path / "holdfast-0123456789abcdef"
    left.mkdir()
    os.mkfifo(left / "owner")
    away = {"SetEnv": f"HOME={tmp_path} TMPDIR={tmp_path}"}
    with Sshd(tmp_path, options=away) as host, served(host) as world:
        async with tools(world) as ssh:
            opened = await ssh.told("ssh_session_open", target="box", durability="held")
            session = opened["session_id"]
            for word in ("one", "two", "three"):
                ran = await ssh.told(
                    "ssh_session_run", session=session, command=f"echo {word}"
                )
                assert ran["stdout"] == f"{word}\n"
            # nobody waits for it to be written
            with pytest.raises(OSError, match="No such device or address"):
                os.open(left / "owner", os.O_WRONLY | os.O_NONBLOCK)
            await ssh.told("ssh_session_close", session=session)


async def test_a_cache_directory_that_is_not_absolute_is_none(tmp_path: Path) -> None:
    """SE-06: a session is kept all the same, and nothing is left where it began."""
    name = f"holdfast-{secrets.token_hex(4)}"
    away = {"SetEnv": f"HOME={tmp_path} XDG_CACHE_HOME={name}/cache"}
    with Sshd(tmp_path, options=away) as host, served(host) as world:
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", durability="remote"
            )
            session = opened["session_id"]
            ran = await ssh.told("ssh_session_run", session=session, command="echo ok")
            assert ran["stdout"] == "ok\n"
            assert (tmp_path / ".cache" / "holdfast" / "kept" / session).is_dir()
            await ssh.told("ssh_session_close", session=session, force=True)
            assert not (Path.home() / name).exists()
            assert not (tmp_path / name).exists()
