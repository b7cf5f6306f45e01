"""Two keys of one account, of which the server binds one to a command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd, keygen
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd


def wide_and_narrow(sshd: Sshd, directory: Path) -> Path:
    """Have two aliases for the account, one with a key for a command; return them."""
    narrow = keygen(directory / "narrow")
    public = narrow.with_suffix(".pub").read_text()
    with sshd.authorized_keys.open("a") as file:
        file.write(f'command="echo forced",no-pty {public}')
    told = sshd.client_config("narrow").replace(str(sshd.key), str(narrow))
    config = directory / "config"
    config.write_text(sshd.client_config("wide") + told)
    return config


async def test_a_narrow_key_gets_nothing_that_a_wide_one_opened(tmp_path: Path) -> None:
    """SC-01, AU-02: neither its connection nor its shell of the same name."""
    home = {"SetEnv": f"HOME={tmp_path}"}
    with Sshd(tmp_path / "sshd", options=home) as sshd:
        config = wide_and_narrow(sshd, tmp_path)
        with served(config) as world:
            async with tools(world, target="") as ssh:
                opened = await ssh.told(
                    "ssh_session_open", target="wide", session_name="work"
                )
                ran = await ssh.run("echo free", target="wide")
                assert ran["stdout"] == "free\n"
                ran = await ssh.run("echo free", target="narrow")
                assert ran["stdout"] == "forced\n"
                answer = await ssh.call(
                    "ssh_session_open", target="narrow", session_name="work"
                )
                assert opened["session_id"] not in str(answer)
                # the other way round
                ran = await ssh.run("echo free", target="wide")
                assert ran["stdout"] == "free\n"
                again = await ssh.told(
                    "ssh_session_open", target="wide", session_name="work"
                )
                assert again["session_id"] == opened["session_id"]
        assert await asyncio.to_thread(lambda: sshd.logins) >= 2


async def test_a_narrow_key_gets_no_forward_of_a_wide_one(tmp_path: Path) -> None:
    """SC-01, FW-03: what the server lets the one reach, it may not let the other."""
    with Sshd(tmp_path / "sshd") as sshd:
        with served(wide_and_narrow(sshd, tmp_path)) as world:
            async with tools(world, target="") as ssh:
                place = {"direction": "local", "remote_port": sshd.port}
                wide = await ssh.told("ssh_forward_open", target="wide", **place)
                narrow = await ssh.told("ssh_forward_open", target="narrow", **place)
                again = await ssh.told("ssh_forward_open", target="wide", **place)
        assert wide["forward_id"] != narrow["forward_id"]
        assert (narrow["reused"], again["reused"]) == (False, True)
        assert again["forward_id"] == wide["forward_id"]
        assert await asyncio.to_thread(lambda: sshd.logins) >= 2


async def test_a_session_is_the_one_it_was_once_its_key_is_another(
    tmp_path: Path,
) -> None:
    """SE-05, AU-06: an edit of the alias opens no second shell of that name."""
    with Sshd(tmp_path / "sshd") as sshd:
        other = keygen(tmp_path / "other")
        with sshd.authorized_keys.open("a") as file:
            file.write(other.with_suffix(".pub").read_text())
        config = tmp_path / "config"
        told = sshd.client_config("box")
        config.write_text(told)
        with served(config) as world:
            async with tools(world) as ssh:
                asked = {"target": "box", "session_name": "work"}
                opened = await ssh.told("ssh_session_open", **asked)
                config.write_text(told.replace(str(sshd.key), str(other)))
                again = await ssh.told("ssh_session_open", **asked)
                assert again["session_id"] == opened["session_id"]
                ran = await ssh.told(
                    "ssh_session_run", session="work", command="echo on"
                )
                assert ran["stdout"] == "on\n"


async def test_a_session_of_a_call_s_own_key_is_found_after_a_restart(
    tmp_path: Path,
) -> None:
    """SE-05, SC-01: by who names that key again, and by nobody else.

    The daemon forgot the key: its owner got a second shell, and others got the first.
    """
    with Sshd(tmp_path / "sshd") as sshd:
        other = keygen(tmp_path / "other")
        with sshd.authorized_keys.open("a") as file:
            file.write(other.with_suffix(".pub").read_text())
        with served(sshd) as world:
            usual = {"target": "box", "session_name": "work"}
            own = {**usual, "connect": {"identity_file": str(other)}}
            async with tools(world, target="") as ssh:
                opened = await ssh.told("ssh_session_open", **own)
            await asyncio.to_thread(world.kill)
            await asyncio.to_thread(world.start)
            async with tools(world, target="") as ssh:
                again = await ssh.told("ssh_session_open", **own)
                assert again["session_id"] == opened["session_id"]
                theirs = await ssh.told("ssh_session_open", **usual)
                assert theirs["session_id"] != opened["session_id"]
