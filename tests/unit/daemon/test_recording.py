from __future__ import annotations

import asyncio
import codecs
import errno
import json
import os
import stat
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.watch import soon
from holdfast_daemon.output.cast import Code
from holdfast_daemon.output.recording import Plan, Recording
from holdfast_daemon.output.screen import Screen
from holdfast_daemon.output.tape import Item, Tape
from holdfast_daemon.output.typed import Typed
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
MIB = KIB * KIB


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx("holdfast_daemon"):
        yield


def plan(directory: Path, **fields: Any) -> Plan:
    base = Plan(directory / "s1", "box", 4 * MIB, 4 * MIB)
    return replace(base, **fields)


def recording(directory: Path, *secrets: str, **fields: Any) -> Recording:
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    return Recording(plan(directory, **fields), redactor, cols=80, rows=24)


def read(text: str) -> tuple[dict[str, Any], list[list[Any]]]:
    """Parse an asciicast line by line, as its specification says."""
    first, *lines = text.split("\n")
    assert lines.pop() == "", "the last line is whole"
    events = [json.loads(line) for line in lines if not line.startswith("#")]
    for pause, code, data in events:
        assert isinstance(pause, float)
        assert pause >= 0
        assert code in {"o", "i", "r", "m", "x"}
        assert isinstance(data, str)
    return json.loads(first), events


async def text_of(path: Path) -> str:
    return await asyncio.to_thread(path.read_text)


def of(events: list[list[Any]], code: str) -> list[str]:
    return [data for _, kind, data in events if kind == code]


async def test_a_recording_is_an_asciicast_of_version_three(tmp_path: Path) -> None:
    """OB-06: header, intervals, every kind of event; and the text beside it, SE-16."""
    one = recording(tmp_path, title='prod "db"\n\x1b[31m')
    assert await one.begin() == 0
    one.output(b"$ ", 2)
    one.output(b"\x1b[32mgr\xc3", 9)
    one.output(b"\xbc\xc3\x9fe\x1b[0m \xff\r\n", 20)
    one.resized(100, 30)
    one.run_began("make test", "agent-1")
    one.beside(b"ok\nfine\n")
    one.run_ended("exit 3")
    one.output(b"$ exit\r\n", 28)
    one.exited(3)
    # Whoever closes it, it is written whole when that returns.
    await asyncio.gather(one.close(), one.close())
    header, events = read(await text_of(one.path))
    assert header["version"] == 3
    assert header["term"] == {"cols": 80, "rows": 24, "type": "xterm-256color"}
    assert header["title"] == 'prod "db"'
    assert isinstance(header["timestamp"], int)
    assert of(events, "r") == ["100x30"]
    assert of(events, "m") == ["agent-1: make test"]
    assert of(events, "x") == ["3"]
    assert events[-1][1] == "x"
    shown = "".join(of(events, "o"))
    assert "$ \x1b[32mgrüße\x1b[0m \ufffd\r\n" in shown
    assert "[agent-1] $ make test\r\nok\r\nfine\r\n[exit 3]\r\n" in shown
    assert await text_of(one.transcript_path) == (
        "$ grüße \ufffd\n\n[agent-1] $ make test\nok\nfine\n[exit 3]\n$ exit\n"
    )
    assert one.transcript_size_bytes == one.transcript_path.stat().st_size
    assert (one.fault, one.lost) == ("", 0)


