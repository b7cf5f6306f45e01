"""`holdfast attach` on a real terminal: a real shell, the real servicer, no SSH."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from fakes import forked
from fakes.nursery import CLI
from fakes.playhouse import Playhouse, Stage
from fakes.terminal import Terminal, sitting
from fakes.world import program
from holdfast_daemon.exec.job import Status
from holdfast_daemon.session.frame import (
    Away,
    Back,
    KeyboardChanged,
    RunBegan,
    RunEnded,
    RunPrinted,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1024 * 1024


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[Playhouse]:
    async with Playhouse(short_path) as one:
        yield one


@pytest.fixture
async def stage(house: Playhouse) -> Stage:
    return await house.open("build")


async def attach(house: Playhouse, person: Terminal, *words: str) -> None:
    """Attach and return when the keyboard is the person's, or they watch."""
    await begin(house, person, *words)
    await person.until(r"(attached to|watching) session \S+ on me@web1")
    await person.until(r"(leave with|no keys leave it)[^\r]*\r\n")


async def begin(house: Playhouse, person: Terminal, *words: str) -> None:
    await person.run(
        program("holdfast"), "--no-autostart", "attach", *words, env=house.environment
    )


async def test_one_types_sees_leaves_and_comes_back(
    house: Playhouse, stage: Stage
) -> None:
    """NF-05: it goes on, and is drawn as it stands; the terminal is set back."""
    async with sitting() as person:
        before = person.mode()
        await attach(house, person, "build")
        person.type("x=kept; echo a-$x\r")
        await person.until(r"\r\na-kept\r\n\$ ")
        person.type("\r~.")
        await person.until("left session build; it goes on")
        assert await person.ended() == 0
        assert person.mode() == before
    assert not stage.keyboard.client
    async with sitting() as person:
        await attach(house, person, "s-build")
        await person.until("a-kept")
        person.type("echo b-$x\r")
        await person.until(r"\r\nb-kept\r\n")
        person.type("exit 7\r")
        await person.until("session s-build ended: exit 7")
        assert await person.ended() == 7
    ends = [r for r in await house.records() if r["phase"] == "end"]
    assert [r["event_type"] for r in ends] == ["session", "session"]
    assert ends[0]["metadata"]["session_id"] == "s-build"
    assert ends[0]["metadata"]["bytes_typed"] > 0
    assert not any("kept" in json.dumps(r) for r in await house.records())


async def test_the_size_is_that_of_the_terminal(house: Playhouse, stage: Stage) -> None:
    """SE-20, NF-05: from the start, and when it changes."""
    async with sitting() as person:
        person.resize(101, 31)
        await attach(house, person, "build")
        person.type("stty size\r")
        await person.until("31 101")
        person.resize(77, 22)
        await stage.until(lambda: stage.cols == 77)
        person.type("stty size\r")
        await person.until("22 77")


async def test_two_take_part_and_who_types_has_the_keyboard(
    house: Playhouse, stage: Stage
) -> None:
    """NF-05, NF-04: several at once; each is told who has it."""
    async with sitting() as one, sitting() as two:
        await attach(house, one, "build")
        await attach(house, two, "build")
        await one.until(r"cli/\S+ has the keyboard")
        two.type("echo from-$((1+1))\r")
        await one.until("from-2")
        await two.until("from-2")
        one.type("echo from-$((0+1))\r")
        await two.until(r"cli/\S+ has the keyboard")
        await two.until("from-1")
        await one.until("from-1")
        # Each terminal answers what a program asks; only one answer is meant.
        one.type("printf '\\033[6n'; read x\r")
        await two.until(r"\x1b\[6n")
        two.type("\x1b[5;5R")
        one.type("\x1b[5;5R\r")
        await stage.until(lambda: stage.typed.endswith(b"R\r"))
        assert stage.typed.count(b"\x1b[5;5R") == 1
        two.type("x")
        await one.until(r"cli/\S+ has the keyboard")
        two.type("\r~.")
        assert await two.ended() == 0
        await one.until("you have the keyboard")
        one.type("\r~.")
        assert await one.ended() == 0


