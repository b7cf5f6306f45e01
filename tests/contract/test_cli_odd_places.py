"""Odd places, numbers and texts at a command line are told in words, and as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fakes.mcp_wire import Wire
from fakes.terminal import sitting
from fakes.world import PATIENCE, World, program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd

NOBODY = "~nobody-of-this-name"


def gone(world: World, place: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run one of our programs in a directory that is gone."""
    place.mkdir()
    line = 'cd "$0" && rmdir "$0" && exec "$@"'
    return subprocess.run(
        ["sh", "-c", line, place, *words],
        env=world.environment,
        input=b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
        b'{"name":"ssh_hosts","arguments":{}}}\n',
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["copy", f"{NOBODY}/x", "box:/tmp/x"],
        ["copy", "box:/tmp/x", f"{NOBODY}/x"],
        ["sync", f"{NOBODY}/x", "box:/tmp/x"],
        ["exec", "-i", f"{NOBODY}/key", "box", "true"],
        ["exec", "-o", f"UserKnownHostsFile={NOBODY}/known", "box", "true"],
        ["replay", f"{NOBODY}/a.cast"],
    ],
)
def test_a_home_that_nobody_has_is_told(world: World, words: list[str]) -> None:
    """IN-08: exit code 2 and the word that was wrong; a shell leaves it as it is."""
    told = world.cli(*words, check=False)
    said = told.stderr.decode()
    assert (told.returncode, told.stdout) == (2, b"")
    assert f"{NOBODY}/" in said
    assert "no such home directory" in said
    told = world.cli("--json", *words, check=False)
    assert json.loads(told.stdout)["error"]["ran"] == "no"
    assert (told.returncode, told.stderr) == (2, b"")


def test_a_working_directory_that_is_gone_is_told(world: World, tmp_path: Path) -> None:
    """IN-08: what needs it says so, also as JSON; what does not goes on."""
    holdfast, place = program("holdfast"), tmp_path / "gone"
    for words in (["copy", "x", "box:/tmp/x"], ["exec", "-i", "k", "box", "true"]):
        told = gone(world, place, holdfast, "--json", *words)
        error = json.loads(told.stdout)["error"]
        assert (told.returncode, error["ran"], told.stderr) == (2, "no", b"")
        assert "the working directory is gone" in error["message"]
    told = gone(world, place, holdfast, "exec", "box", "echo", "on")
    assert (told.returncode, told.stdout) == (0, b"on\n")
    told = gone(world, place, holdfast, "--socket", "s.sock", "--json", "status")
    error = json.loads(told.stdout)["error"]
    assert (told.returncode, error["reason"]) == (69, "DAEMON_UNAVAILABLE")
    told = gone(world, place, program("holdfast-mcp"), "--socket", "s.sock")
    error = json.loads(told.stdout)["result"]["structuredContent"]["error"]
    assert (told.returncode, told.stderr) == (0, b"")
    assert "the working directory" in error["message"]


async def test_a_directory_whose_name_is_no_text_keeps_nobody_out(
    world: World, tmp_path: Path
) -> None:
    """Contract section 1: both ended with an exception before anything was asked."""
    place = tmp_path / os.fsdecode(b"caf\xe9")
    place.mkdir()
    line = ["sh", "-c", 'cd "$0" && exec "$@"', str(place)]
    told = await asyncio.to_thread(
        subprocess.run,
        [*line, program("holdfast"), "exec", "box", "echo", "on"],
        env=world.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, b"on\n", b"")
    words = [*line, program("holdfast-mcp")]
    async with Wire(env=world.environment, program=words) as shim:
        answer = await shim.call("ssh_exec", {"target": "box", "command": "echo on"})
        assert answer["content"][0]["text"].endswith("\non")


def test_numbers_that_are_none_are_refused(world: World, tmp_path: Path) -> None:
    """IN-08: NaN is within no bounds, and a wait until then would have no end."""
    cast = tmp_path / "a.cast"
    cast.write_text('{"version":2,"width":80,"height":24}\n[0.1,"o","x"]\n')
    for words in (
        ["service", "restart", "--wait", "nan"],
        ["replay", str(cast), "--speed", "nan"],
        ["replay", str(cast), "--idle", "nan"],
        ["exec", "--timeout", "nan", "box", "true"],
        ["shell", "box", "-d", "--idle-timeout", "nan"],
        ["forward", "box", "-D", "1" * 5000],
    ):
        told = world.cli(*words, check=False)
        assert (told.returncode, told.stdout) == (2, b""), words
        assert b"Traceback" not in told.stderr
        assert len(told.stderr) < 400


def test_a_recording_that_is_nested_too_deeply_is_none(
    world: World, tmp_path: Path
) -> None:
    """OB-06: a file from elsewhere is refused, or played as far as it is one."""
    cast = tmp_path / "deep.cast"
    cast.write_text("[" * 200_000 + "\n")
    told = world.cli("replay", str(cast), check=False)
    assert (told.returncode, told.stdout) == (1, b"")
    assert b"its first line is not a header" in told.stderr
    deep = "[" * 200_000
    head = '{"version":2,"width":80,"height":24}'
    cast.write_text(f'{head}\n[0.1,"o","x"]\n{deep}\n[0.2,"o","y"]\n')
    told = world.cli("replay", str(cast), check=False)
    assert (told.returncode, told.stdout) == (1, b"x")
    assert b"line 3 is no event" in told.stderr


async def test_json_for_a_person_does_not_drive_the_terminal(world: World) -> None:
    """IN-08: JSON alone leaves DEL, C1 controls and reversed writing as they are."""
    evil = "a\x9b2Jb\u202ec\x7fd\U000e0041e\x1b[2Jf ü"
    printed = "".join(f"\\{byte:03o}" for byte in evil.encode())
    async with sitting() as person:
        words = [program("holdfast"), "--json", "exec", "box", f"printf '{printed}'"]
        await person.run(*words, env=world.environment)
        await person.until(r"(?s)\{.*job_id.*\n\}")
        assert await person.ended() == 0
    said = person.said.decode()
    document: dict[str, Any] = json.loads(said)
    assert document["stdout"] == evil
    assert all(c.isprintable() or c in "\r\n" for c in said)
    assert "f ü" in said
