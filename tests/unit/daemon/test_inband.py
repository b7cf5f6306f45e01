"""Commands framed within a terminal's stream, at whatever bytes that is cut."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import pytest

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import InputError
from holdfast_daemon.session.inband import Asker, Framer

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.kept.wrapper import Family
    from holdfast_daemon.streams import Stream

FAMILIES: tuple[Family, ...] = ("bash", "zsh", "sh", "fish", "")


class Spool:
    """Takes what is printed."""

    def __init__(self) -> None:
        self.data = b""

    def append(self, stream: Stream, data: bytes) -> None:
        """Keep it."""
        assert stream.name == "OUT"
        self.data += data


class Asked:
    """As much of a job as a framer needs."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.notes: list[str] = []

    def add_note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def framer(family: Family = "sh") -> tuple[Framer, Asked, bytes, bytes]:
    """Return one, its job, and its two marks."""
    asked = Asked()
    one = Framer(cast("Job", asked), family)
    words = one.words("true").decode()
    marks = re.findall(r"\b([0-9a-f]{8}) ([0-9a-f]{8})\b", words)
    begin, end = dict.fromkeys(marks)
    if family in {"bash", "fish"}:
        begin, end = end, begin
    return one, asked, "".join(begin).encode(), "".join(end).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
async def test_its_output_comes_out_exactly(size: int, newline: bytes) -> None:
    """SE-02: what is before and behind it is the terminal's own."""
    one, asked, begin, end = framer()
    printed = b"a\r\nb\n\rc\r\r\n" + begin[:9] + b"\n" + end + b"\xff\n\n" + end[:15]
    shown = printed.replace(b"\n", newline)
    before, behind = b"$  eval x\r\n" + begin[:8], b"$ "
    ending = end + b":3:/a:b" + b":" + newline
    stream = before + begin + newline + shown + ending + behind
    own = b"".join(
        one.feed(stream[at : at + size]) for at in range(0, len(stream), size)
    )
    told = await one.ended()
    assert told == (await one.ended())
    assert (told.end, told.cwd) == (ChannelEnd(exit_code=3), "/a:b")
    assert own == before + behind
    assert asked.spool.data == printed
    assert "stderr came with stdout" in asked.notes[0]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (b"^C?\r\n\r\n# ", b"out\n"),
        (b"^C\r\n# ?\r\n", b"out\n"),
        (b"^C?\r\ncleaned up\r\n\r\n# ", b"out\ncleaned up\n"),
        (b"^C?\r\n\r\n# ?\r\n", b"out\n"),
        (b"more^C\r\n", b"out\nmore"),
        (b"", b"out\n"),
    ],
)
async def test_one_that_is_broken_off_shows_no_key_and_no_question(
    shown: bytes, printed: bytes
) -> None:
    """SE-14: nor when it was broken off before it began."""
    one, asked, begin, end = framer()
    one.feed(begin + b"\r\nout\r\n")
    one.break_off()
    asking = one.asking().rstrip(b"\n")
    one.feed(shown.replace(b"?", asking) + end + b":130:/:\r\n$ ")
    assert (await one.ended()).end == ChannelEnd(exit_code=130)
    assert asked.spool.data == printed
    one, asked, _, end = framer()
    assert one.feed(b"$ " + end + b":130:/:\r\n$ ") == b"$ $ "
    assert (await one.ended()).end == ChannelEnd(exit_code=130)


async def test_the_end_of_its_shell_ends_it() -> None:
    """SE-11: with all that came until then, and no code but the shell's."""
    one, asked, begin, end = framer()
    one.feed(begin + b"\r\nout\r\n" + end[:10])
    one.lost(ChannelEnd(exit_code=4))
    assert (await one.ended()).end == ChannelEnd(exit_code=4)
    assert asked.spool.data == b"out\n" + end[:10]
    assert "shell ended" in asked.notes[0]
    assert one.feed(b"more") == b"more"


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_is_typed_is_safe_to_type(family: Family) -> None:
    """SE-02: short lines of plain letters, without the marks in one piece."""
    one, _, begin, end = framer(family)
    odd = "echo 'a\tb' \"$x\" !x \\ é\n" * 200
    typed = one.words(odd)
    assert begin not in typed
    assert end not in typed
    for line in typed.splitlines():
        assert line.startswith(b" ")
        assert len(line) < 4000
    assert set(typed) <= {10, *range(32, 127)}


async def test_what_cannot_be_typed_is_refused() -> None:
    """SE-02: nothing of it is typed then."""
    one, *_ = framer()
    with pytest.raises(InputError, match="NUL"):
        one.words("a\0b")
    with pytest.raises(InputError, match="can be typed"):
        one.words("x" * 200_000)


@pytest.mark.parametrize(
    ("versions", "family"),
    [("5.2:::", "bash"), (":5.9::", "zsh"), ("::3.6:", "fish"), (":::", "sh")],
)
async def test_a_shell_says_what_it_is(versions: str, family: str) -> None:
    """SE-02: and the echo of the question is no answer."""
    asker = Asker()
    words = asker.words.decode()
    assert asker.feed(words.encode()) == words.encode()
    assert not asker.told.done()
    found = re.search(r"echo (\w+)'(\w+)':", words)
    assert found is not None
    for byte in f"{found[1]}{found[2]}:{versions}\r\n".encode():
        asker.feed(bytes([byte]))
    assert asker.told.result() == family