async def test_who_watches_sees_and_cannot_type(house: Playhouse, stage: Stage) -> None:
    """NF-05: --watch takes neither keyboard nor size."""
    async with sitting() as one, sitting() as watcher:
        await attach(house, one, "build")
        holder = stage.keyboard
        watcher.resize(33, 11)
        await attach(house, watcher, "build", "--watch")
        watcher.type("echo never\r")
        one.type("echo sh''own\r")
        await watcher.until(r"\r\nshown\r\n")
        assert stage.keyboard == holder
        assert b"never" not in stage.typed
        assert stage.cols != 33
        watcher.type("\x1bP1$r0 q\x1b\\")  # its terminal, not the person
        one.type("echo sti''ll\r")
        await watcher.until(r"\r\nstill\r\n")
        watcher.type("q")
        assert await watcher.ended() == 0


async def test_what_an_agent_runs_is_seen_between_the_shells_own_lines(
    house: Playhouse, stage: Stage
) -> None:
    """NF-05: command, output and exit; nothing in it acts on the terminal."""
    async with sitting() as person:
        await attach(house, person, "build", "--watch")
        await stage.tell(KeyboardChanged("claude/2", "agent", "2026-11-21T08:00:00Z"))
        await person.until("claude/2 has the keyboard")
        await stage.tell(RunBegan("j1", "claude/2", "make\x1b[2J test"))
        await person.until(r"claude/2 runs: make\\x1b\[2J test")
        await stage.tell(RunPrinted("j1", "ü\nb".encode()[:1]))
        await stage.tell(RunPrinted("j1", "ü\nb".encode()[1:]))
        await person.until("ü\r\nb")
        await stage.tell(RunPrinted("j1", b"\x1b]0;t\x07oops\n", error=True))
        await person.until(r"\\x1b\]0;t\\x07oops\r\n")
        await stage.tell(RunEnded("j1", Status.EXITED, exit_code=2))
        await person.until("── exit 2 ──")
        await stage.tell(RunBegan("j2", "claude/2", "sleep 9"))
        await stage.tell(RunEnded("j2", Status.LOST, note="the link was lost"))
        await person.until(r"── lost \(the link was lost\) ──")
        await stage.tell(Away("the host does not answer"))
        await person.until("the host does not answer")
        await stage.tell(Back())
        await person.until("the host is back")
        assert b"\x1b[2J" not in person.said


async def test_a_full_screen_program_is_drawn_and_not_written_over(
    house: Playhouse, stage: Stage
) -> None:
    """SE-20, NF-05: what others do is told when it has gone."""
    async with sitting() as person:
        await attach(house, person, "build")
        person.type(
            "printf '\\033[?1049h\\033[5;5Hfull'; read x; printf '\\033[?1049l'\r"
        )
        await person.until(r"\x1b\[5;5Hfull")
        person.type("\r~.")
        assert await person.ended() == 0
        assert b"\x1b[?1049l" in await rest(person)
    await stage.until(lambda: stage.output.endswith(b"\x1b[?1049l$ "))


async def test_keys_and_cursor_are_set_back_as_an_editor_left_them(
    house: Playhouse, stage: Stage
) -> None:
    """SE-20: or Ctrl-C would print `27;5;99~` in the person's own shell."""
    editor = (
        r"printf '\033[>1u\033[?1049h\033[>5u\033[>1u\033[<u'; printf '\033[=3;1u';"
        r" printf '\033[>4;2m\033[6 q\033[?2048h\033[?2026h%s' re''ady; read x"
    )
    async with sitting() as person:
        await attach(house, person, "build")
        person.type(editor + "\r")
        await person.until("2026hready")
        person.type("\r~.")
        assert await person.ended() == 0
        shown = await rest(person)
    undone = shown[shown.rindex(b"ready") :]
    # both screens have keys of their own
    first, left, second = undone.partition(b"\x1b[?1049l")
    assert left
    assert b"\x1b[<1u\x1b[=0u" in first
    assert b"\x1b[<1u" in second
    for back in (b"[>4m", b"[0 q", b"[?2048l", b"[?2026l", b"(B"):
        assert b"\x1b" + back in undone
    async with sitting() as person:
        await attach(house, person, "build")
        person.type("~.")
        assert await person.ended() == 0
        shown = await rest(person)
    for back in (b"u\x1b", b"[>4m", b"[0 q"):
        assert back not in shown


