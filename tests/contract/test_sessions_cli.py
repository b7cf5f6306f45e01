"""`holdfast sessions`: what is open, what lies on a host, and shell completion."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from fakes import forked
from fakes.nursery import CLI
from fakes.playhouse import Playhouse
from holdfast_daemon.errors import LinkError, Reason
from holdfast_daemon.kept.standing import Standing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[Playhouse]:
    async with Playhouse(short_path) as one:
        await one.open("build")
        other: dict[str, Any] = {
            "kind": "script",
            "size": 2048,
            "owner": "other@laptop",
        }
        early, late = "2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z"
        for thing in (
            Standing("s1", "running", name="build", at=early, **other),
            Standing("s2", "exited", exit_code=3, at=late, **other),
            Standing("j3", "lost", why="host_restarted", command="a\x1b[2J", at=early),
        ):
            one.store.things[thing.ident] = thing
        yield one


async def cli(
    house: Playhouse, *words: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(
        forked.run,
        CLI,
        "--no-autostart",
        *words,
        env={**house.environment, **environment},
    )


async def test_sessions_are_listed_for_people_and_programs(house: Playhouse) -> None:
    told = await cli(house, "sessions")
    assert told.returncode == 0
    assert b"SESSION" in told.stdout
    assert b"build" in told.stdout
    listed = json.loads((await cli(house, "sessions", "--json")).stdout)
    assert [one["session_name"] for one in listed["sessions"]] == ["build"]


async def test_what_lies_on_a_host_is_listed_newest_first(house: Playhouse) -> None:
    """NF-09: whichever daemon made it."""
    told = await cli(house, "sessions", "--on", "web1")
    text = told.stdout.decode()
    assert told.returncode == 0
    assert text.index("s2") < text.index("s1")
    for wanted in ("other@laptop", "exit 3", "lost", "a\\x1b[2J", "2.0 KiB"):
        assert wanted in text
    listed = json.loads((await cli(house, "sessions", "--on", "web1", "--json")).stdout)
    assert [one["kind"] for one in listed["kept"]] == ["session", "session", "job"]
    assert "exit_code" not in listed["kept"][1]
    assert listed["kept"][2]["why"] == "host_restarted"


async def test_what_was_named_is_wiped_and_what_runs_is_left(house: Playhouse) -> None:
    """What runs goes only by --force, which ends it first."""
    told = await cli(house, "sessions", "--on", "web1", "--wipe", "s2", "--wipe", "s1")
    assert told.returncode == 1
    assert b"s1 (build) still runs and is left: --force ends it" in told.stderr
    assert set(house.store.things) == {"s1", "j3"}
    told = await cli(house, "sessions", "--on", "web1", "--wipe", "s1", "--wipe", "s9")
    assert told.returncode == 1
    assert b"s9 is not kept on web1; nothing was removed" in told.stderr
    told = await cli(house, "sessions", "--on", "web1", "--wipe-all", "--force")
    assert (told.returncode, told.stdout) == (0, b"2 are removed from web1\n")
    assert house.store.ended == ["s1"]
    assert not house.store.things
    told = await cli(house, "sessions", "--on", "web1")
    assert (told.returncode, told.stdout) == (0, b"")
    assert told.stderr == b"holdfast: nothing is kept on web1\n"
    assert "s1" in json.dumps(await house.records())


async def test_what_was_wiped_before_it_broke_off_is_on_record(
    house: Playhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OB-01: what is gone is gone, whatever came after it."""
    wipe = house.store.wipe

    async def breaks(ident: str) -> None:
        if ident == "s1":
            raise LinkError(Reason.CONNECTION_LOST, "the host is gone")
        await wipe(ident)

    monkeypatch.setattr(house.store, "wipe", breaks)
    told = await cli(house, "sessions", "--on", "web1", "--wipe-all", "--force")
    assert (told.returncode, told.stdout) == (1, b"")
    gone = {"s1", "s2", "j3"} - set(house.store.things)
    assert gone
    (end,) = [one for one in await house.records() if one["phase"] == "end"]
    assert (end["result"], set(end["metadata"]["wiped"])) == ("error", gone)


@pytest.mark.parametrize(
    "words",
    [
        ["--wipe", "s1"],
        ["--wipe-all"],
        ["--force"],
        ["--on", "web1", "--all"],
        ["--on", "web1", "--close", "x"],
        ["--on", "web1", "--wipe", "s1", "--wipe-all"],
        ["web1", "--close", "x"],
    ],
)
async def test_what_does_not_go_together_is_refused(
    house: Playhouse, words: list[str]
) -> None:
    told = await cli(house, "sessions", *words)
    assert told.returncode == 2
    assert b"Traceback" not in told.stderr
    assert len(house.store.things) == 3


@pytest.mark.parametrize("verb", ["attach", "replay"])
async def test_the_shell_completes_names_of_sessions(
    house: Playhouse, verb: str
) -> None:
    told = await cli(
        house,
        _HOLDFAST_COMPLETE="bash_complete",
        COMP_WORDS=f"holdfast --socket {house.socket} {verb} b",
        COMP_CWORD="4",
    )
    assert told.stdout.split() == [b"plain,build"]


async def test_each_verb_has_its_help(house: Playhouse) -> None:
    for verb, wanted in (
        ("shell", b"--durability"),
        ("attach", b"--watch"),
        ("sessions", b"--wipe-all"),
        ("replay", b"--speed"),
    ):
        told = await cli(house, verb, "--help")
        assert told.returncode == 0
        assert wanted in told.stdout
        assert verb.encode() in (await cli(house, "--help")).stdout
    told = await cli(house, "shell", "web1")
    assert told.returncode == 2
    assert b"--detached only opens it" in told.stderr
