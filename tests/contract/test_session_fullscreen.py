"""Programs that take the whole screen, driven by keys and read as they are seen."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.escapes import BROKEN, GONE
from fakes.programs import DIALOG
from fakes.sshd import Sshd
from fakes.tools import Tools, served, text, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("session_fullscreen"),
    pytest.mark.needs_sshd,
    pytest.mark.usefixtures("terminals"),
]

COLS, ROWS = 80, 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fullscreen-home")


@pytest.fixture(scope="module")
def host(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("fullscreen-sshd")
    with Sshd(directory, options={"SetEnv": f"HOME={home}"}) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def shared(host: Sshd) -> Iterator[World]:
    with served(host) as one:
        yield one


class Session:
    """A session of a plain shell, as an agent uses it."""

    def __init__(self, ssh: Tools, opened: dict[str, Any]) -> None:
        self._ssh = ssh
        self.opened = opened
        self.ident: str = opened["session_id"]

    async def type(self, keys: str, **arguments: Any) -> dict[str, Any]:
        return await self._ssh.told(
            "ssh_session_write",
            session=self.ident,
            input=keys,
            **{"wait_seconds": 0, **arguments},
        )

    async def read(self, **arguments: Any) -> dict[str, Any]:
        return await self._ssh.told("ssh_session_read", session=self.ident, **arguments)

    async def screen(self, is_there: Callable[[str], object]) -> str:
        """Return the screen once `is_there` is true of it."""
        async with asyncio.timeout(40):
            while True:
                told = await self.read(view="screen", max_output_chars=100_000)
                if is_there(told["output"]):
                    return str(told["output"])
                await self.read(wait_seconds=0.2)


@pytest_asyncio.fixture(loop_scope="module", params=["held", "remote"])
async def session(request: pytest.FixtureRequest, ssh: Tools) -> AsyncIterator[Session]:
    opened = await ssh.told(
        "ssh_session_open",
        target="box",
        shell="/bin/sh",
        cols=COLS,
        rows=ROWS,
        env={"LC_ALL": "C.UTF-8", "LESSHISTFILE": "-"},
        durability=request.param,
        new=True,
    )
    one = Session(ssh, opened)
    yield one
    await ssh.told("ssh_session_close", session=one.ident, force=True)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed"
    )


@needs("vim")
async def test_vim_edits_and_saves_a_file(session: Session, home: Path) -> None:
    """SE-20: vim, driven through the tools."""
    file = home / "note.txt"
    file.write_text("first line\nsecond line\n")
    await session.type(f"vim -u NONE -N {file}\n", wait_seconds=10, until="second")
    screen = await session.screen(lambda text: "\n~\n" in text)
    assert screen.startswith("first line\nsecond line\n~\n")
    await session.type("Gothird: grüße 日本\u001b")
    await session.screen(lambda text: "third: grüße 日本" in text)
    await session.type(":wq\n")
    await soon(lambda: "third" in file.read_text(), "the file is written")
    screen = await session.screen(lambda text: "\n~\n" not in text)
    assert "vim -u NONE" in screen
    assert file.read_text() == "first line\nsecond line\nthird: grüße 日本\n"


@needs("less")
async def test_less_pages(session: Session, home: Path) -> None:
    """SE-20: less."""
    file = home / "long.txt"
    file.write_text("".join(f"line {number}\n" for number in range(1, 101)))
    await session.type(f"less {file}\n")
    screen = await session.screen(lambda text: "long.txt" in text.split("\n")[-1])
    assert screen.startswith("line 1\nline 2\n")
    await session.type(" ")
    await session.screen(lambda text: text.startswith("line 24\n"))
    await session.type("G")
    await session.screen(lambda text: "line 100\n" in text and "(END)" in text)
    await session.type("q")
    await session.screen(lambda text: "line 100" not in text)


@needs("top")
async def test_top_is_read(session: Session) -> None:
    """SE-20: top."""
    await session.type("top\n")
    screen = await session.screen(lambda text: "PID" in text)
    assert "Tasks:" in screen
    await session.type("q")
    # Keys that come before it is gone are top's.
    await session.screen(lambda text: text.endswith(("$", "#")))
    told = await session.type("echo o''ut\n", wait_seconds=10, until=r"^out$")
    assert "out" in told["output"]


async def test_a_dialog_is_answered(session: Session, home: Path) -> None:
    """SE-20: a box with buttons."""
    script = home / "dialog.sh"
    script.write_text(DIALOG)
    await session.type(f"sh {script}\n")
    screen = await session.screen(lambda text: "[No]" in text)
    assert "│ Delete the file? │" in screen
    await session.type("\u001b[C")
    await session.screen(lambda text: "[Yes]" in text)
    told = await session.type("\n", wait_seconds=10, until=r"answer: (\d)")
    assert "answer: 2" in told["output"]


async def test_a_program_that_asks_the_terminal_is_answered(session: Session) -> None:
    """SE-20: nobody's terminal is there, and still nothing waits for ever."""
    ask = "stty -icanon -echo; printf '\\033[6n'; dd bs=1 count=1 2>/dev/null | od -c;"
    told = await session.type(
        f"{ask} stty icanon echo; cat >/dev/null & echo go-on\n",
        wait_seconds=20,
        until=r"033[\s\S]*go-on",
    )
    assert "033" in told["output"]


