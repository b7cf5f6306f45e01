"""Real programs at a real terminal, and what tmux says that a terminal shows."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import unicodedata
from typing import TYPE_CHECKING

import pytest

from fakes.programs import DIALOG, Program
from holdfast_daemon.output.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

COLS, ROWS = 40, 12


def env(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "LESSHISTFILE": "-",
        "PS1": "$ ",
    }


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed"
    )


@needs("vim")
async def test_vim_edits_and_saves_a_file(tmp_path: Path) -> None:
    """SE-20: the screen shows what vim shows, and the lines from before after it."""
    file = tmp_path / "note.txt"
    file.write_text("first line\nsecond line\n")
    with Program("sh", cols=60, rows=15).start(env(tmp_path), tmp_path) as one:
        await one.shows(lambda picture: picture.text.endswith("$"))
        one.type("vim -u NONE -N note.txt\r")
        picture = await one.shows(lambda picture: picture.lines[2] == "~")
        assert picture.alternate
        assert picture.lines[:2] == ("first line", "second line")
        one.type("Go")
        await one.shows(lambda picture: picture.row == 3)
        one.type("third: grüße 日本\x1b")
        picture = await one.shows(lambda picture: "日本" in picture.lines[2])
        assert picture.lines[2] == "third: grüße 日本"
        one.type(":wq\r")
        picture = await one.shows(lambda picture: not picture.alternate)
        picture = await one.shows(lambda picture: picture.text.endswith("$"))
        assert picture.lines[0] == "$ vim -u NONE -N note.txt"
    assert file.read_text() == "first line\nsecond line\nthird: grüße 日本\n"


@needs("less")
async def test_less_pages(tmp_path: Path) -> None:
    """SE-20: forward by a page, to the end, and out again."""
    file = tmp_path / "long.txt"
    file.write_text("".join(f"line {number}\n" for number in range(1, 101)))
    with Program("less", str(file), cols=40, rows=11).start(
        env(tmp_path), tmp_path
    ) as one:
        picture = await one.shows(lambda picture: "long.txt" in picture.lines[-1])
        assert picture.lines[:10] == tuple(f"line {n}" for n in range(1, 11))
        one.type(" ")
        picture = await one.shows(lambda picture: picture.lines[-1] == ":")
        assert picture.lines[0] == "line 11"
        one.type("G")
        picture = await one.shows(lambda picture: "END" in picture.lines[-1])
        assert picture.lines[9] == "line 100"
        one.type("q")
        await one.ended()
        assert not one.screen.picture().alternate


@needs("top")
async def test_top_is_read(tmp_path: Path) -> None:
    """SE-20: its head, its table, and again after another size."""
    with Program("top", cols=80, rows=20).start(env(tmp_path), tmp_path) as one:
        picture = await one.shows(lambda picture: "PID" in picture.text)
        assert picture.lines[0].startswith("top - ")
        assert any(line.startswith("Tasks:") for line in picture.lines)
        one.resize(100, 30)
        await one.shows(lambda picture: picture.lines[25])
        one.type("q")
        await one.ended()


async def test_a_dialog_is_answered(tmp_path: Path) -> None:
    """SE-20: a box with buttons, chosen by an arrow."""
    with Program("sh", "-c", DIALOG).start(env(tmp_path), tmp_path) as one:
        picture = await one.shows(lambda picture: "[No]" in picture.text)
        assert "│ Delete the file? │" in picture.text
        assert "┌──────────────────┐" in picture.text
        assert picture.alternate
        assert not picture.cursor
        one.type("\x1b[C")
        await one.shows(lambda picture: "[Yes]" in picture.text)
        one.type("\r")
        picture = await one.shows(lambda picture: "answer" in picture.text)
        assert picture.text.strip() == "answer: 2"


@needs("vim")
async def test_a_program_that_asks_the_terminal_gets_its_answer(tmp_path: Path) -> None:
    """SE-20: the position of the cursor, which readers of lines wait for."""
    ask = "stty -icanon -echo; printf 'ab\\033[6n'; dd bs=1 count=6 2>/dev/null | od -c"
    with Program("sh", "-c", ask).start(env(tmp_path), tmp_path) as one:
        picture = await one.shows(lambda picture: "R" in picture.text)
        assert "[   1   ;   3   R" in picture.text


STREAMS: dict[str, bytes] = {
    "lines": b"hello\r\nworld",
    "wrap": b"x" * 200,
    "scroll": b"\r\n".join(b"%d" % number for number in range(50)),
    "position": b"\x1b[5;10Hhere\x1b[H!",
    "erase below": b"a\r\nb\r\nc\x1b[A\x1b[J",
    "erase above": b"aaaa\r\nbbbb\r\ncccc\x1b[2;2H\x1b[1J",
    "erase right": b"abcdef\x1b[3D\x1b[K",
    "erase left": b"abcdef\x1b[3D\x1b[1K",
    "erase characters": b"abcdef\x1b[4D\x1b[2X",
    "insert characters": b"abcdef\x1b[3D\x1b[2@XY",
    "delete characters": b"abcdef\x1b[4D\x1b[2P",
    "insert mode": b"abc\x1b[D\x1b[4hXX\x1b[4l",
    "delete lines": b"1\r\n2\r\n3\x1b[2;1H\x1b[M",
    "insert lines": b"1\r\n2\r\n3\x1b[2;1H\x1b[2L",
    "margins": b"\x1b[3;6r\x1b[6;1H" + b"\r\n".join(b"%d" % i for i in range(9)),
    "reverse index": b"\x1b[2;5r\x1b[2;1Htop\x1bM\x1bMnew",
    "index": b"abc\x1bDx\x1bEy",
    "scroll up": b"1\r\n2\r\n3\x1b[S",
    "scroll down": b"1\r\n2\r\n3\x1b[T",
    "origin": b"\x1b[3;6r\x1b[?6h\x1b[1;1Hx\x1b[9;1Hy",
    "above the margin": b"\x1b[5;8r\x1b[2;3H\x1b[9Ax",
    "below the margin": b"\x1b[2;4r\x1b[10;1H\nz",
    "alternate": b"main\x1b[?1049h\x1b[Halt",
    "back from alternate": b"main\x1b[?1049halternate\x1b[?1049l!",
    "1047": b"main\x1b[?1047hxx\x1b[?1047l!",
    "47": b"m\x1b[?47hx\x1b[?47l!",
    "save": b"a\x1b7\x1b[5;5Hb\x1b8c",
    "tabs": b"a\tb\tc\r\n\x1b[3g\tx",
    "back tabs": b"\t\t\tx\x1b[2Zy",
    "repeat": b"ab\x1b[5b",
    "strings": b"a\x1b]0;t\x07b\x1b]8;;http://x\x1b\\c\x1bPqabc\x1b\\d\x1b_x\x1b\\e",
    "no wrap": b"\x1b[?7l" + b"abcdefghij" * 6,
    "columns and rows": b"\x1b[4dA\x1b[7GB\x1b[2`C\x1b[2Ed\x1b[Fe",
    "control within": b"ab\x1b[\r3Cx",
    "cancelled": b"a\x1b[3\x18Cb",
    "broken off": b"a\x1b[3\x1b[2Cb",
    "wide": "日本語\r\nab日本".encode(),
    "wide at the edge": ("x" * 39 + "日本").encode(),
    "accents": "e\u0301a\u0308 n".encode(),
    "emoji": "😀a".encode(),
    "reset": b"abc\x1b[3;5r\x1bcx",
    "fill": b"\x1b#8\x1b[2;2H\x1b[J",
    "coloured": b"\x1b[41m\x1b[2J\x1b[Hx\x1b[1;38;5;9mred\x1b[0m",
}


class Tmux:
    """A server of its own, gone at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._words = ("tmux", "-f", os.devnull, "-S", str(directory / "s"))

    async def run(self, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(*self._words, *words),
            env=env(self.directory),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(40):
            said, _ = await process.communicate()
        return said.decode()

    async def screen(self, name: str, data: bytes) -> tuple[list[str], list[int]]:
        """Return the lines, and the cursor's row and column, after `data`."""
        file = self.directory / f"{name}.bytes"
        file.write_bytes(data)
        # Drawn before the answer comes: the pane's output is read in order.
        command = f"stty raw -echo; cat '{file}'; printf '\\033[6n'; "
        command += f"dd bs=1 count=1 2>/dev/null >/dev/null; tmux -S '{self._words[4]}'"
        command += f" wait-for -S '{name}'; exec sleep 60"
        size = ("-x", str(COLS), "-y", str(ROWS))
        await self.run("new-session", "-d", "-s", name, *size, "sh", "-c", command)
        await self.run("wait-for", name)
        text = await self.run("capture-pane", "-p", "-t", name)
        place = await self.run(
            "display-message", "-p", "-t", name, "#{cursor_y} #{cursor_x}"
        )
        lines = [line.rstrip() for line in text.split("\n")][:ROWS]
        return lines, [int(number) for number in place.split()]


@needs("tmux")
async def test_the_screen_is_what_tmux_says_it_is(short_path: Path) -> None:
    """SE-20: more than forty recorded streams, compared with `tmux capture-pane`."""
    tmux = Tmux(short_path)
    assert len(STREAMS) >= 20
    wrong: list[str] = []
    try:
        for number, (name, data) in enumerate(STREAMS.items()):
            lines, (row, column) = await tmux.screen(f"t{number}", data)
            screen = Screen(COLS, ROWS)
            screen.feed(data)
            picture = screen.picture()
            same = [unicodedata.normalize("NFC", line) for line in picture.lines] == [
                unicodedata.normalize("NFC", line) for line in lines
            ]
            at = (picture.row - 1, picture.column - 1)
            if not same or at != (row, min(column, COLS - 1)):
                wrong.append(
                    f"{name}: {picture.lines} {at}, tmux {lines} {row, column}"
                )
    finally:
        await tmux.run("kill-server")
    assert not wrong, "\n".join(wrong)


@needs("tmux")
@needs("vim")
async def test_a_recorded_vim_looks_as_in_tmux(
    tmp_path: Path, short_path: Path
) -> None:
    """SE-20: all that vim printed, shown by both."""
    file = tmp_path / "code.py"
    file.write_text("def f(x):\n    return x\n" * 20)
    words = ("vim", "-u", "NONE", "-N", "-i", "NONE", "+set nu hls", str(file))
    with Program(*words, cols=COLS, rows=ROWS).start(env(tmp_path), tmp_path) as one:
        # not its message about the file: answers of the terminal make it draw anew
        await one.shows(
            lambda picture: " 1 def f(x)" in picture.lines[0] and picture.row == 1
        )
        one.type("/return\r")
        await one.shows(lambda picture: picture.row == 2)
        one.type("ddjjp:vs\r")
        await one.shows(lambda picture: picture.text.count("1 def") > 1)
        printed = one.printed
    tmux = Tmux(short_path)
    try:
        lines, _ = await tmux.screen("vim", printed)
    finally:
        await tmux.run("kill-server")
    screen = Screen(COLS, ROWS)
    screen.feed(printed)
    assert list(screen.picture().lines) == lines