async def test_who_watches_with_no_stdin_finds_the_terminal_as_it_was(
    house: Playhouse, stage: Stage
) -> None:
    """NF-05: as in `while read S; do holdfast attach --watch "$S"; done <names`."""
    await stage.feed(b"printf '\\033[?1049h\\033[?25lfu''ll'; read x; exit 3\n")
    await stage.until(lambda: stage.output.endswith(b"full"))
    async with sitting() as person:
        line = 'exec "$@" </dev/null'
        words = (program("holdfast"), "--no-autostart", "attach", "--watch", "build")
        await person.run("/bin/sh", "-c", line, "sh", *words, env=house.environment)
        await person.until(r"\x1b\[\?1049h")
        await person.until("full")
        await stage.feed(b"\n")
        await person.until(r"\x1b\[\?1049l\x1b\[\?25h")
        await person.until("ended: exit 3")
        assert await person.ended() == 3


async def test_a_terminal_that_was_reset_shows_again_what_happens(
    house: Playhouse, stage: Stage
) -> None:
    """NF-05: after a full-screen program was killed, and `reset` typed."""
    async with sitting() as person:
        await attach(house, person, "build")
        person.type("printf '\\033[?1049h'; printf '\\033c%s\\n' pla''in\r")
        await person.until("plain")
        await stage.tell(RunBegan("j9", "claude/2", "true"))
        await person.until("claude/2 runs: true")


async def test_what_happens_in_a_full_screen_is_told_after_it(
    house: Playhouse, stage: Stage
) -> None:
    """NF-05: nothing is written over the screen of a program."""
    async with sitting() as person:
        await attach(house, person, "build")
        script = (
            r"printf '\033[?1049h'; read x; printf up$x; read x; printf '\033[?1049l'"
        )
        person.type(script + "\r")
        await person.until(r"\r\n\x1b\[\?1049h")
        await stage.tell(RunBegan("j9", "claude/2", "true"))
        person.type("date\r")
        await person.until("update")
        assert b"claude/2 runs" not in person.said
        person.type("\r")
        await person.until(r"\x1b\[\?1049l")
        await person.until("claude/2 runs: true")


async def rest(person: Terminal) -> bytes:
    await person.until("it goes on")
    return person.said


async def test_a_full_screen_that_stands_is_drawn_on_the_alternate_screen(
    house: Playhouse, stage: Stage
) -> None:
    async with sitting() as person:
        await attach(house, person, "build")
        person.type("printf '\\033[?1049h\\033[5;5H%s' fu''ll; read x\r")
        await person.until("full")
        await stage.tell(RunBegan("j9", "claude/2", "true"))
        person.type("x~.")  # not at the start of a line: for the program
        await stage.until(lambda: stage.output.endswith(b"fullx~."))
    async with sitting() as person:
        await begin(house, person, "build", "--detach-keys", "ctrl-],d")
        await person.until(r"leave with Ctrl-\] d")
        await person.until(r"\x1b\[\?1049h")
        await person.until(r"fullx~\.")
        assert b"claude/2 runs" not in person.said
        person.type("\x1dd")
        await person.until(r"\x1b\[\?1049l")
        assert await person.ended() == 0


async def test_bytes_pass_exactly_both_ways(house: Playhouse, short_path: Path) -> None:
    """NF-05: UTF-8, every control byte, and a paste of 1 MiB."""
    got = short_path / "got"
    stage = await house.open(
        "raw", "sh", "-c", f"stty raw -echo; echo ready; cat >{got}"
    )
    keys = bytes(range(256)) + "päste 漢字\n~x".encode()
    paste = os.urandom(MIB - len(keys)).replace(b"~", b"-") + keys
    async with sitting(seconds=30) as person:
        await attach(house, person, "raw", "--detach-keys", "none")
        await person.until("ready")
        await person.paste(paste)
        await stage.until(lambda: len(stage.typed) == len(paste))
        assert stage.typed == paste
        assert person.process is not None
        person.process.send_signal(signal.SIGTERM)
        assert await person.ended() == 128 + signal.SIGTERM
    shown = os.urandom(MIB // 4) + b"the end"
    file = short_path / "shown"
    file.write_bytes(shown)
    await house.open("out", "sh", "-c", f"stty raw -echo; read x; cat {file}; read x")
    async with sitting(seconds=30) as person:
        await attach(house, person, "out", "--detach-keys", "none")
        person.type("\n")
        await person.until("the end")
        assert person.said.endswith(shown)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]
)
async def test_a_signal_leaves_and_sets_the_terminal_back(
    house: Playhouse, stage: Stage, number: signal.Signals
) -> None:
    async with sitting() as person:
        before = person.mode()
        await attach(house, person, "build")
        await stage.until(lambda: bool(stage.keyboard.client))
        person.type("printf '\\033[?25l\\033[?2004h'; echo ok\r")
        await person.until("2004hok")
        assert person.mode() != before
        assert person.process is not None
        person.process.send_signal(number)
        assert await person.ended() == 128 + number
        await person.until("it goes on")
        assert b"\x1b[?25h" in person.said
        assert b"\x1b[?2004l" in person.said
        assert person.mode() == before
    await stage.until(lambda: not stage.keyboard.client)
    assert stage.running