async def test_no_sequence_reaches_the_text(session: Session, home: Path) -> None:
    """SE-22, NF-12: the corpus, printed on a host and read by ssh_session_read."""
    file = home / "corpus"
    file.write_bytes(b"".join(b"a" + case + b"b\n" for case in GONE))
    await session.type("stty -echo\n")
    told = await session.type(
        f"cat {file}; printf '\\030\\033\\\\'; echo corpus-'end'\n",
        wait_seconds=20,
        until="corpus-end",
        max_output_chars=1_000_000,
    )
    text = told["output"]
    assert text.count("ab\n") > 150
    for char in text:
        assert char in "\n\t" or " " <= char <= "~" or char >= "\u00a0", repr(char)
    assert "evil.example" not in text
    raw = await session.read(view="raw", offset=0, max_output_chars=1_000_000)
    # some of them are no UTF-8
    assert raw["encoding"] == "base64"
    assert b"\x1b]52;c;cm0gLXJmIC8=\x07" in base64.b64decode(raw["output"])


async def test_what_is_broken_hides_nothing(session: Session, home: Path) -> None:
    """SE-22, NF-12: what comes after it is there."""
    file = home / "broken"
    file.write_bytes(b"".join(b"a" + case[:200] + b"\nnext\n" for case in BROKEN))
    told = await session.type(
        f"cat {file}; printf '\\030\\033\\\\'; echo broken-'end'\n",
        wait_seconds=20,
        until="broken-end",
        max_output_chars=1_000_000,
    )
    assert told["output"].count("next") >= len(BROKEN) - 3


async def test_another_size_is_told_to_the_program(ssh: Tools) -> None:
    """SE-20: cols and rows."""
    opened = await ssh.told(
        "ssh_session_open", target="box", shell="/bin/sh", cols=50, rows=10, new=True
    )
    one = Session(ssh, opened)
    told = await one.type("stty size\n", wait_seconds=10, until=r"10 50")
    assert "10 50" in told["output"]
    await ssh.told("ssh_session_close", session=one.ident, force=True)


