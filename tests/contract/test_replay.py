"""`holdfast replay`: what the daemon recorded is played as it was seen."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fakes import forked
from fakes.nursery import CLI
from fakes.playhouse import Playhouse
from fakes.terminal import sitting
from fakes.world import program
from holdfast_daemon.output.recording import Plan, Recording
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

SHOWN = "red \x1b[31mröt\x1b[0m\r\n$ ".encode()


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[Playhouse]:
    async with Playhouse(short_path) as one:
        await one.open("build")
        yield one


@pytest.fixture
async def recorded(house: Playhouse) -> Path:
    """Record something as the daemon records."""
    directory = house.root / "s-build"
    directory.mkdir(mode=0o700)
    plan = Plan(directory, "build", recording_bytes=10**6, transcript_bytes=10**6)
    recording = Recording(plan, Redactor(), cols=80, rows=24)
    await recording.begin()
    recording.output(SHOWN, len(SHOWN))
    recording.output(b"end", len(SHOWN) + 3)
    await recording.close()
    return recording.path


async def cli(house: Playhouse, *words: str) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(
        forked.run, CLI, "--no-autostart", "replay", *words, env=house.environment
    )


async def test_what_was_seen_is_played_by_name_and_by_file(
    house: Playhouse, recorded: Path
) -> None:
    """OB-06: byte for byte what the terminal got."""
    for name in ("build", "s-build", str(recorded)):
        told = await cli(house, name)
        assert (told.returncode, told.stdout) == (0, SHOWN + b"end"), told.stderr


async def test_the_recording_itself_is_exported(
    house: Playhouse, recorded: Path
) -> None:
    """OB-06: --raw prints an asciicast that others can play."""
    told = await cli(house, "build", "--raw")
    assert told.stdout == await asyncio.to_thread(recorded.read_bytes)
    first, *rest = [r for r in told.stdout.splitlines() if not r.startswith(b"#")]
    assert json.loads(first)["version"] == 3
    assert "".join(e[2] for e in map(json.loads, rest) if e[1] == "o").encode() == (
        SHOWN + b"end"
    )
    described = json.loads((await cli(house, "build", "--json")).stdout)
    assert described["files"] == [str(recorded)]
    assert (described["cols"], described["rows"]) == (80, 24)


async def test_its_pauses_are_kept_cut_and_divided(house: Playhouse) -> None:
    """OB-06: --speed and --idle."""
    file = house.root / "x.cast"
    lines: list[object] = [{"version": 3, "term": {"cols": 80, "rows": 24}}]
    lines += [[0.0, "o", "a"], [1.0, "o", "b"], [0.0, "x", "0"]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for words, least, most in (((), 1.0, 20.0), (("--speed", "1000"), 0.0, 20.0)):
        begun = time.monotonic()
        assert (await cli(house, str(file), *words)).stdout == b"ab"
        assert least <= time.monotonic() - begun < most
    lines[2] = [3600, "o", "b"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (await cli(house, str(file), "--idle", "0")).stdout == b"ab"


@pytest.mark.parametrize("way", ["q", "signal"])
async def test_a_person_pauses_and_leaves(house: Playhouse, way: str) -> None:
    """OB-06: the terminal is as before, whatever the recording set."""
    file = house.root / "x.cast"
    lines: list[object] = [{"version": 3, "term": {"cols": 200, "rows": 24}}]
    lines += [[0, "o", "\x1b[?1049h\x1b[?25lbig"], [3600, "o", "never"]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with sitting() as person:
        before = person.mode()
        command = (program("holdfast"), "replay", str(file))
        person.resize(80, 24)
        await person.run(*command, env=house.environment)
        await person.until("larger than this terminal")
        await person.until("big")
        assert person.mode() != before
        if way == "q":
            person.type(" q")
            assert await person.ended() == 0
        else:
            assert person.process is not None
            person.process.send_signal(signal.SIGQUIT)
            assert await person.ended() == 128 + signal.SIGQUIT
        await person.until(r"\x1b\[\?1049l\x1b\[\?25h")
        assert person.mode() == before


async def test_a_terminal_is_as_before_where_no_keys_are_read(house: Playhouse) -> None:
    """OB-06: stdin may be a list of recordings."""
    file = house.root / "x.cast"
    lines: list[object] = [{"version": 3, "term": {"cols": 80, "rows": 24}}]
    lines += [[0, "o", "\x1b[?1049h\x1b[?25lbig"]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with sitting() as person:
        words = ('exec "$@" </dev/null', "sh", program("holdfast"), "replay", str(file))
        await person.run("/bin/sh", "-c", *words, env=house.environment)
        await person.until("big")
        await person.until(r"\x1b\[\?1049l\x1b\[\?25h")
        assert await person.ended() == 0


async def test_what_can_not_be_played_is_told(house: Playhouse) -> None:
    for words, text in (
        (("nosuch",), b"there is no session nosuch"),
        (("build",), b"has no recording"),
        (("./nosuch.cast",), b"there is no file"),
    ):
        told = await cli(house, *words)
        assert told.returncode == 1
        assert text in told.stderr
        assert b"Traceback" not in told.stderr
    file = house.root / "bad.cast"
    file.write_text("hello\n")
    told = await cli(house, str(file))
    assert told.returncode == 1
    assert b"can't be played" in told.stderr
    file.write_text('{"version": 3}\n[0,"o","a"]\noops\n[0,"o","b"]\n')
    told = await cli(house, str(file))
    assert (told.returncode, told.stdout) == (1, b"a")
    assert b"line 3 is no event" in told.stderr