@pytest.mark.timed
@pytest.mark.parametrize("how", ["kill", "window"])
async def test_a_terminal_that_dies_frees_the_keyboard(
    house: Playhouse, stage: Stage, how: str
) -> None:
    """SE-14, NF-04: within 2 s, also after SIGKILL."""
    async with sitting() as person:
        await attach(house, person, "build")
        await stage.until(lambda: bool(stage.keyboard.client))
        assert person.process is not None
        if how == "kill":
            person.process.kill()
        else:
            person.hang_up()
        async with asyncio.timeout(2):
            await stage.until(lambda: not stage.keyboard.client)
        await person.process.wait()
    assert stage.running


async def test_a_daemon_that_goes_is_told_and_the_terminal_set_back(
    house: Playhouse, stage: Stage
) -> None:
    async with sitting() as person:
        before = person.mode()
        await attach(house, person, "build")
        person.type("echo up\r")
        await person.until(r"\r\nup\r\n")
        await house.stop()
        await person.until("the holdfast daemon has gone; the session may go on")
        await person.until("holdfast attach build")
        assert await person.ended() == 255
        assert person.mode() == before


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [("exit 3", 3, "exit 3"), ("kill -TERM $$", 143, "signal TERM")],
)
async def test_a_session_that_ends_tells_its_code(
    house: Playhouse, how: str, code: int, told: str
) -> None:
    await house.open("short", "sh", "-c", f"read x; {how}")
    async with sitting() as person:
        await attach(house, person, "short")
        person.type("\r")
        await person.until(f"session short ended: {told}")
        assert await person.ended() == code


async def cli(
    house: Playhouse, *words: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(
        forked.run,
        CLI,
        "--no-autostart",
        *words,
        env=house.environment,
        given=stdin,
    )


async def test_without_a_terminal_it_is_refused_with_the_way_out(
    house: Playhouse, stage: Stage
) -> None:
    told = await cli(house, "attach", "build", stdin=b"rm -rf /\n")
    assert told.returncode == 2
    assert b"must be a terminal" in told.stderr
    assert b"--watch" in told.stderr
    assert stage.typed == b""
    assert (await cli(house, "attach", "nosuch", "--watch")).returncode == 255
    told = await cli(house, "attach", "build", "--watch", "--detach-keys", "ctrl-")
    assert told.returncode == 2
    assert b"is no key" in told.stderr


async def test_a_program_may_watch(house: Playhouse) -> None:
    """JSON lines, the exit code of the shell; bytes as they are without --json."""
    stage = await house.open("script", "sh", "-c", "read x; echo hällo; exit 4")
    watching = asyncio.create_task(cli(house, "attach", "script", "--json"))
    plain = asyncio.create_task(cli(house, "attach", "script", "--watch"))
    for _ in range(2):
        await stage.watching.acquire()
    await stage.feed(b"\n")
    told = await watching
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert lines[0]["event"] == "attached"
    assert lines[0]["session_name"] == "script"
    assert "hällo" in "".join(line.get("text", "") for line in lines)
    assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("end", 4)
    assert told.returncode == 4
    seen = await plain
    assert "hällo\r\n".encode() in seen.stdout
    assert seen.returncode == 4