async def test_the_transcript_and_the_recording_stay(ssh: Tools) -> None:
    """SE-16, OB-06: path and size are told; 0600 in 0700; there after the end."""
    opened = await ssh.told("ssh_session_open", target="box", shell="/bin/sh", new=True)
    one = Session(ssh, opened)
    await one.type("echo trans''cript\n", wait_seconds=10, until="transcript")
    hidden = "stty -echo; printf 'Word: '; read x; stty echo; echo got ${#x}\n"
    await one.type(hidden, wait_seconds=10, until=r"Word: \Z")
    told = await one.type("s3cret-word\n", wait_seconds=10, until=r"got \d")
    assert "got 11" in told["output"]
    await ssh.told("ssh_session_close", session=one.ident)
    async with asyncio.timeout(40):
        while True:
            told = await one.read()
            transcript = Path(told["transcript_path"])
            size = await asyncio.to_thread(_size, transcript)
            if told["transcript_size_bytes"] == size > 0:
                break
    await asyncio.to_thread(_check_files, transcript)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_files(transcript: Path) -> None:
    text = transcript.read_text()
    assert "transcript" in text
    assert "got 11" in text
    assert "s3cret" not in text
    assert stat.S_IMODE(transcript.stat().st_mode) == 0o600
    assert stat.S_IMODE(transcript.parent.stat().st_mode) == 0o700
    header, *events = transcript.with_suffix(".cast").read_text().splitlines()
    assert json.loads(header)["version"] == 3
    assert any("transcript" in line for line in events)
    assert not any("s3cret" in line for line in events)


@pytest.mark.parametrize(
    "pattern", ["(", "a**", "x" * 1001], ids=["open", "twice", "long"]
)
async def test_what_is_no_pattern_is_refused(
    ssh: Tools, session: Session, pattern: str
) -> None:
    """SE-19: before anything is typed."""
    error = await ssh.refused(
        "ssh_session_write", session=session.ident, input="echo no\n", until=pattern
    )
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert error["field"] == "until"


@needs("tmux")
async def test_an_observer_sees_the_session_until_it_is_closed(ssh: Tools) -> None:
    """SE-17, OB-04: tmux, or the command alone."""
    plain = await ssh.told("ssh_session_open", target="box", shell="/bin/sh", new=True)
    assert plain["observer"]["command"].endswith(
        f"attach {plain['session_id']} --watch"
    )
    await ssh.told("ssh_session_close", session=plain["session_id"], force=True)
    opened = await ssh.told(
        "ssh_session_open", target="box", shell="/bin/sh", observer="tmux", new=True
    )
    assert opened["observer"]["mode"] == "tmux", opened["observer"]
    assert not opened["observer"].get("warning")
    _, _, socket, _, _, ident = opened["observer"]["command"].split()
    one = Session(ssh, opened)
    await one.type("echo see''n\n", wait_seconds=10, until="seen")
    await soon(lambda: "seen" in _tmux(socket, "capture-pane", "-pt", ident), "shown")
    await ssh.told("ssh_session_close", session=one.ident, force=True)
    await soon(lambda: not _tmux(socket, "has-session", "-t", ident), "closed")


async def test_a_client_that_shows_only_text_is_told_the_observer_s_command(
    shared: World,
) -> None:
    """SE-17, OB-04: the buggy shim said "use the command instead", and gave none."""
    async with tools(shared, client="claude-code") as ssh:
        asked = {"target": "box", "shell": "/bin/sh", "session_name": "seen"}
        told = text(await ssh.call("ssh_session_open", **asked, observer="tmux"))
        listed = await ssh.told("ssh_session_list", session_name="seen")
        (one,) = listed["sessions"]
        assert one["observer"]["command"] in told
        await ssh.call("ssh_session_close", session="seen", force=True)


@needs("tmux")
async def test_no_observer_outlives_the_daemon(host: Sshd) -> None:
    """SE-17: closed at shutdown."""
    with served(host) as world:
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open",
                target="box",
                shell="/bin/sh",
                observer="tmux",
                durability="held",
            )
            _, _, socket, _, _, ident = opened["observer"]["command"].split()
            await soon(lambda: _tmux(socket, "has-session", "-t", ident), "it is there")
        await asyncio.to_thread(world.stop)
        assert not await asyncio.to_thread(_tmux, socket, "has-session", "-t", ident)


def _tmux(socket: str, *words: str) -> str:
    """Return what tmux says, and something when it agrees; nothing when it fails."""
    done = subprocess.run(
        ["tmux", "-S", socket, *words], check=False, capture_output=True, text=True
    )
    return "" if done.returncode else done.stdout or "yes"