async def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """SE-16: 0600 in 0700, whatever the umask."""
    before = os.umask(0)
    try:
        one = recording(tmp_path)
        one.output(b"secret things\r\n")
        await one.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(one.path.parent.stat().st_mode) == 0o700
    for path in (one.path, one.transcript_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_player_sees_what_was_shown(tmp_path: Path) -> None:
    """OB-06: the events give the same screen as the bytes did."""
    data = b"".join(b"\x1b[%d;%dH%d" % (n % 24, n % 80, n) for n in range(2000))
    one = recording(tmp_path)
    for start in range(0, len(data), 333):
        one.output(data[start : start + 333])
    await one.close()
    _, events = read(await text_of(one.path))
    played, fed = Screen(80, 24), Screen(80, 24)
    played.feed("".join(of(events, "o")).encode())
    fed.feed(data)
    assert played.picture() == fed.picture()


async def test_pauses_are_those_between_events(tmp_path: Path) -> None:
    """OB-06: relative, and their errors do not add up."""

    def write() -> None:
        tape = Tape(plan(tmp_path), Redactor(), cols=80, rows=24, begun=100.0)
        ats = [100 + number / 3 for number in range(3000)]
        items = [Item(at, Code.OUTPUT, b"x\r\n") for at in ats]
        tape.write(items, settle=True, now=2000)

    await asyncio.to_thread(write)
    _, events = read(await text_of(tmp_path / "s1" / "session.cast"))
    assert [round(pause, 2) for pause, _, _ in events[:3]] == [0, 0.33, 0.33]
    assert abs(sum(pause for pause, _, _ in events) - 2999 / 3) < 1e-4


@pytest.mark.parametrize("cut", range(1, 14))
async def test_a_secret_is_hidden_wherever_it_is_cut(tmp_path: Path, cut: int) -> None:
    """SC-05: in both files, in output of both kinds, in markers and keys."""
    secret = b"hunter2-secret"
    one = recording(tmp_path, secret.decode(), keys=True)
    one.output(b"the word is " + secret[:cut])
    one.output(secret[cut:] + b" yes\r\n")
    one.run_began(f"login {secret.decode()}", "agent")
    one.beside(secret + b"\n")
    one.typed(secret + b"\r")
    one.output(secret + b"\r\n")
    await one.close()
    cast, text = await text_of(one.path), await text_of(one.transcript_path)
    for found in (cast, text):
        assert secret.decode() not in found
        assert found.count("[redacted]") >= 4


async def test_a_private_key_is_hidden_whole(tmp_path: Path) -> None:
    """SC-05: although its lines come one by one."""
    one = recording(tmp_path)
    lines = [b"-----BEGIN OPENSSH PRIVATE KEY-----"]
    lines += [b"c2VjcmV0IGJ5dGVz%d" % number for number in range(20)]
    lines += [b"-----END OPENSSH PRIVATE KEY-----"]
    one.output(b"$ cat key\r\n")
    for line in lines:
        one.output(line + b"\r\n")
        await one.sync()
    one.output(b"$ ")
    await one.close()
    for path in (one.path, one.transcript_path):
        found = await text_of(path)
        assert "c2VjcmV0" not in found
        assert "[redacted]" in found
        assert "$ cat key" in found


async def test_a_private_key_that_comes_slowly_is_hidden_too(tmp_path: Path) -> None:
    """SC-05: although the terminal rests between its lines."""

    def write() -> None:
        tape = Tape(plan(tmp_path), Redactor(), cols=80, rows=24, begun=0)
        lines = [b"-----BEGIN EC PRIVATE KEY-----", *[b"c2VjcmV0"] * 5]
        for line in (*lines, b"-----END EC PRIVATE KEY-----"):
            tape.write([Item(1, Code.OUTPUT, line + b"\r\n")], settle=False, now=1)
            tape.write([], settle=True, now=2)
        tape.finish([], now=3)

    await asyncio.to_thread(write)
    found = await text_of(tmp_path / "s1" / "session.cast")
    assert "c2VjcmV0" not in found
    assert "[redacted]" in found


async def test_a_prompt_is_written_although_its_line_has_no_end(tmp_path: Path) -> None:
    """OB-04: who follows sees it."""
    one = recording(tmp_path)
    one.output(b"Continue? [y/n] ")
    await soon(one.path.exists, "a recording")
    await soon(lambda: "Continue?" in one.path.read_text(), "the prompt")
    await one.close()


async def test_keys_are_not_recorded_unless_asked_for(tmp_path: Path) -> None:
    """OB-06: input only where asked."""
    one = recording(tmp_path)
    one.typed(b"ls\r")
    one.output(b"ls\r\n")
    await one.close()
    _, events = read(await text_of(one.path))
    assert of(events, "i") == []


PROMPTS = [
    b"[sudo] password for me: ",
    b"Password: ",
    b"Kennwort: ",
    b"Enter passphrase for key '/k': ",
    b"Verification code: ",
    b"(current) UNIX password: ",
    b"PIN> ",
    b"? ",
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=bytes.decode)
@pytest.mark.parametrize("word", [b"root", b"s3cret-word", b"a", b"two words"])
async def test_what_is_typed_unseen_is_never_recorded(
    tmp_path: Path, prompt: bytes, word: bytes
) -> None:
    """OB-06: at a prompt that does not echo, whole or key by key."""
    one = recording(tmp_path, keys=True)
    one.output(b"$ ")
    for typed in (b"su\r",):
        one.typed(typed)
        one.output(b"su\r\n" + prompt)
    await one.sync()
    for byte in word:
        one.typed(bytes([byte]))
    one.typed(b"\r")
    await one.sync()
    one.output(b"\r\nroot@box: a two words s3cret-word # ")
    await one.sync()
    one.typed(b"id\r")
    one.output(b"id\r\nuid=0\r\n")
    await one.close()
    _, events = read(await text_of(one.path))
    keys = "".join(of(events, "i"))
    assert word.decode() not in keys
    assert keys in ("su\r\rid\r", "su\rid\r")


def test_keys_that_were_echoed_are_given_out() -> None:
    typed = Typed()
    typed.show(b"$ ")
    typed.type("echo one two\r", 0)
    assert typed.seen(0) == []
    typed.show(b"echo one")
    typed.show(b" two\r\none two\r\n$ ")
    assert typed.seen(0) == ["echo one two\r"]
    typed.type("\x1b[A\x03", 1)
    assert typed.seen(1) == ["\x1b[A\x03"]
    typed.type("x", 2)
    assert typed.seen(3) == []
    assert typed.seen(10) == []
    typed.show(b"x")
    assert typed.seen(11) == []


def test_keys_that_nobody_echoes_take_no_memory() -> None:
    typed = Typed()
    tracemalloc.start()
    for number in range(2000):
        typed.type("k" * 4000, 0)
        typed.show(b"o" * 4000)
        if number % 100 == 0:
            typed.seen(0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * MIB


async def test_a_new_daemon_goes_on_with_the_recording(tmp_path: Path) -> None:
    """SE-16, OB-06: told how far it came; a torn line is taken away."""
    one = recording(tmp_path)
    await one.begin()
    one.output(b"first\r\nsecond\r\nunfin", 20)
    await one.sync()
    with one.path.open("ab") as file:
        file.write(b'[0.5, "o", "to')
    later = recording(tmp_path)
    assert await later.begin() == 15
    later.output(b"unfinished\r\n", 27)
    await later.close()
    _, events = read(await text_of(one.path))
    shown = "".join(of(events, "o"))
    assert shown == "first\r\nsecond\r\nunfinished\r\n"
    assert of(events, "r") == ["80x24"]
    last = recording(tmp_path)
    assert await last.begin() == 27
    await last.close()


async def test_a_recording_that_was_torn_in_its_first_line_begins_anew(
    tmp_path: Path,
) -> None:
    """OB-06: a player needs the header."""
    one = recording(tmp_path)
    one.path.parent.mkdir(mode=0o700)
    one.path.write_text('{"version": 3, "te')
    assert await one.begin() == 0
    one.output(b"text\r\n")
    await one.close()
    header, events = read(await text_of(one.path))
    assert header["version"] == 3
    assert of(events, "o") == ["text\r\n"]


async def test_a_recording_has_an_end_and_starts_over(tmp_path: Path) -> None:
    """OB-06: recording_bytes, transcript_bytes; each half plays by itself."""
    limit = 256 * KIB
    one = recording(tmp_path, recording_bytes=limit, transcript_bytes=limit)
    for number in range(40):
        one.output(b"line %05d \x1b[31m\x00\xff\r\n" % number * 1000)
        await one.sync()
    one.output(b"the last line\r\n")
    await one.close()
    for path in (one.path, one.transcript_path):
        older = path.with_suffix(f".1{path.suffix}")
        assert stat.S_IMODE(older.stat().st_mode) == 0o600
        assert path.stat().st_size + older.stat().st_size <= limit
        assert path.stat().st_size + older.stat().st_size > limit // 4
    assert "the last line" in await text_of(one.path)
    assert (await text_of(one.transcript_path)).endswith("the last line\n")
    for path in (one.path, one.path.with_suffix(".1.cast")):
        header, events = read(await text_of(path))
        assert header["version"] == 3
        assert events


async def test_a_flood_is_left_out_and_told(tmp_path: Path) -> None:
    """NF-09: 100 MB at once take no memory, and what is missing is said."""
    one = recording(tmp_path)
    data = b"y\r\n" * 20_000
    tracemalloc.start()
    for _ in range(100_000_000 // len(data)):
        one.output(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * MIB
    await one.sync()
    one.output(b"after\r\n")
    await one.close()
    assert one.lost > 90_000_000
    _, events = read(await text_of(one.path))
    assert any("not recorded: it came too fast" in text for text in of(events, "m"))
    assert "after\r\n" in of(events, "o")


async def test_a_full_disk_is_told_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OB-06: nothing torn, nothing raised; it goes on when there is room."""
    one = recording(tmp_path)
    one.output(b"before\r\n")
    await one.sync()
    room = 10
    write = os.write

    def full(file: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(room, len(data))
        room -= taken
        return write(file, data[:taken])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        one.output(b"lost\r\n")
        await one.sync()
        assert "No space left" in one.fault
        assert one.lost == 6
        one.output(b"lost too\r\n")
        await one.sync()
    one.output(b"again\r\n")
    await one.sync()
    assert one.fault == ""
    one.output(b"and on\r\n")
    await one.close()
    _, events = read(await text_of(one.path))
    shown = "".join(of(events, "o"))
    assert shown == "before\r\nagain\r\nand on\r\n"
    assert any("No space left" in text for text in of(events, "m"))


async def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """SE-16: nor is anything that is no file."""
    target = tmp_path / "target"
    one = recording(tmp_path)
    one.path.parent.mkdir()
    one.path.symlink_to(target)
    one.transcript_path.mkdir()
    await one.begin()
    one.output(b"text\r\n")
    await one.close()
    assert one.fault
    assert not await asyncio.to_thread(target.exists)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([b"\r\n", b"\xc3", b"\xa9", b"\x1b[", b"31m", b"tok_abcd"]),
        ),
        max_size=20,
    )
)
def test_any_bytes_are_recorded_as_a_player_reads_them(pieces: list[bytes]) -> None:
    """OB-06: whatever it is, the file can be parsed and shows the same."""
    with tempfile.TemporaryDirectory() as directory:
        tape = Tape(plan(Path(directory)), Redactor(), cols=80, rows=24, begun=0)
        tape.finish([Item(1, Code.OUTPUT, piece) for piece in pieces], now=2)
        path = Path(directory) / "s1" / "session.cast"
        if not path.exists():
            return
        _, events = read(path.read_text())
    shown = "".join(of(events, "o"))
    expected = codecs.getincrementaldecoder("utf-8")("replace")
    wanted = "".join(expected.decode(piece) for piece in pieces)
    assert shown == Redactor().clean(wanted) or "[redacted]" in shown
