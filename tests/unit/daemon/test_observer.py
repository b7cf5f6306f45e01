from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.watch import soon
from holdfast_daemon.session.observer import SOCKET_NAME, Mode, Observers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="tmux is not installed"
)


def watcher(directory: Path) -> tuple[str, ...]:
    """Return the words of a program that shows how it was called, and stays."""
    program = directory / "holdfast it's"
    program.write_text('#!/bin/sh\necho "$HOLDFAST_SOCKET: $*"\nexec sleep 60\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return (str(program),)


def observers(directory: Path, **env: str) -> Observers:
    base = {"PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8"}
    return Observers(
        directory,
        socket=directory / "d.sock",
        env={**base, **env},
        program=watcher(directory),
    )


def ask(directory: Path, *words: str) -> tuple[int, str]:
    """Run tmux on the server of the test."""
    done = subprocess.run(
        ["tmux", "-S", str(directory / SOCKET_NAME), *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    return done.returncode, done.stdout + done.stderr


async def tmux(directory: Path, *words: str) -> tuple[int, str]:
    return await asyncio.to_thread(ask, directory, *words)


async def shown(directory: Path, ident: str, text: str) -> str:
    """Return what the window shows once `text` is in it."""

    def look() -> str:
        _, screen = ask(directory, "capture-pane", "-p", "-t", ident)
        return screen if text in screen else ""

    return await soon(look, f"{text} is shown")


async def gone(directory: Path) -> None:
    """Return once there is no server; it ends just after it says so."""
    await soon(lambda: ask(directory, "list-sessions")[0] == 1, "the server is gone")


async def test_a_window_shows_the_session_until_it_is_closed(short_path: Path) -> None:
    """SE-17: on a server of our own; the command is for any shell."""
    ours = observers(short_path)
    try:
        view = await ours.open("s1abc", cols=80, rows=24)
        assert (view.mode, view.warning) == (Mode.TMUX, "")
        socket = str(short_path / SOCKET_NAME)
        words = shlex.split(view.command)
        assert words[1:] == ["-S", socket, "attach-session", "-t", "s1abc"]
        screen = await shown(short_path, "s1abc", "--watch")
        assert f"{short_path}/d.sock: attach s1abc --watch" in screen
        again = await ours.open("s1abc", cols=80, rows=24)
        assert again == view
        await ours.open("s2abc", cols=80, rows=24)
        await ours.close("s1abc")
        assert (await tmux(short_path, "has-session", "-t", "=s1abc"))[0] != 0
        assert (await tmux(short_path, "has-session", "-t", "=s2abc"))[0] == 0
    finally:
        await ours.close_all()
    await gone(short_path)


async def test_a_new_daemon_finds_the_window_of_the_last_one(short_path: Path) -> None:
    """SE-17: after `kill -9`; and at shutdown all are closed."""
    await observers(short_path).open("s1abc", cols=80, rows=24)
    later = observers(short_path)
    try:
        assert (await later.open("s1abc", cols=80, rows=24)).mode is Mode.TMUX
        _, said = await tmux(short_path, "list-sessions")
        assert said.count("\n") == 1
    finally:
        await observers(short_path).close_all()
    await gone(short_path)


@pytest.mark.parametrize(
    "ident", ["s1", "-x", "a b", "#(touch trap)", "$(touch trap)", "a;touch trap"]
)
async def test_no_name_is_read_as_a_command(short_path: Path, ident: str) -> None:
    """SE-17, SC-10: ids are ours, but nothing rests on that."""
    ours = observers(short_path)
    try:
        view = await ours.open(ident, cols=80, rows=24)
        assert shlex.split(view.command)[-1] == ident or view.warning
        plain = shlex.split(ours.plain(ident).command)
        assert plain[-3:] == ["attach", ident, "--watch"]
    finally:
        await ours.close_all()
    assert not await asyncio.to_thread((short_path / "trap").exists)


async def test_without_tmux_the_plain_command_is_told(short_path: Path) -> None:
    """SE-17: a warning with what to do instead."""
    ours = observers(short_path, PATH=str(short_path))
    view = await ours.open("s1abc", cols=80, rows=24)
    assert view.mode is Mode.NONE
    assert "tmux is not installed" in view.warning
    words = shlex.split(view.command)
    assert words == [str(short_path / "holdfast it's"), "attach", "s1abc", "--watch"]
    await ours.close("s1abc")
    await ours.close_all()


async def test_a_tmux_that_fails_is_told(short_path: Path) -> None:
    """SE-17: nothing fails with it."""
    fake = short_path / "bin"
    fake.mkdir()
    program = fake / "tmux"
    program.write_text("#!/bin/sh\necho 'server exited unexpectedly' >&2\nexit 1\n")
    program.chmod(0o755)
    ours = observers(short_path, PATH=f"{fake}:{os.environ['PATH']}")
    view = await ours.open("s1abc", cols=80, rows=24)
    assert "server exited unexpectedly" in view.warning
    long = Observers(short_path / ("x" * 120), socket=short_path / "d.sock")
    assert "too long" in (await long.open("s1abc", cols=80, rows=24)).warning


async def test_a_daemon_in_a_place_of_its_own_is_named(short_path: Path) -> None:
    """OB-04: else the command would ask another daemon."""
    socket = short_path / "d.sock"
    ours = observers(short_path, HOLDFAST_SOCKET="/elsewhere")
    words = shlex.split(ours.plain("s1abc").command)
    assert words[:2] == ["env", f"HOLDFAST_SOCKET={socket}"]
