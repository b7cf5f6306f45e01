"""Secrets sent in by every door are found nowhere afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes.mcp_wire import Wire
from fakes.sshd import keygen
from fakes.tools import served, tools
from fakes.watch import contents, daemons_of, soon
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fakes.sshd import Sshd

PASSWORD = "canary-P4ssw0rd-of-one-call"
DEFAULT = "canary-D3fault-of-the-client"
TOKEN = "tok_canaryT0kenOfTheClient"
GARBLED = "canary-G4rbledKeyMaterial"
USERINFO = "canary-Us3rinfo"
TYPED = "canary-Typ3dByMistake"


async def _calls(
    world: World, arguments: Iterable[dict[str, Any]], **environment: str
) -> list[dict[str, Any]]:
    """Call ssh_exec and ssh_connect with each; return all that was answered."""
    answers: list[dict[str, Any]] = []
    async with Wire(env={**world.environment, **environment}) as shim:
        for one in arguments:
            answers.append(await shim.call("ssh_exec", {"command": "echo on", **one}))
            answers.append(await shim.call("ssh_connect", one))
        shim.close_stdin()
        await shim.ended()
        assert shim.process.stderr is not None
        answers.append({"stderr": (await shim.process.stderr.read()).decode()})
    return answers


def _spy_on_ssh(world: World) -> Path:
    """Note the arguments and environment of every `ssh` that the daemon starts."""
    tools = world.root / "bin"
    tools.mkdir()
    seen = world.root / "seen"
    spy = tools / "ssh"
    spy.write_text(
        "#!/bin/sh\n"
        f'{{ echo "$@"; tr "\\0" "\\n" < /proc/$$/environ; }} >> {seen}\n'
        f'PATH={os.environ["PATH"]} exec ssh "$@"\n'
    )
    spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
    world.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    return seen


def _hits(world: World, needles: Iterable[str]) -> list[str]:
    """Return where a canary was found: files, and processes of the daemon."""
    texts = contents(world.root)
    for pid in daemons_of(world):
        process = Path(f"/proc/{pid}")
        for place in (process / "cmdline", process / "environ"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                texts[place] = place.read_bytes()
    return [
        f"{needle} in {place}"
        for place, text in texts.items()
        for needle in needles
        if needle.encode() in text
    ] + [
        f"{needle} in the name {place}"
        for place in texts
        for needle in needles
        if needle in str(place)
    ]


async def test_no_secret_is_found_anywhere_at_debug(
    short_path: Path, sshd: Sshd, tmp_path: Path
) -> None:
    """A5.23, SC-12: 0 hits in logs, audit, job records, arguments, errors, answers."""
    key = keygen(tmp_path / "own_key").read_text()
    body = key.splitlines()[1:-1]
    world = World(short_path, ssh_config=sshd.config)
    world.configure(
        'log_level = "debug"\n'
        '[hosts.pinned]\nhost = "127.0.0.1"\n'
        f'port = {sshd.port}\nknown_hosts_file = "{sshd.known_hosts}"\n'
    )
    seen = _spy_on_ssh(world)
    environment = {
        "SSH_DEFAULT_PASSWORD": DEFAULT,
        "MCP_TOKEN": TOKEN,
    }
    known = {"known_hosts_file": str(sshd.known_hosts)}
    # The first call starts the daemon: it must not inherit what the client has.
    answers = await _calls(
        world,
        [
            {"target": "box"},
            {"target": "pinned", "connect": {"password": PASSWORD}},
            {"target": sshd.target, "connect": {"password": PASSWORD, **known}},
            {"target": sshd.target, "connect": known},
            {"target": f"ssh://root:{USERINFO}@127.0.0.1:{sshd.port}"},
            {"target": "box", "connect": {"options": {"Password": TYPED}}},
            {"target": "box", "command": f"true --password={TYPED}"},
            {"target": "box", "connect": {"password": 5, "pasword": PASSWORD}},
        ],
        **environment,
    )
    answers += await _calls(world, [{"target": "pinned"}], SSH_PRIVATE_KEY=key)
    broken = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{GARBLED}\n"
    answers += await _calls(world, [{"target": "pinned"}], SSH_PRIVATE_KEY=broken)
    reasons = {
        answer["structuredContent"]["error"]["reason"]
        for answer in answers
        if answer.get("isError")
    }
    assert "AUTH_FAILED" in reasons, reasons
    assert "KEY_UNREADABLE" in reasons, reasons
    needles = [PASSWORD, DEFAULT, TOKEN, GARBLED, USERINFO, *body]
    texts = [str(answer) for answer in answers]
    assert [n for n in needles for text in texts if n in text] == []
    assert seen.exists()
    log = world.log.read_text()
    hits = await asyncio.to_thread(_hits, world, needles)
    assert hits == []
    assert TYPED not in log
    assert TYPED not in (world.state / "audit" / "audit.jsonl").read_text()
    world.cli("status")
    await asyncio.to_thread(world.stop)
    await soon(lambda: not daemons_of(world), "it stopped")
    assert await asyncio.to_thread(_hits, world, needles) == []


async def test_an_edit_that_misses_writes_no_content_into_records(
    sshd: Sshd, tmp_path: Path
) -> None:
    """SC-12, OB-01: what a file holds is for who asked, not for the audit log."""
    path = tmp_path / "settings"
    path.write_text(f"name = x\npass phrase {PASSWORD}\n")
    missed = PASSWORD[:-1] + "?"
    with served(sshd, more='log_level = "debug"\n') as world:
        async with tools(world) as ssh:
            edits = [{"old": f"pass phrase {missed}", "new": "nothing"}]
            error = await ssh.refused(
                "ssh_file_edit", target="box", path=str(path), edits=edits
            )
            assert error["reason"] == "EDIT_REFUSED"
            assert f"pass phrase {PASSWORD}" in error["message"]
        audit = world.state / "audit" / "audit.jsonl"
        await soon(lambda: f"is not in {path}" in audit.read_text(), "it is recorded")
        hits = await asyncio.to_thread(_hits, world, [PASSWORD, missed])
    assert hits == []
